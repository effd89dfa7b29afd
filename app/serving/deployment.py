"""A model version in memory."""

import asyncio
import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from app.serving.errors import NotFinite

Scores = list[tuple[str, float]]


class Encoded(Protocol):
    """One text as token ids."""

    @property
    def truncated(self) -> bool: ...

    @property
    def length(self) -> int: ...


class Predictor(Protocol):
    """What is needed of `lora_core.inference.predictor.Predictor`; not safe for two threads."""

    def encode(self, texts: Sequence[str], *, truncate: bool = True) -> list[Any]: ...

    def forward(self, items: Sequence[Any]) -> Any: ...

    def decode(self, logits: Any) -> list[Scores]: ...


@dataclass(frozen=True)
class Answer:
    """Labels of each text, highest first, and what it took. Times in seconds."""

    scores: list[Scores]
    truncated: int  # texts that were cut
    tokens: int
    queued: float
    tokenising: float
    computing: float


class Deployment:
    """A predictor and the one thread that uses it, so that calls do not overlap."""

    def __init__(self, ref: str, predictor: Predictor) -> None:
        self._ref = ref
        self._predictor = predictor
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"predict {ref}")

    async def classify(self, texts: Sequence[str], *, truncate: bool) -> Answer:
        """Raises `EmptyInput`, `TextTooLong`, `NotFinite`. Who leaves gives up the turn."""
        loop = asyncio.get_running_loop()
        asked = time.perf_counter()
        return await loop.run_in_executor(self._thread, self._classify, texts, truncate, asked)

    def close(self) -> None:
        """Let the calls that wait be answered, then let go of the model."""
        self._thread.shutdown(wait=False)

    def _classify(self, texts: Sequence[str], truncate: bool, asked: float) -> Answer:
        started = time.perf_counter()
        items: list[Encoded] = self._predictor.encode(texts, truncate=truncate)
        encoded = time.perf_counter()
        scores = self._predictor.decode(self._predictor.forward(items))
        if not all(math.isfinite(score) for row in scores for _, score in row):
            raise NotFinite(ref=self._ref)
        return Answer(
            scores=scores,
            truncated=sum(item.truncated for item in items),
            tokens=sum(item.length for item in items),
            queued=started - asked,
            tokenising=encoded - started,
            computing=time.perf_counter() - encoded,
        )
