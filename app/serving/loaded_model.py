"""A model version in memory."""

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import structlog

from app.serving.batcher import Batcher, Computed, Engine, Ticket
from app.serving.errors import ModelTokenizerFailed, NotFinite
from lora_core.errors.artifact import TokenizerFailed
from lora_core.specs.predict import Function, Side

FEW_CHARACTERS = 2048  # are tokenised in less time than it takes to hand them to another thread

T = TypeVar("T")
Scores = list[tuple[str, float]]

log = structlog.get_logger()


class Encoded(Protocol):
    """One text as token ids."""

    @property
    def ids(self) -> Sequence[int]: ...

    @property
    def length(self) -> int: ...

    @property
    def truncated(self) -> bool: ...


class Word(Protocol):
    """Where it stands in its text, in characters."""

    @property
    def start(self) -> int: ...

    @property
    def end(self) -> int: ...


class Worded(Protocol):
    """What is needed of `lora_core.inference.words.Worded`."""

    @property
    def words(self) -> Sequence[Word]: ...

    @property
    def ids(self) -> Sequence[int]: ...

    @property
    def truncated(self) -> bool: ...

    def grouped(self, most: int) -> "Worded": ...

    def only(self, kept: Sequence[bool]) -> Encoded: ...


class Network(Engine, Protocol):
    """An engine that tells what it is."""

    @property
    def name(self) -> str: ...

    @property
    def nbytes(self) -> int: ...


class Sized(Protocol):
    """What takes memory."""

    @property
    def nbytes(self) -> int: ...


class Loaded(Protocol):
    """What predictors of every kind have."""

    @property
    def adapter(self) -> Sized: ...

    @property
    def labels(self) -> Sequence[str]: ...

    @property
    def max_length(self) -> int: ...

    @property
    def speeds(self) -> Mapping[str, float]: ...

    def decode(self, logits: Any, function: Function | None = None) -> list[Scores]: ...


class Predictor(Loaded, Protocol):
    """What is needed of `lora_core.inference.predictor.Predictor`."""

    @property
    def engine(self) -> Network: ...

    def encode(
        self, texts: Sequence[str], *, truncate: bool = True, side: Side = "right"
    ) -> list[Any]: ...

    def words(self, text: str) -> Worded: ...


@dataclass(frozen=True, slots=True)
class Reading:
    """The texts of a call as the model reads them, each with its `length` and `truncated`."""

    items: Sequence[Any]
    seconds: float
    weight: float = 1.0  # of a token: what it costs, in tokens of an encoder

    @property
    def tokens(self) -> int:
        return sum(item.length for item in self.items)

    @property
    def cost(self) -> int:
        """In tokens of an encoder."""
        return math.ceil(self.tokens * self.weight)

    @property
    def truncated(self) -> int:
        """Texts that were cut."""
        return sum(item.truncated for item in self.items)


class Deployment:
    """A predictor, and the threads that it shares with others."""

    def __init__(self, ref: str, predictor: Predictor, batcher: Batcher, readers: Executor) -> None:
        self.ref = ref
        self.predictor = predictor
        self._batcher = batcher
        self._readers = readers

    async def tokenise(self, texts: Sequence[str], *, truncate: bool, side: Side) -> Reading:
        """Raises `EmptyInput`, `ModelTokenizerFailed`, and `TextTooLong` if `truncate` is false."""

        def encode() -> Reading:
            began = time.perf_counter()
            items = self.predictor.encode(texts, truncate=truncate, side=side)
            return Reading(items, time.perf_counter() - began)

        return await self._read(encode, sum(map(len, texts)))

    async def words(self, text: str) -> Worded:
        """The words of what the model reads. Raises `EmptyInput`, `ModelTokenizerFailed`."""
        return await self._read(lambda: self.predictor.words(text), len(text))

    async def _read(self, work: Callable[[], T], characters: int) -> T:
        """In another thread, unless there are few characters."""
        try:
            if characters <= FEW_CHARACTERS:
                return work()
            return await asyncio.get_running_loop().run_in_executor(self._readers, work)
        except TokenizerFailed as error:
            log.exception("tokenizer_failed", model=self.ref)
            raise ModelTokenizerFailed(ref=self.ref, **error.detail) from error

    async def compute(self, reading: Reading, *, deadline: float) -> list[Computed]:
        """In the order given. Raises `DeadlinePassed`, `BatchFailed`. Who leaves gives up the turn.

        `deadline` is on the monotonic clock.
        """
        loop = asyncio.get_running_loop()
        engine, adapter = self.predictor.engine, self.predictor.adapter
        return await self._batcher.compute(
            [Ticket(engine, adapter, item.ids, deadline, loop.create_future())
             for item in reading.items]
        )  # fmt: skip

    def decode(self, rows: Sequence[Computed], function: Function | None) -> list[Scores]:
        """The labels of each text, highest first. Raises `NotFinite`."""
        scores = [self.predictor.decode(row.logits[None], function)[0] for row in rows]
        if not all(math.isfinite(score) for row in scores for _, score in row):
            raise NotFinite(ref=self.ref)
        return scores
