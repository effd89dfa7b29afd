"""A linear version in memory. It is computed where it is asked: a batch would gain nothing."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any, Protocol, TypeVar, runtime_checkable

import structlog

from app.serving.batcher import Computed
from app.serving.errors import BatchFailed, DeadlinePassed
from app.serving.loaded_model import Deployment, Loaded, Predictor, Reading, Scores, Word
from lora_core.specs.predict import Function, Side

# Are computed in about two milliseconds, less than it costs to hand them to another thread that
# needs the interpreter all the time.
FEW_CHARACTERS = 8192
WORD_WEIGHT = 1 / 64  # a word costs at most so much of what a token costs an encoder

T = TypeVar("T")

log = structlog.get_logger()


class Engine(Protocol):
    """What computes linear models."""

    @property
    def name(self) -> str: ...

    @property
    def nbytes(self) -> int: ...

    @property
    def batch_tokens(self) -> int: ...


@runtime_checkable
class LinearPredictor(Loaded, Protocol):
    """What is needed of `lora_core.inference.linear.LinearPredictor`."""

    @property
    def engine(self) -> Engine: ...

    def encode(self, texts: Sequence[str]) -> list[Any]: ...

    def forward(self, items: Sequence[Any]) -> Any: ...

    def contributions(
        self, text: str, label: str
    ) -> tuple[Sequence[tuple[Word, float]], float]: ...


class LinearDeployment:
    """A linear predictor, with the methods of `Deployment`."""

    def __init__(self, ref: str, predictor: LinearPredictor, threads: Executor) -> None:
        self.ref = ref
        self.predictor = predictor
        self._threads = threads

    async def tokenise(
        self,
        texts: Sequence[str],
        *,
        truncate: bool,  # noqa: ARG002 - no text is too long
        side: Side,  # noqa: ARG002
    ) -> Reading:
        """Raises `EmptyInput`."""
        return Reading(self.predictor.encode(texts), 0.0, weight=WORD_WEIGHT)

    async def compute(self, reading: Reading, *, deadline: float) -> list[Computed]:
        """In the order given. Raises `DeadlinePassed`, `BatchFailed`.

        `deadline` is on the monotonic clock.
        """
        asked = time.monotonic()

        def work() -> list[Computed]:
            began = time.monotonic()
            if began >= deadline:
                raise DeadlinePassed()
            logits = self.predictor.forward(reading.items)
            seconds = time.monotonic() - began
            return [Computed(row, queued=began - asked, computing=seconds) for row in logits]

        return await self._run(work, sum(len(item.text) for item in reading.items))

    def decode(self, rows: Sequence[Computed], function: Function | None) -> list[Scores]:
        """The labels of each text, highest first."""
        return self.predictor.decode([row.logits for row in rows], function)

    async def contributions(
        self, text: str, label: str
    ) -> tuple[Sequence[tuple[Word, float]], float]:
        """What each word adds to the probability of a label, and that probability without words.

        Raises `BatchFailed`.
        """
        return await self._run(lambda: self.predictor.contributions(text, label), len(text))

    async def _run(self, work: Callable[[], T], characters: int) -> T:
        """In another thread, unless there are few characters. Raises what `work` may, wrapped."""
        try:
            if characters <= FEW_CHARACTERS:
                return work()
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except DeadlinePassed:
            raise
        except Exception as error:
            log.exception("linear_failed", model=self.ref)
            raise BatchFailed(kind=type(error).__name__) from error


AnyPredictor = Predictor | LinearPredictor
AnyDeployment = Deployment | LinearDeployment
