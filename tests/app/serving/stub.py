"""A predictor without a model, which tells how it is used."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

WAIT = 20  # seconds after which a test that hangs fails


@dataclass(frozen=True)
class Item:
    length: int
    truncated: bool = False


class StubPredictor:
    """Gives every text the same score. While `gate` is closed, computing waits."""

    def __init__(self, score: float = 0.5) -> None:
        self.score = score
        self.gate = threading.Event()
        self.gate.set()
        self.busy = threading.Event()  # someone computes
        self.asked: list[str] = []
        self._one = threading.Lock()

    def encode(self, texts: Sequence[str], *, truncate: bool = True) -> list[Item]:  # noqa: ARG002
        assert self._one.acquire(blocking=False), "two calls at the same time"
        self.asked.extend(texts)
        return [Item(len(text)) for text in texts]

    def forward(self, items: Sequence[Item]) -> list[float]:
        self.busy.set()
        assert self.gate.wait(WAIT)
        self.busy.clear()
        return [self.score] * len(items)

    def decode(self, logits: list[float]) -> list[list[tuple[str, float]]]:
        self._one.release()
        return [[("good", score), ("bad", 1 - score)] for score in logits]


class Loader:
    """Makes a stub for each directory, counting; a directory in `broken` raises that instead."""

    def __init__(self) -> None:
        self.loads: list[Path] = []
        self.stubs: dict[Path, StubPredictor] = {}
        self.broken: dict[Path, Exception] = {}
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, directory: Path) -> StubPredictor:
        self.loads.append(directory)
        assert self.gate.wait(WAIT)
        if directory in self.broken:
            raise self.broken[directory]
        return self.stubs.setdefault(directory, StubPredictor())
