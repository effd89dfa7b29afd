"""An imported linear model must be consistent and match its golden predictions."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch_file

from lora_core.data.label_readers import MAX_LABEL_CHARACTERS, MAX_LABELS
from lora_core.errors import LoraCoreError
from lora_core.errors.artifact import GoldenPredictionsMismatch, InvalidImportedModel
from lora_core.errors.export import NoEncoder
from lora_core.export.hugging_face import export_adapter, export_merged
from lora_core.model_imports import metadata
from lora_core.model_imports.check import check_imported_model
from lora_core.tasks.single_label_metrics import classification_report
from tests.hostile_archives import reseal
from tests.linear_artifact import make_linear_artifact


@pytest.fixture
def artifact_dir(tmp_path: Path) -> Path:
    return make_linear_artifact(tmp_path / "made", labels=("bad", "fine", "good"))


def test_own_linear_model_is_accepted(artifact_dir: Path) -> None:
    checked = check_imported_model(artifact_dir)
    assert checked.difference < 1e-6
    assert (checked.facts.spec.method.type, checked.facts.spec.base) == ("linear", None)
    assert checked.facts.labels == ["bad", "fine", "good"]
    assert checked.facts.metrics["terms"] > 0


@pytest.mark.slow  # writes and reads three million numbers
def test_metrics_of_the_most_labels_are_accepted(
    artifact_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On validation, test, and with `result.train_metrics` train."""
    names = [f"label {i} ".ljust(MAX_LABEL_CHARACTERS, "x") for i in range(MAX_LABELS)]
    rng = np.random.default_rng(0)
    logits = rng.random((3000, MAX_LABELS))
    report = classification_report(logits, rng.integers(MAX_LABELS, size=3000), names)
    metrics = dict.fromkeys(("train", "validation", "test"), report)
    reseal(artifact_dir, metrics={"labels": names, "verdict": {"never": names}, **metrics})
    metrics = metadata.validate_model_metadata(artifact_dir).metrics
    assert metrics["test"]["confusion_matrix"] == report["confusion_matrix"]
    monkeypatch.setattr(metadata, "MAX_MANIFEST_FILE_BYTES", 2_000_000)
    with pytest.raises(InvalidImportedModel, match="larger than 2,000,000 bytes"):
        metadata.validate_model_metadata(artifact_dir)


def test_only_integers_do_not_count_in_the_size_of_a_manifest(artifact_dir: Path) -> None:
    reseal(artifact_dir, results=[0.123456789012345] * 240_000)
    with pytest.raises(InvalidImportedModel, match="not counting lists of integers"):
        metadata.check_manifest_size(artifact_dir)


@pytest.mark.parametrize("content", ["1" * 4_000_000, "1," * 2_000_000, "1, " * 1_000_000 + "x"])
def test_size_of_a_manifest_is_measured_quickly(artifact_dir: Path, content: str) -> None:
    (artifact_dir / "manifest.json").write_text("[]" * 2_100_000 + content)
    began = time.process_time()
    with pytest.raises(InvalidImportedModel, match="not counting lists of integers"):
        metadata.check_manifest_size(artifact_dir)
    assert time.process_time() - began < 10  # tenths of a second


def edit_json(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def apply(directory: Path) -> None:
        content = json.loads((directory / name).read_text())
        changed = change(content)
        (directory / name).write_text(json.dumps(content if changed is None else changed))
        reseal(directory)

    return apply


def then_reseal(change: Callable[[Path], object]) -> Callable[[Path], None]:
    def apply(directory: Path) -> None:
        change(directory)
        reseal(directory)

    return apply


def change_weights(directory: Path) -> None:
    """Other weights give other predictions."""
    tensors = load_file(directory / "linear.safetensors")
    tensors["intercept"] = tensors["intercept"] + np.array([0.5, 0.0, 0.0])
    save_file(tensors, directory / "linear.safetensors")


def bfloat16_weights(directory: Path) -> None:
    """numpy has no such type."""
    save_torch_file(
        {"coef": torch.zeros(3, 4, dtype=torch.bfloat16)}, directory / "linear.safetensors"
    )


def two_models(directory: Path) -> None:
    (directory / "merged").mkdir()
    (directory / "merged" / "config.json").write_text("{}")


def make_base_file(base: Path) -> None:
    base.mkdir()
    (base / "vocabulary").write_text("good")


WRONG: dict[str, tuple[Callable[[Path], None], type[LoraCoreError], str]] = {
    "other weights": (then_reseal(change_weights), GoldenPredictionsMismatch, "differ by"),
    "an expression": (
        edit_json("linear.json", lambda s: s["vectorizer"].update(token_pattern="(a|a)*$")),
        InvalidImportedModel,
        "token_pattern",
    ),
    "terms exchanged": (
        edit_json("linear.json", lambda s: s["terms"].reverse()),
        GoldenPredictionsMismatch,
        "differ by",
    ),
    "bfloat16": (then_reseal(bfloat16_weights), InvalidImportedModel, "cannot be read"),
    "no labels": (lambda d: reseal(d, labels=None), InvalidImportedModel, "no labels"),
    "a label twice": (
        lambda d: reseal(d, labels=["bad", "good", "good"]),
        InvalidImportedModel,
        "or duplicate ones",
    ),
    "a label less": (
        lambda d: reseal(d, labels=["bad", "good"]),
        InvalidImportedModel,
        "golden.json",
    ),
    "two models": (then_reseal(two_models), InvalidImportedModel, r"but has merged/config\.json"),
    "a base": (
        then_reseal(lambda d: make_base_file(d / "base")),
        InvalidImportedModel,
        "but has base/vocabulary",
    ),
    "no kept answers": (
        edit_json("golden.json", lambda _: []),
        InvalidImportedModel,
        "golden.json",
    ),
    "a prompt format": (
        edit_json(
            "manifest.json", lambda m: m["spec"]["data"].update(prompt_format={"prefix": "\0"})
        ),
        InvalidImportedModel,
        "spec.data.prompt_format.prefix",
    ),
    "a cold temperature": (
        lambda d: reseal(d, calibration={"temperature": 0}),
        InvalidImportedModel,
        "calibration.temperature",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_invalid_model_is_refused(name: str, artifact_dir: Path) -> None:
    spoil, error, problem = WRONG[name]
    spoil(artifact_dir)
    with pytest.raises(error, match=problem):
        check_imported_model(artifact_dir)


def test_encoder_requires_max_length_and_base(artifact_dir: Path) -> None:
    (artifact_dir / "linear.json").unlink()
    reseal(artifact_dir)
    with pytest.raises(InvalidImportedModel, match="no max_length, or no base"):
        metadata.validate_model_metadata(artifact_dir)


@pytest.mark.parametrize(("export", "program"), [(export_merged, "transformers"),
                                                 (export_adapter, "PEFT")])  # fmt: skip
def test_linear_model_cannot_be_exported_as_an_encoder(
    export: Callable[[Path, Path], None], program: str, artifact_dir: Path, tmp_path: Path
) -> None:
    with pytest.raises(NoEncoder, match=f"cannot be exported to {program}") as refused:
        export(artifact_dir, tmp_path / "out")
    assert refused.value.code == "no_encoder"
    assert not (tmp_path / "out").exists()
