"""Stub predictors that record how they are used."""

import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lora_core.inference.decoding import DecodedOutput
from lora_core.inference.tokenization import TokenizedWords, WordSpan
from lora_core.tasks.base import UNCALIBRATED, Calibration
from lora_core.tasks.single_label import SingleLabel

WAIT = 20  # seconds after which a test that hangs fails


@dataclass(frozen=True)
class StubTokens:
    """One token for each character."""

    ids: Sequence[int]
    truncated: bool = False

    @property
    def length(self) -> int:
        return len(self.ids)

    @property
    def windows(self) -> Sequence["StubTokens"]:
        return (self,)


@dataclass
class StubAdapter:
    nbytes: int = 1


class StubEngine:
    """Gives every text the same score. While `gate` is closed, computing waits."""

    name = "torch-fp32"

    def __init__(self, score: float = 0.5, *, nbytes: int = 10) -> None:
        self.score = score
        self.nbytes = nbytes
        self.gate = threading.Event()
        self.gate.set()
        self.busy = threading.Event()  # set while a batch is computed
        self.batches: list[list[int]] = []  # lengths of the texts
        self.adapters: list[list[Any]] = []
        self.failures: list[Exception | None] = []  # one for each of the next batches
        self.threads: list[int | None] = []
        self.workers: list[str] = []

    max_batch_tokens = 100

    def logits(
        self, texts: Sequence[StubTokens], adapters: Sequence[Any], *, threads: int | None = None
    ) -> list[list[float]]:
        self.threads.append(threads)
        self.workers.append(threading.current_thread().name)
        self.adapters.append(list(adapters))
        self.batches.append([text.length for text in texts])
        self.busy.set()
        assert self.gate.wait(WAIT)
        self.busy.clear()
        if self.failures and (failure := self.failures.pop(0)) is not None:
            raise failure
        return [[self.score, 1 - self.score] for _ in texts]

    def logits_and_states(
        self, texts: Sequence[StubTokens], adapters: Sequence[Any], *, threads: int | None = None
    ) -> list[tuple[list[float], list[float]]]:
        return [(row, [self.score]) for row in self.logits(texts, adapters, threads=threads)]


@dataclass
class StubPredictor:
    engine: StubEngine = field(default_factory=StubEngine)
    adapter: StubAdapter = field(default_factory=StubAdapter)
    task: SingleLabel = SingleLabel(("good", "bad"))  # noqa: RUF009 - never changed
    calibration: Calibration = UNCALIBRATED
    max_length: int = 512
    engine_speeds: Mapping[str, float] = field(default_factory=dict)
    prompt_format: None = None
    label_columns: Mapping[str | None, str] = field(default_factory=lambda: {None: "label"})
    pairs: bool = False

    @property
    def labels(self) -> Sequence[str]:
        return self.task.labels

    def encode(self, texts: Sequence[str], **_: Any) -> list[StubTokens]:
        return [StubTokens(range(len(text))) for text in texts]

    def tokenize_into_words(self, text: str) -> TokenizedWords:
        words = [WordSpan(m.start(), m.end(), m.start() + 1) for m in re.finditer(r"\S+", text)]
        special = [i in (0, len(text) + 1) for i in range(len(text) + 2)]
        return TokenizedWords(text, words, range(len(text) + 2), False, special, 512)

    def decode_outputs(self, logits: Any, _: str | None = None) -> list[list[DecodedOutput]]:
        return [list(map(DecodedOutput, self.labels, row)) for row in logits]


class StubLoader:
    """Makes a stub for each directory and records the loads; raises `broken[directory]`."""

    def __init__(self) -> None:
        self.loads: list[Path] = []
        self.stubs: dict[Path, StubPredictor] = {}
        self.broken: dict[Path, Exception] = {}
        self.gate = threading.Event()
        self.gate.set()
        self.gates: dict[Path, threading.Event] = {}  # by directory, in place of `gate`

    def __call__(self, directory: Path, **_: object) -> StubPredictor:
        self.loads.append(directory)
        assert self.gates.get(directory, self.gate).wait(WAIT)
        if directory in self.broken:
            raise self.broken[directory]
        return self.stubs.setdefault(directory, StubPredictor())
