"""Our adapters in the hands of the real `peft` and of plain transformers."""

import json
import shutil
import warnings
from itertools import product
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from lora_core import manifest
from lora_core.artifact import load_merged
from lora_core.errors.artifact import ArtifactCorrupt
from lora_core.errors.base import BaseNotFound
from lora_core.errors.export import BaseDiffers, NoAdapter, OutExists
from lora_core.export.peft import export
from lora_core.inference.predictor import Predictor
from lora_core.specs.method import Head, LoraSpec, Role, Variant
from tests.lora_artifact import make_lora_artifact
from tests.tiny_artifact import make_artifact
from tests.tiny_base import FAMILIES, make_base

TARGETS = [*((role,) for role in Role), (Role.QUERY, Role.VALUE), tuple(Role)]
TEXTS = ["a good film", "not a very good story and it was boring", "dull", "the plot of it"]


def logits(model: PreTrainedModel, tokenizer: Path) -> Tensor:
    """As somebody would compute them who knows nothing of loraworks."""
    batch = AutoTokenizer.from_pretrained(tokenizer)(TEXTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        out: Tensor = model.eval()(**batch).logits
    return out


def in_peft(out: Path) -> PreTrainedModel:
    """Loaded by PEFT, which warns of what is missing."""
    base = AutoModelForSequenceClassification.from_pretrained(out / "base")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        wrapped = PeftModel.from_pretrained(base, out)
    assert not [each for each in said if "missing" in str(each.message).lower()]
    return wrapped


def check(artifact: Path, out: Path) -> None:
    expected = logits(load_merged(artifact), artifact / manifest.MERGED)
    torch.testing.assert_close(logits(in_peft(out), out), expected, rtol=1e-5, atol=1e-5)
    if json.loads((out / "adapter_config.json").read_text())["use_dora"]:
        return  # transformers 5.24 says nothing and loads no magnitude, also of PEFT's own adapters
    direct = AutoModelForSequenceClassification.from_pretrained(out)
    torch.testing.assert_close(logits(direct, out), expected, rtol=1e-5, atol=1e-5)
    assert direct.config.id2label == {0: "bad", 1: "good"}


# Each role with one variant and each variant on all roles; all with all at length.
CASES = [
    pytest.param(
        *(family, targets, variant),
        marks=() if variant is Variant.LORA or targets == tuple(Role) else pytest.mark.slow,
        id="-".join((family, *targets, variant)),
    )
    for family, targets, variant in product(FAMILIES, TARGETS, Variant)
]


@pytest.mark.parametrize(("family", "targets", "variant"), CASES)
def test_every_variant_on_every_target_gives_the_same_logits(
    family: str, targets: tuple[Role, ...], variant: Variant, tmp_path: Path
) -> None:
    spec = LoraSpec(variant=variant, r=3, alpha=1.5, targets=targets)
    artifact = make_lora_artifact(tmp_path, spec, family=family)
    export(artifact, tmp_path / "peft")
    check(artifact, tmp_path / "peft")
    adapters = [name for name in load_file(tmp_path / "peft/adapter_model.safetensors")
                if name.endswith("lora_A.weight")]  # fmt: skip
    assert len(adapters) == 2 * sum(2 if role is Role.MLP else 1 for role in targets)


@pytest.mark.parametrize("head", list(Head))
@pytest.mark.parametrize(
    "variant",
    [pytest.param(v, marks=() if v is Variant.LORA else pytest.mark.slow) for v in Variant],
)
@pytest.mark.parametrize("family", list(FAMILIES))
def test_whatever_happened_to_the_head(
    family: str, variant: Variant, head: Head, tmp_path: Path
) -> None:
    spec = LoraSpec(variant=variant, r=3, alpha=2, targets=(Role.QUERY,), layers=(1,), head=head)
    artifact = make_lora_artifact(tmp_path, spec, family=family)
    export(artifact, tmp_path / "peft")
    check(artifact, tmp_path / "peft")


def test_the_folder_holds_what_others_expect(tmp_path: Path) -> None:
    spec = LoraSpec(variant=Variant.UNSCALED, r=4, alpha=0.75, targets=(Role.MLP,))
    artifact = make_lora_artifact(tmp_path, spec, family="bert")
    out = tmp_path / "peft"
    export(artifact, out)
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


def test_the_base_may_have_moved(tmp_path: Path) -> None:
    artifact = make_lora_artifact(tmp_path, LoraSpec(r=2))
    (tmp_path / "base").rename(tmp_path / "moved")
    with pytest.raises(BaseNotFound):
        export(artifact, tmp_path / "peft")
    assert not (tmp_path / "peft").exists()
    export(artifact, tmp_path / "peft", base=str(tmp_path / "moved"))
    check(artifact, tmp_path / "peft")


def test_another_base_is_refused(tmp_path: Path) -> None:
    artifact = make_lora_artifact(tmp_path, LoraSpec(r=2))
    other = make_base(tmp_path / "other", seed=1)
    with pytest.raises(BaseDiffers, match="--base"):
        export(artifact, tmp_path / "peft", base=str(other))
    assert not (tmp_path / "peft").exists()
    assert list(tmp_path.glob(".making-*")) == []


def test_a_folder_with_something_in_it_stays_as_it_is(tmp_path: Path) -> None:
    artifact = make_lora_artifact(tmp_path, LoraSpec(r=2))
    (tmp_path / "peft").mkdir()
    (tmp_path / "peft" / "mine").touch()
    with pytest.raises(OutExists):
        export(artifact, tmp_path / "peft")
    assert [path.name for path in (tmp_path / "peft").iterdir()] == ["mine"]


def test_a_model_without_an_adapter_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoAdapter, match="transformers"):
        export(make_artifact(tmp_path / "full"), tmp_path / "peft")
    artifact = make_lora_artifact(tmp_path, LoraSpec(r=2))
    (artifact / "golden.json").write_text("[]")
    with pytest.raises(ArtifactCorrupt):
        export(artifact, tmp_path / "peft")


def test_the_export_of_a_moved_folder_still_answers(tmp_path: Path) -> None:
    artifact = make_lora_artifact(tmp_path, LoraSpec(r=2))
    export(artifact, tmp_path / "peft")
    moved = Path(shutil.move(tmp_path / "peft", tmp_path / "elsewhere"))
    expected = Predictor.load(artifact)
    torch.testing.assert_close(
        logits(in_peft(moved), moved),
        expected.forward(expected.encode(TEXTS)),
        rtol=1e-5,
        atol=1e-5,
    )
