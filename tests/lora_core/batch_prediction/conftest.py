"""Fixtures: a file of texts, a tiny model, and the spec of a prediction run."""

import csv
import random
from pathlib import Path

import pytest

from lora_core.specs.predict import PredictDataSpec, PredictRuntimeSpec, PredictSpec
from tests.tiny_artifact import make_artifact
from tests.tiny_base import WORDS

ROWS = 700  # three chunks
LABELS = ("bad", "fine", "good")


def make_texts(path: Path, rows: int = ROWS) -> list[str]:
    """Write a CSV file with an id and a text of 1 to 90 words per row; return the texts."""
    draw = random.Random(0)
    words = [word for word in WORDS if word.isalpha()]
    texts = [" ".join(draw.choices(words, k=draw.randint(1, 90))) for _ in range(rows)]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["id", "body"], *([i, text] for i, text in enumerate(texts))])
    return texts


def make_spec(model: Path, folder: Path) -> PredictSpec:
    """Return the spec of a run on `texts.csv` in a folder."""
    source = PredictDataSpec(source=str(folder / "texts.csv"), text_column="body")
    return PredictSpec(model=str(model), data=source, runtime=PredictRuntimeSpec(threads=1))


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model") / "artifact"
    return make_artifact(directory, labels=LABELS, top_label="fine")


@pytest.fixture
def texts(tmp_path: Path) -> list[str]:
    """The texts in the file of `spec`."""
    return make_texts(tmp_path / "texts.csv")


@pytest.fixture
def spec(model: Path, tmp_path: Path, texts: list[str]) -> PredictSpec:
    return make_spec(model, tmp_path)
