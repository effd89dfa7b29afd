"""Files of a linear model round-trip exactly, and nothing else is read."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from lora_core.errors.artifact import InvalidImportedModel
from lora_core.linear import files
from lora_core.linear.model import LinearModel, fit_single_label
from lora_core.manifest import LINEAR_FILE
from lora_core.specs.method import LinearSpec

TEXTS = ["a good film", "a bad film", "größe und 电影", "good good plot", "bad bad plot"] * 4
Tensors = dict[str, NDArray[Any]]


@pytest.fixture
def made() -> LinearModel:
    return fit_single_label(TEXTS, np.arange(20) % 2, LinearSpec(ngram_range=(1, 3)), classes=2)


@pytest.fixture
def saved(made: LinearModel, tmp_path: Path) -> Path:
    files.save_parameters(tmp_path, made.parameters)
    return tmp_path


def test_saved_model_round_trips_bit_for_bit(made: LinearModel, saved: Path) -> None:
    again = LinearModel(files.read_parameters(saved, rows=1))
    test_texts = [*TEXTS, "unseen", "", "GRÖSSE"]
    assert (again.logits(test_texts) == made.logits(test_texts)).all()
    assert again.parameters.vectorizer == made.parameters.vectorizer
    assert {path.name for path in saved.iterdir()} == set(files.MODEL_FILES)


def test_model_without_terms_round_trips(tmp_path: Path) -> None:
    made = fit_single_label(["one", "two"], np.array([0, 1]), LinearSpec(min_df=2), classes=3)
    files.save_parameters(tmp_path, made.parameters)
    assert (
        LinearModel(files.read_parameters(tmp_path, rows=3)).logits(["x"]) == made.logits(["x"])
    ).all()


def description(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def apply(directory: Path) -> None:
        content = json.loads((directory / LINEAR_FILE).read_text())
        change(content)
        (directory / LINEAR_FILE).write_text(json.dumps(content))

    return apply


def tensors(change: Callable[[Tensors], Any]) -> Callable[[Path], None]:
    def apply(directory: Path) -> None:
        found = load_file(directory / files.WEIGHTS_FILE)
        change(found)
        save_file(found, directory / files.WEIGHTS_FILE)

    return apply


def setting(name: str, value: Any) -> Callable[[Path], None]:
    return description(lambda content: content["vectorizer"].update({name: value}))


def with_value(name: str, value: float) -> Callable[[Path], None]:
    def change(found: Tensors) -> None:
        found[name] = found[name].copy()
        found[name].flat[0] = value

    return tensors(change)


WRONG: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a term too many": (description(lambda s: s["terms"].append("more")), "does not fit"),
    "a term less": (description(lambda s: s["terms"].pop()), "larger than|does not fit"),
    "a term twice": (
        description(lambda s: s["terms"].__setitem__(0, s["terms"][1])),
        "a duplicate term",
    ),
    "a number for a term": (
        description(lambda s: s["terms"].__setitem__(0, 7)),
        r"invalid terms\.0",
    ),
    "an empty term": (description(lambda s: s["terms"].__setitem__(0, "")), r"invalid terms\.0"),
    "a long term": (description(lambda s: s["terms"].__setitem__(0, "x" * 101)), r"terms\.0"),
    "an expression without end": (setting("token_pattern", "(a+)+$"), "invalid vectorizer.token"),
    "a function": (setting("analyzer", "char"), "invalid vectorizer.analyzer"),
    "another law": (setting("sublinear_tf", False), "invalid vectorizer.sublinear_tf"),
    "long terms": (setting("ngram_range", [1, 99]), "invalid vectorizer.ngram_range"),
    "a setting more": (setting("tokenizer", "os.system"), "invalid vectorizer.tokenizer"),
    "another format": (description(lambda s: s.update(format=2)), "invalid format"),
    "no JSON": (lambda d: (d / LINEAR_FILE).write_text("{"), "linear.json has an invalid"),
    "no description": (lambda d: (d / LINEAR_FILE).unlink(), "linear.json cannot be read"),
    "a pickle": (
        lambda d: (d / files.WEIGHTS_FILE).write_bytes(pickle.dumps({"coef": [1.0]})),
        "linear.safetensors cannot be read",
    ),
    "no weights": (lambda d: (d / files.WEIGHTS_FILE).unlink(), "safetensors cannot be read"),
    "a tensor less": (tensors(lambda t: t.pop("idf")), "does not fit"),
    "a tensor more": (tensors(lambda t: t.update(more=np.zeros(1))), "does not fit"),
    "a row more": (tensors(lambda t: t.update(intercept=np.zeros(2))), "does not fit"),
    "single precision": (
        tensors(lambda t: t.update(coef=t["coef"].astype(np.float32))),
        "coef .* is not float64",
    ),
    "no number": (with_value("coef", float("nan")), "coef .* is not float64 with numbers"),
    "infinity": (with_value("idf", float("inf")), "idf .* is not float64 with numbers"),
    "a huge number": (with_value("intercept", 1e10), "intercept .* up to 1e"),
    "a huge file": (tensors(lambda t: t.update(more=np.zeros(100_000))), "larger than"),
}


@pytest.mark.parametrize("name", WRONG)
def test_invalid_model_is_refused(name: str, saved: Path) -> None:
    spoil, problem = WRONG[name]
    spoil(saved)
    with pytest.raises(InvalidImportedModel, match=problem):
        files.read_parameters(saved, rows=1)


def test_too_many_terms_are_refused(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "max_terms_for_weight_rows", lambda _, **__: 3)
    with pytest.raises(InvalidImportedModel, match="more than 3 terms"):
        files.read_parameters(saved, rows=1)


def test_label_count_must_match_manifest(saved: Path) -> None:
    with pytest.raises(InvalidImportedModel, match="does not fit the labels"):
        files.read_parameters(saved, rows=3)
