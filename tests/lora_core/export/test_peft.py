"""Tests of exported adapters with `peft` and plain transformers."""

import json
import shutil
import warnings
from itertools import product
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from lora_core import encoders
from lora_core.artifact import load_merged_model
from lora_core.errors import LoraCoreError
from lora_core.errors.artifact import ArtifactCorrupt
from lora_core.errors.base_model import BaseNotFound, GatedBase
from lora_core.errors.export import BaseMismatch, NoAdapter, OutputExists
from lora_core.errors.training import HubUnavailable
from lora_core.export.hugging_face import export_adapter
from lora_core.inference.predictor import Predictor
from lora_core.specs.method import HeadMode, LayerRole, LoraSpec, LoraVariant
from tests.lora_artifact import make_lora_artifact
from tests.plain_checkpoint import plain_checkpoint
from tests.slow import slow_but
from tests.tiny_artifact import make_artifact
from tests.tiny_base import FAMILIES, make_base, whole_layers

TARGETS = [*((role,) for role in LayerRole), (LayerRole.QUERY, LayerRole.VALUE), tuple(LayerRole)]
TEXTS = ["a good film", "not a very good story and it was boring", "dull", "the plot of it"]


def logits(model: PreTrainedModel, tokenizer: Path) -> Tensor:
    """Compute logits with plain transformers."""
    batch = AutoTokenizer.from_pretrained(tokenizer)(TEXTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        out: Tensor = model.eval()(**batch).logits
    return out


def load_with_peft(out: Path) -> PreTrainedModel:
    """Load an adapter with PEFT, which warns of missing tensors."""
    base = AutoModelForSequenceClassification.from_pretrained(out / "base")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        wrapped = PeftModel.from_pretrained(base, out)
    assert not [each for each in caught if "missing" in str(each.message).lower()]
    return wrapped


def check_logits(artifact: Path, out: Path) -> None:
    expected = logits(load_merged_model(artifact), plain_checkpoint(artifact))
    torch.testing.assert_close(logits(load_with_peft(out), out), expected, rtol=1e-5, atol=1e-5)
    if json.loads((out / "adapter_config.json").read_text())["use_dora"]:
        return  # transformers 5.24 silently loads no magnitude, not even of PEFT's own adapters
    direct = AutoModelForSequenceClassification.from_pretrained(out)
    torch.testing.assert_close(logits(direct, out), expected, rtol=1e-5, atol=1e-5)
    assert direct.config.id2label == {0: "bad", 1: "good"}


# Fast: each role with one variant on one family, each variant with all roles on one that differs.
# Slow: all combinations.
CASES = [
    pytest.param(
        *(family, targets, variant),
        marks=()
        if (family == "bert" and variant is LoraVariant.LORA)
        or (family == "modernbert" and targets == tuple(LayerRole))
        else pytest.mark.slow,
        id="-".join((family, *targets, variant)),
    )
    for family, targets, variant in product(FAMILIES, TARGETS, LoraVariant)
]


@pytest.mark.parametrize(("family", "targets", "variant"), CASES)
def test_variants_and_targets_give_the_same_logits(
    family: str, targets: tuple[LayerRole, ...], variant: LoraVariant, tmp_path: Path
) -> None:
    targets = whole_layers(family, *targets)
    spec = LoraSpec(variant=variant, r=3, alpha=1.5, targets=targets)
    artifact = make_lora_artifact(tmp_path, spec, family=family)
    export_adapter(artifact, tmp_path / "peft")
    check_logits(artifact, tmp_path / "peft")
    adapters = [name for name in load_file(tmp_path / "peft/adapter_model.safetensors")
                if name.endswith("lora_A.weight")]  # fmt: skip
    paths = {path for role in targets for path in encoders.FAMILIES[family].roles[role]}
    assert len(adapters) == 2 * len(paths)


@pytest.mark.parametrize("head", list(HeadMode))
@pytest.mark.parametrize(
    "variant",
    [pytest.param(v, marks=() if v is LoraVariant.LORA else pytest.mark.slow) for v in LoraVariant],
)
@pytest.mark.parametrize("family", slow_but(FAMILIES, "bert"))
def test_head_modes_give_the_same_logits(
    family: str, variant: LoraVariant, head: HeadMode, tmp_path: Path
) -> None:
    targets = whole_layers(family, LayerRole.QUERY)
    spec = LoraSpec(variant=variant, r=3, alpha=2, targets=targets, layers=(1,), head=head)
    artifact = make_lora_artifact(tmp_path, spec, family=family)
    export_adapter(artifact, tmp_path / "peft")
    check_logits(artifact, tmp_path / "peft")


def test_exported_files(tmp_path: Path) -> None:
    spec = LoraSpec(variant=LoraVariant.UNSCALED, r=4, alpha=0.75, targets=(LayerRole.MLP,))
    artifact = make_lora_artifact(tmp_path, spec, family="bert")
    out = tmp_path / "peft"
    export_adapter(artifact, out)
    config = json.loads((out / "adapter_config.json").read_text())
    assert config["lora_alpha"] == 3
    assert config["base_model_name_or_path"] == str(out / "base")
    assert config["modules_to_save"] == ["pooler", "classifier"]
    assert json.loads((out / "id2label.json").read_text()) == {"0": "bad", "1": "good"}
    tensors = load_file(out / "adapter_model.safetensors")
    first = "base_model.model.bert.encoder.layer.0.output.dense"
    assert tensors[f"{first}.lora_A.weight"].shape == (4, 64)
    assert tensors[f"{first}.lora_B.weight"].shape == (32, 4)
    assert "base_model.model.bert.pooler.dense.bias" in tensors
    assert not [name for name in tensors if "attention" in name or "modules_to_save" in name]


def test_base_in_the_artifact_is_enough(tmp_path: Path) -> None:
    artifact = make_lora_artifact(tmp_path, LoraSpec(r=2))
    shutil.rmtree(tmp_path / "base")
    export_adapter(artifact, tmp_path / "peft")
    check_logits(artifact, tmp_path / "peft")


@pytest.fixture
def hub_base(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder that `org/tiny` is downloaded to."""
    snapshot = tmp_path / ("a" * 40)
    monkeypatch.setattr("lora_core.encoders.load._download", lambda *_: snapshot)
    return snapshot


@pytest.mark.parametrize(
    ("family", "setting"),
    [
        ("modernbert", {"classifier_pooling": "mean"}),
        pytest.param("big_bird", {"attention_type": "block_sparse"}, marks=pytest.mark.slow),
    ],
)
def test_base_of_the_hub_whose_config_says_otherwise_is_written(
    family: str, setting: dict[str, str], tmp_path: Path, hub_base: Path
) -> None:
    """Other programs would compute as that config says."""
    make_base(hub_base, family)
    spec = LoraSpec(r=2, targets=(LayerRole.PROJECTION,))
    artifact = make_lora_artifact(tmp_path, spec, family=family, base=Path("org/tiny"))
    export_adapter(artifact, tmp_path / "referenced")
    assert not (tmp_path / "referenced" / "base").exists()
    config = json.loads((hub_base / "config.json").read_text())
    (hub_base / "config.json").write_text(json.dumps(config | setting))
    export_adapter(artifact, tmp_path / "peft")
    check_logits(artifact, tmp_path / "peft")


@pytest.mark.parametrize(
    "failure",
    [
        BaseNotFound(base="org/tiny", reason="it was deleted"),
        GatedBase(base="org/tiny", problem="no token is set", page="x"),
        HubUnavailable(what="org/tiny", trouble="it cannot be reached"),
    ],
    ids=lambda failure: failure.code,
)
def test_base_in_the_artifact_replaces_one_that_the_hub_does_not_give(
    failure: LoraCoreError, tmp_path: Path, hub_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_base(hub_base)
    artifact = make_lora_artifact(tmp_path, LoraSpec(r=2), base=Path("org/tiny"))
    monkeypatch.setattr("lora_core.encoders.load._download", Mock(side_effect=failure))
    export_adapter(artifact, tmp_path / "peft")
    check_logits(artifact, tmp_path / "peft")


def test_imported_adapter_on_a_mean_of_the_states_is_exported(
    tmp_path: Path, hub_base: Path
) -> None:
    """Its base says so with the field of transformers alone, as an import leaves it."""
    make_base(hub_base, "modernbert", classifier_pooling="mean")
    spec = LoraSpec(r=2, targets=(LayerRole.PROJECTION,))
    artifact = make_lora_artifact(tmp_path, spec, family="modernbert", base=Path("org/tiny"))
    export_adapter(artifact, tmp_path / "peft")
    assert not (tmp_path / "peft" / "base").exists()


def test_moved_base_in_format_1(tmp_path: Path) -> None:
    artifact = make_lora_artifact(tmp_path, LoraSpec(r=2), in_format_1=True)
    (tmp_path / "base").rename(tmp_path / "moved")
    with pytest.raises(BaseNotFound):
        export_adapter(artifact, tmp_path / "peft")
    assert not (tmp_path / "peft").exists()
    export_adapter(artifact, tmp_path / "peft", base=str(tmp_path / "moved"))
    check_logits(artifact, tmp_path / "peft")


def test_different_base_is_rejected(tmp_path: Path) -> None:
    artifact = make_lora_artifact(tmp_path, LoraSpec(r=2))
    other = make_base(tmp_path / "other", seed=1)
    with pytest.raises(BaseMismatch, match="--base"):
        export_adapter(artifact, tmp_path / "peft", base=str(other))
    assert not (tmp_path / "peft").exists()
    assert list(tmp_path.glob(".making-*")) == []


def test_directory_with_content_is_not_changed(tmp_path: Path) -> None:
    artifact = make_lora_artifact(tmp_path, LoraSpec(r=2))
    (tmp_path / "peft").mkdir()
    (tmp_path / "peft" / "mine").touch()
    with pytest.raises(OutputExists):
        export_adapter(artifact, tmp_path / "peft")
    assert [path.name for path in (tmp_path / "peft").iterdir()] == ["mine"]


def test_model_without_adapter_or_corrupt_model_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(NoAdapter, match="transformers"):
        export_adapter(make_artifact(tmp_path / "full"), tmp_path / "peft")
    artifact = make_lora_artifact(tmp_path, LoraSpec(r=2))
    (artifact / "golden.json").write_text("[]")
    with pytest.raises(ArtifactCorrupt):
        export_adapter(artifact, tmp_path / "peft")


def test_moved_export_gives_the_same_logits(tmp_path: Path) -> None:
    artifact = make_lora_artifact(tmp_path, LoraSpec(r=2))
    export_adapter(artifact, tmp_path / "peft")
    moved = Path(shutil.move(tmp_path / "peft", tmp_path / "elsewhere"))
    expected = Predictor.load(artifact)
    torch.testing.assert_close(
        logits(load_with_peft(moved), moved),
        expected.forward(expected.encode(TEXTS)),
        rtol=1e-5,
        atol=1e-5,
    )
