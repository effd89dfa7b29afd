"""An imported model must load, be consistent and match its golden predictions."""

import json
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_core import manifest
from lora_core.data.label_readers import MAX_LABEL_CHARACTERS, MAX_LABELS
from lora_core.errors import LoraCoreError
from lora_core.errors.artifact import (
    ArtifactCorrupt,
    GoldenPredictionsMismatch,
    InvalidImportedModel,
    SafetensorsHeaderTooLarge,
    UnsupportedTokenizer,
)
from lora_core.errors.base_model import (
    SpecialTokensNotAdded,
    UnreadableBase,
    UnsupportedEncoder,
)
from lora_core.model_imports import tokenizer
from lora_core.model_imports.check import check_imported_model
from lora_core.specs.method import HeadMode, LoraSpec, LoraVariant
from lora_core.specs.task import SeveralTargetsSpec
from tests.lora_artifact import make_lora_artifact
from tests.slow import slow_but
from tests.tiny_artifact import (
    make_artifact,
    make_multi_label_artifact,
    make_regression_artifact,
    make_several_targets_artifact,
)
from tests.tiny_base import FAMILIES

Json = dict[str, Any]


@pytest.fixture(autouse=True)
def _short_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try tokenizers, which are sound here, on texts that take less than a second."""
    monkeypatch.setattr(tokenizer, "_TEXT_CHARACTERS", 100)


def reseal_manifest(directory: Path, **facts: Any) -> Path:
    """The same directory under a manifest that fits what is in it now."""
    content = manifest.read(directory) | facts
    content.pop("files")
    (directory / "manifest.json").unlink()
    manifest.create_and_save(directory, content)
    return directory


def edit_json(path: Path, change: Callable[[Any], Any]) -> None:
    content = json.loads(path.read_text())
    changed = change(content)
    path.write_text(json.dumps(content if changed is None else changed))


# Each family that differs, and each mode of the head, once.
QUICK = {
    ("distilbert", HeadMode.LORA),
    ("roberta", HeadMode.FROZEN),
    ("modernbert", HeadMode.TRAIN),
}
FAMILIES_AND_HEADS = [
    pytest.param(*pair, marks=() if pair in QUICK else pytest.mark.slow)
    for pair in product(FAMILIES, HeadMode)
]


@pytest.mark.parametrize(("family", "head"), FAMILIES_AND_HEADS)
def test_own_model_is_accepted(family: str, head: HeadMode, tmp_path: Path) -> None:
    spec = LoraSpec(r=2, head=head, variant=LoraVariant.DORA)
    checked = check_imported_model(make_lora_artifact(tmp_path, spec, family=family))
    assert checked.facts.spec.method.type == "lora"
    assert checked.facts.metrics["labels"] == ["bad", "good"]
    assert checked.difference < 1e-5


@pytest.mark.parametrize(
    "make", [make_multi_label_artifact, make_regression_artifact, make_several_targets_artifact]
)
def test_model_of_another_task_is_accepted(make: Callable[[Path], Path], tmp_path: Path) -> None:
    check_imported_model(make(tmp_path / "made"))


def test_limits_of_labels_are_those_of_each_target(tmp_path: Path) -> None:
    def make(name: str, labels: int) -> Path:
        outputs = [f"{target}/{i}" for target in ("product", "topic") for i in range(labels)]
        return make_artifact(
            tmp_path / name,
            labels=(*outputs[:-1], f"topic/{'x' * MAX_LABEL_CHARACTERS}"),
            top_label=outputs[0],
            task=SeveralTargetsSpec.model_validate({"targets": "product,topic"}),
        )

    check_imported_model(make("many", 600))
    with pytest.raises(InvalidImportedModel, match="its task has an invalid labels"):
        check_imported_model(make("too many", MAX_LABELS + 1))


def test_model_without_adapter_is_accepted(tmp_path: Path) -> None:
    assert check_imported_model(make_artifact(tmp_path / "made")).directory == "made"


def test_settings_that_only_sound_like_code_are_accepted(tmp_path: Path) -> None:
    """The configs of base models have them, and training keeps them."""
    settings = {"_attn_implementation_autoset": True, "conv_kernel_size": 3}
    directory = make_artifact(tmp_path / "made")
    edit_json(directory / CONFIG, lambda c: c.update(settings))
    check_imported_model(reseal_manifest(directory))


def test_large_numbers_are_accepted(tmp_path: Path) -> None:
    """Such as time stamps in nanoseconds: training takes them."""
    directory = reseal_manifest(
        make_regression_artifact(tmp_path / "made"),
        metrics={"test": {"rmse": 3e15, "mae": 2e15}},
        calibration={"scale": [4e15], "offset": [1.7e18], "half_width": 6e15},
    )
    assert check_imported_model(directory).facts.metrics["test"]["rmse"] == 3e15


def tensors(name: str, change: Callable[[Json], Any]) -> Callable[[Path], object]:
    def apply(directory: Path) -> None:
        state = load_file(directory / name)
        change(state)
        save_file(state, directory / name, metadata={"format": "pt"})

    return apply


def text(name: str, change: Callable[[Any], Any]) -> Callable[[Path], object]:
    return lambda directory: edit_json(directory / name, change)


QUERY = "distilbert.transformer.layer.0.attention.q_lin"
CONFIG, GOLDEN, ADAPTER = "merged/config.json", "golden.json", "adapter.safetensors"
WEIGHTS = "merged/model.safetensors"
DAMAGES: dict[str, tuple[Callable[[Path], object], type[LoraCoreError]]] = {
    "other weights": (
        tensors(WEIGHTS, lambda t: t["classifier.bias"].add_(0.01)), GoldenPredictionsMismatch),
    "weights that are no numbers": (
        tensors(WEIGHTS, lambda t: t["classifier.bias"].fill_(torch.nan)), InvalidImportedModel),
    "a tensor is missing": (
        tensors(WEIGHTS, lambda t: t.pop("classifier.bias")), InvalidImportedModel),
    "a tensor too many": (
        tensors(WEIGHTS, lambda t: t.update(more=torch.zeros(1))), InvalidImportedModel),
    "no safetensors": (lambda d: (d / WEIGHTS).write_bytes(b"x" * 99), LoraCoreError),
    "a huge head": (
        lambda d: (d / WEIGHTS).write_bytes((2**40).to_bytes(8, "little")),
        SafetensorsHeaderTooLarge),
    "code of its own": (
        text(CONFIG, lambda c: c.update(auto_map={"A": "b.C"})), InvalidImportedModel),
    "a kernel": (text(CONFIG, lambda c: c.update(attn_implementation="a/b")), InvalidImportedModel),
    "quantized": (text(CONFIG, lambda c: c.update(quantization_config={})), InvalidImportedModel),
    "another encoder": (text(CONFIG, lambda c: c.update(model_type="t6")), UnsupportedEncoder),
    "a giant": (text(CONFIG, lambda c: c.update(dim=10**9)), LoraCoreError),
    "no config": (lambda d: (d / CONFIG).write_text("["), UnreadableBase),
    "one label": (text(CONFIG, lambda c: c.update(id2label={"0": "x"})), InvalidImportedModel),
    "the same label twice": (
        text(CONFIG, lambda c: c.update(id2label={"0": "x", "1": "x"})), InvalidImportedModel),
    "no tokenizer": (lambda d: (d / "merged/tokenizer.json").unlink(), UnsupportedTokenizer),
    "a larger vocabulary": (
        text("merged/tokenizer.json",
             lambda t: t["model"]["vocab"].update({f"x{i}": 900 + i for i in range(99)})),
        InvalidImportedModel),
    "a tokenizer without special tokens": (
        text("merged/tokenizer.json", lambda t: t.update(post_processor=None)),
        SpecialTokensNotAdded),
    "no kept answers": (text(GOLDEN, lambda _: []), InvalidImportedModel),
    "kept answers in no form": (text(GOLDEN, lambda _: {"a": 1}), InvalidImportedModel),
    "kept answers of three labels": (
        text(GOLDEN, lambda rows: [row["logits"].append(1.0) for row in rows] and rows),
        InvalidImportedModel),
    "no file of kept answers": (lambda d: (d / GOLDEN).unlink(), InvalidImportedModel),
    "an empty text": (text(GOLDEN, lambda rows: rows[0].update(text=" ")), LoraCoreError),
    "an adapter of another rank": (
        text("adapter.json", lambda a: a["method"].update(r=3)), InvalidImportedModel),
    "an adapter of another encoder": (
        text("adapter.json", lambda a: a.update(encoder="bert")), InvalidImportedModel),
    "an adapter in no form": (text("adapter.json", lambda _: []), InvalidImportedModel),
    "an adapter with a tensor less": (
        tensors(ADAPTER, lambda t: t.pop(f"{QUERY}.A")), InvalidImportedModel),
    "an adapter that is no number": (
        tensors(ADAPTER, lambda t: t[f"{QUERY}.A"].fill_(torch.inf)), InvalidImportedModel),
    "an adapter in float8": (
        tensors(ADAPTER, lambda t: t.update({n: t[n].to(torch.float8_e4m3fn) for n in t})),
        InvalidImportedModel),
    "a description without tensors": (lambda d: (d / ADAPTER).unlink(), InvalidImportedModel),
}  # fmt: skip


# Found as they are on a base, in the next test.
ALIKE = {
    "a tensor is missing",
    "a tensor too many",
    "an adapter with a tensor less",
    "an adapter that is no number",
}


@pytest.mark.parametrize("damage", slow_but(DAMAGES, *(DAMAGES.keys() - ALIKE)))
def test_a_damaged_or_hostile_model_is_refused(damage: str, tmp_path: Path) -> None:
    directory = make_lora_artifact(tmp_path, LoraSpec(r=2), in_format_1=True)
    apply, error = DAMAGES[damage]
    apply(directory)
    with pytest.raises(error):
        check_imported_model(reseal_manifest(directory))


def two_checkpoints(directory: Path) -> None:
    (directory / "merged").mkdir()
    for path in (directory / "base").iterdir():
        (directory / "merged" / path.name).write_bytes(path.read_bytes())


BASE_CONFIG, BASE_WEIGHTS = "base/config.json", "base/model.safetensors"
CLASSIFIER = "classifier.json"
BASE_DAMAGES: dict[str, tuple[Callable[[Path], object], type[LoraCoreError]]] = {
    "other weights": (
        tensors(BASE_WEIGHTS, lambda t: t["distilbert.transformer.layer.0.ffn.lin1.weight"].neg_()),
        GoldenPredictionsMismatch),
    "a tensor is missing": (
        tensors(BASE_WEIGHTS, lambda t: t.pop(f"{QUERY}.weight")), InvalidImportedModel),
    "a tensor too many": (
        tensors(BASE_WEIGHTS, lambda t: t.update(more=torch.zeros(1))), InvalidImportedModel),
    "a huge head": (
        lambda d: (d / BASE_WEIGHTS).write_bytes((2**40).to_bytes(8, "little")),
        SafetensorsHeaderTooLarge),
    "code of its own": (
        text(BASE_CONFIG, lambda c: c.update(auto_map={"A": "b.C"})), InvalidImportedModel),
    "quantized": (
        text(BASE_CONFIG, lambda c: c.update(quantization_config={})), InvalidImportedModel),
    "another encoder": (
        text(BASE_CONFIG, lambda c: c.update(model_type="t6")), UnsupportedEncoder),
    "a classifier that changes the encoder": (
        text(CLASSIFIER, lambda c: c.update(activation="relu")), ArtifactCorrupt),
    "a classifier with code": (
        text(CLASSIFIER, lambda c: c.update(auto_map={"A": "b.C"})), ArtifactCorrupt),
    "one label": (text(CLASSIFIER, lambda c: c.update(id2label={"0": "x"})), InvalidImportedModel),
    "three labels": (
        text(CLASSIFIER, lambda c: c["id2label"].update({"2": "x"})), InvalidImportedModel),
    "a dropout that is no number": (
        text(CLASSIFIER, lambda c: c.update(dropout="x")), InvalidImportedModel),
    "no classifier": (lambda d: (d / CLASSIFIER).unlink(), InvalidImportedModel),
    "a classifier in no form": (lambda d: (d / CLASSIFIER).write_text("[]"), InvalidImportedModel),
    "no head": (lambda d: (d / "head.safetensors").unlink(), InvalidImportedModel),
    "another head": (
        tensors("head.safetensors", lambda t: t["last.bias"].add_(1)), GoldenPredictionsMismatch),
    "no tokenizer": (lambda d: (d / "base/tokenizer.json").unlink(), UnsupportedTokenizer),
    "a larger vocabulary": (
        text("base/tokenizer.json",
             lambda t: t["model"]["vocab"].update({f"x{i}": 900 + i for i in range(99)})),
        InvalidImportedModel),
    "an adapter with a tensor less": (
        tensors(ADAPTER, lambda t: t.pop(f"{QUERY}.A")), InvalidImportedModel),
    "an adapter that is no number": (
        tensors(ADAPTER, lambda t: t[f"{QUERY}.A"].fill_(torch.inf)), LoraCoreError),
    "another file in the base": (
        lambda d: (d / "base" / "more.json").write_text("{}"), InvalidImportedModel),
    "a merged checkpoint as well": (two_checkpoints, InvalidImportedModel),
    "no base": (lambda d: shutil.rmtree(d / "base"), LoraCoreError),
}  # fmt: skip


@pytest.mark.parametrize("damage", list(BASE_DAMAGES))
def test_a_damaged_or_hostile_model_on_a_base_is_refused(damage: str, tmp_path: Path) -> None:
    directory = make_lora_artifact(tmp_path, LoraSpec(r=2))
    apply, error = BASE_DAMAGES[damage]
    apply(directory)
    with pytest.raises(error):
        check_imported_model(reseal_manifest(directory))


def test_file_missing_in_the_manifest_is_refused(tmp_path: Path) -> None:
    directory = make_artifact(tmp_path / "made")
    (directory / "more.json").touch()
    with pytest.raises(ArtifactCorrupt, match=r"more\.json"):
        check_imported_model(directory)


@pytest.mark.parametrize(
    "facts",
    [
        {"format": 3},
        {"format": 0},
        {"max_length": 65},
        {"max_length": "64"},
        {"spec": {"base": "x"}},
        {"spec": {"base": "", "method": {"type": "lora"}}},
        {"spec": {"base": "x", "method": {"type": "<b>"}}},
        {"metrics": {"validation": 3}},
        {"metrics": []},
        {"metrics": {"x": "y" * 4_000_000}},
    ],
)
def test_inconsistent_manifest_is_refused(facts: Json, tmp_path: Path) -> None:
    directory = make_artifact(tmp_path / "made")
    with pytest.raises(InvalidImportedModel):
        check_imported_model(reseal_manifest(directory, **facts))


def test_pairs_in_windows_are_refused(tmp_path: Path) -> None:
    """A long pair is never split, so it would exceed the positions of the encoder."""
    directory = make_lora_artifact(tmp_path, LoraSpec(r=2), pairs=True)
    spec = manifest.read(directory)["spec"]
    spec["data"]["long_texts"] = "windows"
    with pytest.raises(InvalidImportedModel, match="pairs of texts in windows"):
        check_imported_model(reseal_manifest(directory, spec=spec))


@pytest.mark.parametrize("value", ["NaN", "Infinity", r'"\u0000"', r'"\ud800"'])
def test_metrics_that_no_database_stores(value: str, tmp_path: Path) -> None:
    directory = make_artifact(tmp_path / "made")
    path = directory / "manifest.json"
    content = json.loads(path.read_text())
    content["metrics"] = {"labels": ["HERE", "good"]}
    path.write_text(json.dumps(content).replace('"HERE"', value))
    with pytest.raises(InvalidImportedModel, match="metrics"):
        check_imported_model(directory)
