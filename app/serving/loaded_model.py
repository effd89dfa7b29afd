"""Encoder models in memory, and the protocols of what `lora_core` loads."""

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import structlog

from app.serving.batcher import BatchEngine, Batcher, InferenceOutput, QueuedText
from app.serving.errors import ModelTokenizerFailed, NonFiniteScore
from lora_core.errors.artifact import TokenizerFailed
from lora_core.specs.predict import ScoreFunction, TruncationSide

MAX_INLINE_CHARACTERS = 2048  # tokenized in less time than a switch to another thread takes

T = TypeVar("T")
LabelScores = list[tuple[str, float]]  # highest first

log = structlog.get_logger()


class TokenizedTextProtocol(Protocol):
    """The token ids of one text."""

    @property
    def ids(self) -> Sequence[int]: ...

    @property
    def length(self) -> int: ...

    @property
    def truncated(self) -> bool: ...


class SpanProtocol(Protocol):
    """Characters `start` to `end` of a text."""

    @property
    def start(self) -> int: ...

    @property
    def end(self) -> int: ...


class TokenizedWordsProtocol(Protocol):
    """The part of `lora_core.inference.word_spans.TokenizedWords` that explanations use."""

    @property
    def words(self) -> Sequence[SpanProtocol]: ...

    @property
    def ids(self) -> Sequence[int]: ...

    @property
    def truncated(self) -> bool: ...

    def grouped(self, max_words: int) -> "TokenizedWordsProtocol": ...

    def masked(self, mask: Sequence[bool]) -> TokenizedTextProtocol: ...


class EncoderEngineProtocol(BatchEngine, Protocol):
    """An engine with a name and a size."""

    @property
    def name(self) -> str: ...

    @property
    def nbytes(self) -> int: ...


class HasNbytes(Protocol):
    """Anything that takes memory."""

    @property
    def nbytes(self) -> int: ...


class BasePredictorProtocol(Protocol):
    """What all predictors have in common."""

    @property
    def adapter(self) -> HasNbytes: ...

    @property
    def labels(self) -> Sequence[str]: ...

    @property
    def max_length(self) -> int: ...

    @property
    def engine_speeds(self) -> Mapping[str, float]: ...

    def decode(self, logits: Any, function: ScoreFunction | None = None) -> list[LabelScores]: ...


class EncoderPredictorProtocol(BasePredictorProtocol, Protocol):
    """The part of `lora_core.inference.predictor.Predictor` that serving uses."""

    @property
    def engine(self) -> EncoderEngineProtocol: ...

    def encode(
        self, texts: Sequence[str], *, truncate: bool = True, side: TruncationSide = "right"
    ) -> list[Any]: ...

    def tokenize_words(self, text: str) -> TokenizedWordsProtocol: ...


@dataclass(frozen=True, slots=True)
class TokenizedBatch:
    """The tokenized texts of a request. Each item has `length` and `truncated`."""

    items: Sequence[Any]
    seconds: float  # of tokenization
    token_cost: float = 1.0  # cost of a token, in tokens of an encoder

    @property
    def tokens(self) -> int:
        return sum(item.length for item in self.items)

    @property
    def cost(self) -> int:
        """Cost in tokens of an encoder."""
        return math.ceil(self.tokens * self.token_cost)

    @property
    def truncated(self) -> int:
        """Number of truncated texts."""
        return sum(item.truncated for item in self.items)


class LoadedEncoder:
    """An encoder model in memory, with the batcher and the tokenizer threads that all share."""

    def __init__(
        self,
        ref: str,
        predictor: EncoderPredictorProtocol,
        batcher: Batcher,
        tokenizer_executor: Executor,
    ) -> None:
        self.ref = ref
        self.predictor = predictor
        self._batcher = batcher
        self._tokenizer_executor = tokenizer_executor

    async def tokenize(
        self, texts: Sequence[str], *, truncate: bool, side: TruncationSide
    ) -> TokenizedBatch:
        """Tokenize the texts of a request.

        Raises `EmptyInput`, `ModelTokenizerFailed`, and `InputTooLong` if `truncate` is false.
        """

        def encode() -> TokenizedBatch:
            start = time.perf_counter()
            items = self.predictor.encode(texts, truncate=truncate, side=side)
            return TokenizedBatch(items, time.perf_counter() - start)

        return await self._run_tokenizer(encode, sum(map(len, texts)))

    async def tokenize_words(self, text: str) -> TokenizedWordsProtocol:
        """Return the words that the model reads. Raises `EmptyInput`, `ModelTokenizerFailed`."""
        return await self._run_tokenizer(lambda: self.predictor.tokenize_words(text), len(text))

    async def _run_tokenizer(self, work: Callable[[], T], characters: int) -> T:
        """Run `work`, in another thread if there are many characters."""
        try:
            if characters <= MAX_INLINE_CHARACTERS:
                return work()
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._tokenizer_executor, work)
        except TokenizerFailed as error:
            log.exception("tokenizer_failed", model=self.ref)
            raise ModelTokenizerFailed(ref=self.ref, **error.detail) from error

    async def compute(self, batch: TokenizedBatch, *, deadline: float) -> list[InferenceOutput]:
        """Return the outputs in the order given. `deadline` is on the monotonic clock.

        A cancelled caller's texts leave the queue. Raises `DeadlineExceeded`, `InferenceFailed`.
        """
        loop = asyncio.get_running_loop()
        engine, adapter = self.predictor.engine, self.predictor.adapter
        return await self._batcher.compute(
            [QueuedText(engine, adapter, item.ids, deadline, loop.create_future())
             for item in batch.items]
        )  # fmt: skip

    def decode(
        self, outputs: Sequence[InferenceOutput], function: ScoreFunction | None
    ) -> list[LabelScores]:
        """Return the labels of each text, highest first. Raises `NonFiniteScore`."""
        scores = [self.predictor.decode(output.logits[None], function)[0] for output in outputs]
        if not all(math.isfinite(score) for row in scores for _, score in row):
            raise NonFiniteScore(ref=self.ref)
        return scores
