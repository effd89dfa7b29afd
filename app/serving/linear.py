"""Linear models in memory. They are computed without the batcher, which would gain nothing."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any, Protocol, TypeVar, runtime_checkable

import structlog

from app.serving.batcher import InferenceOutput
from app.serving.errors import DeadlineExceeded, InferenceFailed
from app.serving.loaded_model import (
    BasePredictorProtocol,
    EncoderPredictorProtocol,
    LabelScores,
    LoadedEncoder,
    SpanProtocol,
    TokenizedBatch,
)
from lora_core.specs.predict import ScoreFunction, TruncationSide

# Computed in about two milliseconds: less than the cost of another thread that needs the
# interpreter lock all the time.
MAX_INLINE_CHARACTERS = 8192
WORD_COST = 1 / 64  # upper bound of the cost of a word, in tokens of an encoder

T = TypeVar("T")

log = structlog.get_logger()


class LinearEngineProtocol(Protocol):
    """The engine of linear models."""

    @property
    def name(self) -> str: ...

    @property
    def nbytes(self) -> int: ...

    @property
    def batch_tokens(self) -> int: ...


@runtime_checkable
class LinearPredictorProtocol(BasePredictorProtocol, Protocol):
    """The part of `lora_core.inference.linear.LinearPredictor` that serving uses."""

    @property
    def engine(self) -> LinearEngineProtocol: ...

    def encode(self, texts: Sequence[str]) -> list[Any]: ...

    def forward(self, items: Sequence[Any]) -> Any: ...

    def contributions(
        self, text: str, label: str
    ) -> tuple[Sequence[tuple[SpanProtocol, float]], float]: ...


class LoadedLinearModel:
    """A linear model in memory, with the methods of `LoadedEncoder`."""

    def __init__(self, ref: str, predictor: LinearPredictorProtocol, executor: Executor) -> None:
        self.ref = ref
        self.predictor = predictor
        self._executor = executor

    async def tokenize(
        self,
        texts: Sequence[str],
        *,
        truncate: bool,  # noqa: ARG002 - no text is too long
        side: TruncationSide,  # noqa: ARG002
    ) -> TokenizedBatch:
        """Wrap the texts of a request. Raises `EmptyInput`."""
        return TokenizedBatch(self.predictor.encode(texts), 0.0, token_cost=WORD_COST)

    async def compute(self, batch: TokenizedBatch, *, deadline: float) -> list[InferenceOutput]:
        """Return the outputs in the order given. `deadline` is on the monotonic clock.

        Raises `DeadlineExceeded`, `InferenceFailed`.
        """
        enqueued = time.monotonic()

        def work() -> list[InferenceOutput]:
            start = time.monotonic()
            if start >= deadline:
                raise DeadlineExceeded()
            logits = self.predictor.forward(batch.items)
            seconds = time.monotonic() - start
            return [
                InferenceOutput(row, queue_seconds=start - enqueued, inference_seconds=seconds)
                for row in logits
            ]

        return await self._run(work, sum(len(item.text) for item in batch.items))

    def decode(
        self, outputs: Sequence[InferenceOutput], function: ScoreFunction | None
    ) -> list[LabelScores]:
        """Return the labels of each text, highest first."""
        return self.predictor.decode([output.logits for output in outputs], function)

    async def contributions(
        self, text: str, label: str
    ) -> tuple[Sequence[tuple[SpanProtocol, float]], float]:
        """Return what each word adds to the probability of a label, and that without any word.

        Raises `InferenceFailed`.
        """
        return await self._run(lambda: self.predictor.contributions(text, label), len(text))

    async def _run(self, work: Callable[[], T], characters: int) -> T:
        """Run `work`, in another thread if there are many characters.

        Raises `DeadlineExceeded`, and `InferenceFailed` for any other error.
        """
        try:
            if characters <= MAX_INLINE_CHARACTERS:
                return work()
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        except DeadlineExceeded:
            raise
        except Exception as error:
            log.exception("linear_failed", model=self.ref)
            raise InferenceFailed(kind=type(error).__name__) from error


AnyPredictor = EncoderPredictorProtocol | LinearPredictorProtocol
LoadedModel = LoadedEncoder | LoadedLinearModel
