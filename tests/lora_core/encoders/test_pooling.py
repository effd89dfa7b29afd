"""The mean pooling block, compared with the mean itself and with transformers."""

import copy
import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from lora_core import compatibility, fine_tuning_methods
from lora_core.encoders import FAMILIES
from lora_core.encoders.encoder_parts import blocks
from lora_core.encoders.load import resolve_base
from lora_core.encoders.pooling import set_pooling
from lora_core.errors.spec import LayerOutOfRange, MeanPoolingBuiltIn
from lora_core.fast import first_token
from lora_core.specs.method import (
    EncoderMethod,
    FullFineTuningSpec,
    LastLayersBaselineSpec,
    LoraSpec,
    ProbeSpec,
)
from lora_core.specs.pooling import POOLING_FILE, Pooling
from tests import tiny_base

BY_CONFIG = [name for name in tiny_base.FAMILIES if FAMILIES[name].pooling_key is not None]
# those in which the mean is an additional block
every_family = pytest.mark.parametrize(
    "family", [f for f in tiny_base.FAMILIES if f not in BY_CONFIG]
)
IDS = torch.tensor([[2, 7, 9, 30, 3], [2, 8, 3, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


def pooled_model(family: str, **changes: float) -> PreTrainedModel:
    torch.manual_seed(0)
    model = tiny_base.FAMILIES[family](labels=3, **changes)
    set_pooling(model, FAMILIES[family], Pooling.MEAN)
    return model


@torch.no_grad()
def first_states(model: PreTrainedModel) -> torch.Tensor:
    states: torch.Tensor = model.base_model(IDS, attention_mask=MASK).last_hidden_state
    return states[:, 0]


@every_family
def test_first_token_is_the_normalized_mean(family: str) -> None:
    torch.manual_seed(0)
    plain = tiny_base.FAMILIES[family](labels=3)
    with torch.no_grad():
        states = plain.base_model(IDS, attention_mask=MASK).last_hidden_state
    mean = (states * MASK[..., None]).sum(dim=1) / MASK.sum(dim=1, keepdim=True)
    found = first_states(pooled_model(family))
    assert (F.cosine_similarity(found, F.layer_norm(mean, mean.shape[-1:])) > 0.9999).all()
    alone = pooled_model(family).base_model(IDS[1:, :3]).last_hidden_state[0, 0]
    torch.testing.assert_close(found[1], alone, rtol=1e-4, atol=1e-5)


@every_family
@pytest.mark.parametrize("mask", [MASK, None], ids=["padded", "full"])
def test_first_token_shortcut_matches_the_block(family: str, mask: torch.Tensor | None) -> None:
    full = pooled_model(family)
    short = copy.deepcopy(full)
    first_token.patch_last_block(short, FAMILIES[family])
    for model in (full, short):
        model.zero_grad()
        model(IDS, attention_mask=mask).logits.square().sum().backward()
    torch.testing.assert_close(
        short(IDS, attention_mask=mask).logits, full(IDS, attention_mask=mask).logits
    )
    below = [dict(blocks(model, FAMILIES[family])[0].named_parameters()) for model in (full, short)]
    for name, parameter in below[0].items():
        torch.testing.assert_close(below[1][name].grad, parameter.grad, rtol=1e-3, atol=1e-5)


@every_family
def test_transformers_loads_the_pooled_model(family: str, tmp_path: Path) -> None:
    model = pooled_model(family)
    model.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        found, kept = (m(IDS, attention_mask=MASK).logits for m in (again, model))
    torch.testing.assert_close(found, kept, rtol=0, atol=0)
    set_pooling(again, FAMILIES[family], Pooling.MEAN)  # has it already
    assert len(blocks(again, FAMILIES[family])) == 3
    shape = compatibility.read_encoder_shape(
        json.loads((tmp_path / "config.json").read_text()), base="b"
    )
    assert (shape.layers, shape.pooling) == (2, Pooling.MEAN)
    with pytest.raises(MeanPoolingBuiltIn):
        compatibility.read_encoder_shape(again.config.to_dict(), base="b", pooling=Pooling.CLS)


@every_family
@pytest.mark.parametrize(
    "method",
    [ProbeSpec(), LastLayersBaselineSpec(blocks=1), LoraSpec(r=2), FullFineTuningSpec()],
    ids=lambda method: method.type,
)
def test_pooling_block_is_frozen_and_counted(family: str, method: EncoderMethod) -> None:
    model = pooled_model(family)
    shape = compatibility.read_encoder_shape(model.config.to_dict(), base="b")
    built = fine_tuning_methods.build_method(method)
    built.prepare(model, FAMILIES[family])
    assert not any(p.requires_grad for p in blocks(model, FAMILIES[family])[-1].parameters())
    assert built.count_parameters(model) == compatibility.count_parameters(
        shape, method, n_labels=3
    )


@every_family
def test_pooling_block_has_no_dropout(family: str) -> None:
    names = FAMILIES[family].dropouts
    model = pooled_model(family, **dict.fromkeys(names, 0.5)).train()
    block = blocks(model, FAMILIES[family])[-1]
    x = torch.randn(2, 5, 32)
    outs = [block(x, None) for _ in range(2)]
    torch.testing.assert_close(*(out[0] if isinstance(out, tuple) else out for out in outs))


@pytest.mark.parametrize("family", BY_CONFIG)
def test_pooling_of_the_config_is_used(family: str) -> None:
    mean = pooled_model(family)
    torch.manual_seed(0)
    first = tiny_base.FAMILIES[family](labels=3)
    assert len(blocks(mean, FAMILIES[family])) == len(blocks(first, FAMILIES[family]))
    for pooling, model in ((Pooling.MEAN, mean), (Pooling.CLS, first)):
        config = model.config.to_dict()
        assert compatibility.read_encoder_shape(config, base="b").pooling is pooling
        for other in (Pooling.CLS, Pooling.MEAN):  # a later run may select another one
            shape = compatibility.read_encoder_shape(config, base="b", pooling=other)
            assert shape.pooling is other
    assert not torch.allclose(mean(IDS).logits, first(IDS).logits, atol=1e-3)
    set_pooling(mean, FAMILIES[family], Pooling.CLS)
    torch.testing.assert_close(mean(IDS).logits, first(IDS).logits, rtol=0, atol=0)


def test_layer_numbers_exclude_the_pooling_block() -> None:
    model = pooled_model("distilbert")
    with pytest.raises(LayerOutOfRange):
        fine_tuning_methods.build_method(LoraSpec(r=2, layers=(2,))).prepare(
            model, FAMILIES["distilbert"]
        )


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, Pooling.MEAN),
        ({"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}, Pooling.CLS),
        ({"pooling_mode": "mean"}, Pooling.MEAN),
        ({"pooling_mode_max_tokens": True}, Pooling.CLS),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}, Pooling.CLS),
        ({"pooling_mode": ["mean", "max"]}, Pooling.CLS),
        ({"pooling_mode_mean_tokens": True, "include_prompt": True}, Pooling.MEAN),
        (None, Pooling.CLS),
    ],
)
def test_pooling_is_read_from_the_base_model(
    tmp_path: Path, file: dict[str, object] | None, expected: Pooling
) -> None:
    base = tiny_base.make_base(tmp_path / "base")
    if file is not None:
        (base / POOLING_FILE).parent.mkdir()
        (base / POOLING_FILE).write_text(json.dumps(file))
    assert (
        compatibility.read_encoder_shape(resolve_base(str(base)).config, base="b").pooling
        is expected
    )
