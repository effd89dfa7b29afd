"""A linear model that answers. Needs no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lora_core import manifest
from lora_core.data.limits import MAX_CELL
from lora_core.errors.artifact import EmptyInput
from lora_core.inference.decoding import decode
from lora_core.linear import files
from lora_core.linear.model import LinearModel, Word
from lora_core.specs.predict import Function, Side


class Text(NamedTuple):
    """A text as it was written: all of it is read."""

    text: str

    @property
    def length(self) -> int:
        """Words, about: what it costs."""
        return self.text.count(" ") + 1

    @property
    def truncated(self) -> bool:
        return False


class Engine(NamedTuple):
    """What computes all linear models: scikit-learn, in float64."""

    name: str = "linear-fp64"
    nbytes: int = 0
    batch_tokens: int = MAX_CELL


ENGINE = Engine()


@dataclass(frozen=True, eq=False)
class LinearPredictor:
    """A linear version that can answer, with the methods of `lora_core.inference.predictor`."""

    model: LinearModel
    labels: Sequence[str]
    temperature: float = 1.0  # of softmax
    max_length: int = MAX_CELL  # it has no limit of its own; this is that of a cell in a file
    speeds: Mapping[str, float] = field(default_factory=dict)  # there is one engine

    @classmethod
    def load(cls, directory: Path) -> "LinearPredictor":
        """From an artifact directory, every digest of what is read checked.

        Raises `ArtifactCorrupt`, `ArtifactUnfit`.
        """
        facts = manifest.verify(directory, only=(*files.FILES, "golden.json"))
        labels = facts["labels"]
        model = LinearModel(files.read(directory, len(labels)))
        return cls(model, labels, facts.get("calibration", {}).get("temperature", 1.0))

    @property
    def engine(self) -> Engine:
        return ENGINE

    @property
    def adapter(self) -> LinearModel:
        """What this version adds to the engine: all that it is."""
        return self.model

    def encode(
        self,
        texts: Sequence[str],
        *,
        truncate: bool = True,  # noqa: ARG002 - no text is too long
        side: Side = "right",  # noqa: ARG002
    ) -> list[Text]:
        """Raises `EmptyInput`."""
        for index, text in enumerate(texts):
            if not text.strip():
                raise EmptyInput(index=index)
        return [Text(text) for text in texts]

    def forward(self, items: Sequence[Text]) -> NDArray[np.float64]:
        """Logits (items, labels), in the order given."""
        return self.model.logits([item.text for item in items])

    def decode(
        self, logits: Any, function: Function | None = None
    ) -> list[list[tuple[str, float]]]:
        """All labels with their scores, highest first: by default calibrated probabilities."""
        return decode(logits, self.labels, function, self.temperature)

    def predict(self, texts: Sequence[str]) -> list[list[tuple[str, float]]]:
        """Encode, forward, decode."""
        return self.decode(self.forward(self.encode(texts)))

    def contributions(self, text: str, label: str) -> tuple[list[tuple[Word, float]], float]:
        """As `LinearModel.contributions`, of calibrated probabilities."""
        return self.model.contributions(text, list(self.labels).index(label), self.temperature)
