"""The files of a linear model give it back exactly, and nothing else is read."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from lora_core.errors.artifact import ArtifactUnfit
from lora_core.linear import files
from lora_core.linear.model import LinearModel, fit
from lora_core.manifest import LINEAR
from lora_core.specs.method import LinearSpec

TEXTS = ["a good film", "a bad film", "größe und 电影", "good good plot", "bad bad plot"] * 4
Tensors = dict[str, NDArray[Any]]


@pytest.fixture
def made() -> LinearModel:
    return fit(TEXTS, np.arange(20) % 2, LinearSpec(ngram_range=(1, 3)), classes=2)


@pytest.fixture
def saved(made: LinearModel, tmp_path: Path) -> Path:
    files.save(tmp_path, made.parameters)
    return tmp_path


def test_what_was_saved_comes_back_bit_by_bit(made: LinearModel, saved: Path) -> None:
    again = LinearModel(files.read(saved, 2))
    asked = [*TEXTS, "unseen", "", "GRÖSSE"]
    assert (again.logits(asked) == made.logits(asked)).all()
    assert again.parameters.vectorizer == made.parameters.vectorizer
    assert {path.name for path in saved.iterdir()} == set(files.FILES)


def test_a_model_without_terms_comes_back(tmp_path: Path) -> None:
    made = fit(["one", "two"], np.array([0, 1]), LinearSpec(min_df=2), classes=3)
    files.save(tmp_path, made.parameters)
    assert (LinearModel(files.read(tmp_path, 3)).logits(["x"]) == made.logits(["x"])).all()


def description(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def apply(directory: Path) -> None:
        said = json.loads((directory / LINEAR).read_text())
        change(said)
        (directory / LINEAR).write_text(json.dumps(said))

    return apply


def tensors(change: Callable[[Tensors], Any]) -> Callable[[Path], None]:
    def apply(directory: Path) -> None:
        found = load_file(directory / files.WEIGHTS)
        change(found)
        save_file(found, directory / files.WEIGHTS)

    return apply


def setting(name: str, value: Any) -> Callable[[Path], None]:
    return description(lambda said: said["vectorizer"].update({name: value}))


def spoiled(name: str, value: float) -> Callable[[Path], None]:
    def change(found: Tensors) -> None:
        found[name] = found[name].copy()
        found[name].flat[0] = value

    return tensors(change)


WRONG: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a term too many": (description(lambda s: s["terms"].append("more")), "does not fit"),
    "a term less": (description(lambda s: s["terms"].pop()), "larger than|does not fit"),
    "a term twice": (
        description(lambda s: s["terms"].__setitem__(0, s["terms"][1])),
        "a term twice",
    ),
    "a number for a term": (description(lambda s: s["terms"].__setitem__(0, 7)), r"wrong terms\.0"),
    "an empty term": (description(lambda s: s["terms"].__setitem__(0, "")), r"wrong terms\.0"),
    "a long term": (description(lambda s: s["terms"].__setitem__(0, "x" * 101)), r"terms\.0"),
    "an expression without end": (setting("token_pattern", "(a+)+$"), "wrong vectorizer.token"),
    "a function": (setting("analyzer", "char"), "wrong vectorizer.analyzer"),
    "another law": (setting("sublinear_tf", False), "wrong vectorizer.sublinear_tf"),
    "long terms": (setting("ngram_range", [1, 99]), "wrong vectorizer.ngram_range"),
    "a setting more": (setting("tokenizer", "os.system"), "wrong vectorizer.tokenizer"),
    "another format": (description(lambda s: s.update(format=2)), "wrong format"),
    "no JSON": (lambda d: (d / LINEAR).write_text("{"), "linear.json has a wrong"),
    "no description": (lambda d: (d / LINEAR).unlink(), "linear.json cannot be read"),
    "a pickle": (
        lambda d: (d / files.WEIGHTS).write_bytes(pickle.dumps({"coef": [1.0]})),
        "linear.safetensors cannot be read",
    ),
    "no weights": (lambda d: (d / files.WEIGHTS).unlink(), "safetensors cannot be read"),
    "a tensor less": (tensors(lambda t: t.pop("idf")), "does not fit"),
    "a tensor more": (tensors(lambda t: t.update(more=np.zeros(1))), "does not fit"),
    "a row more": (tensors(lambda t: t.update(intercept=np.zeros(2))), "does not fit"),
    "single precision": (
        tensors(lambda t: t.update(coef=t["coef"].astype(np.float32))),
        "coef .* is not float64",
    ),
    "no number": (spoiled("coef", float("nan")), "coef .* is not float64 with numbers"),
    "infinity": (spoiled("idf", float("inf")), "idf .* is not float64 with numbers"),
    "a huge number": (spoiled("intercept", 1e10), "intercept .* up to 1e"),
    "a huge file": (tensors(lambda t: t.update(more=np.zeros(100_000))), "larger than"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_refused(name: str, saved: Path) -> None:
    spoil, problem = WRONG[name]
    spoil(saved)
    with pytest.raises(ArtifactUnfit, match=problem):
        files.read(saved, 2)


def test_more_terms_than_a_model_may_have_are_refused(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "most_terms", lambda _: 3)
    with pytest.raises(ArtifactUnfit, match="more than 3 terms"):
        files.read(saved, 2)


def test_the_number_of_labels_is_that_of_the_manifest(saved: Path) -> None:
    with pytest.raises(ArtifactUnfit, match="does not fit the labels"):
        files.read(saved, 3)
