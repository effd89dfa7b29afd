"""Which layers get an adapter."""

import pytest
import torch

from lora_core.adapters import adapter_layers, inject_adapters, merge_adapters
from lora_core.encoders import FAMILIES
from lora_core.errors.spec import LayerOutOfRange, LayerRoleNotFound, LayerRolesFused, RankTooLarge
from lora_core.specs.method import HeadMode, LayerRole, LoraSpec
from tests import tiny_base

EXPECTED = {
    ("distilbert", LayerRole.QUERY): ["attention.q_lin"],
    ("distilbert", LayerRole.KEY): ["attention.k_lin"],
    ("distilbert", LayerRole.VALUE): ["attention.v_lin"],
    ("distilbert", LayerRole.PROJECTION): ["attention.out_lin"],
    ("distilbert", LayerRole.MLP): ["ffn.lin1", "ffn.lin2"],
}
BERT = {
    LayerRole.QUERY: ["attention.self.query"],
    LayerRole.KEY: ["attention.self.key"],
    LayerRole.VALUE: ["attention.self.value"],
    LayerRole.PROJECTION: ["attention.output.dense"],
    LayerRole.MLP: ["intermediate.dense", "output.dense"],
}
for family_ in ("bert", "roberta", "xlm-roberta", "camembert", "electra"):
    EXPECTED |= {(family_, role): paths for role, paths in BERT.items()}
MODERNBERT = {
    (LayerRole.QUERY, LayerRole.KEY, LayerRole.VALUE): ["attn.Wqkv"],
    (LayerRole.PROJECTION,): ["attn.Wo"],
    (LayerRole.MLP,): ["mlp.Wi", "mlp.Wo"],
}
INPUT = torch.tensor([[2, 7, 9, 3]])


@pytest.mark.parametrize(("family", "role"), EXPECTED)
def test_role_selects_its_layers_in_every_block(family: str, role: LayerRole) -> None:
    model = tiny_base.FAMILIES[family]()
    names = inject_adapters(model, FAMILIES[family], LoraSpec(targets=(role,)))
    prefix = FAMILIES[family].block_list
    expected = [f"{prefix}.{i}.{path}" for i in (0, 1) for path in EXPECTED[family, role]]
    assert names == expected
    assert list(adapter_layers(model)) == expected


@pytest.mark.parametrize("roles", MODERNBERT, ids="+".join)
def test_roles_of_one_layer_are_adapted_together(roles: tuple[LayerRole, ...]) -> None:
    model = tiny_base.modernbert()
    names = inject_adapters(model, FAMILIES["modernbert"], LoraSpec(targets=roles))
    assert names == [f"model.layers.{i}.{path}" for i in (0, 1) for path in MODERNBERT[roles]]


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        ((LayerRole.QUERY, LayerRole.VALUE), "add key, or leave out query, value"),
        ((LayerRole.KEY, LayerRole.MLP), "add query, value, or leave out key"),
    ],
)
def test_part_of_a_layer_is_refused(roles: tuple[LayerRole, ...], expected: str) -> None:
    model = tiny_base.modernbert()
    with pytest.raises(LayerRolesFused, match=rf"query, key, value are one layer.*{expected}"):
        inject_adapters(model, FAMILIES["modernbert"], LoraSpec(targets=roles))
    assert not adapter_layers(model)


@pytest.mark.parametrize("family", tiny_base.each_family())
def test_only_requested_layers_are_adapted(family: str) -> None:
    model = tiny_base.FAMILIES[family]()
    targets = tiny_base.whole_layers(family, LayerRole.QUERY, LayerRole.VALUE)
    names = inject_adapters(model, FAMILIES[family], LoraSpec(targets=targets, layers=(1,)))
    paths = {path for role in targets for path in FAMILIES[family].roles[role]}
    assert set(names) == {f"{FAMILIES[family].block_list}.1.{path}" for path in paths}


@pytest.mark.parametrize("family", tiny_base.each_family())
def test_head_adapter_rank_is_at_most_the_number_of_classes(family: str) -> None:
    model = tiny_base.FAMILIES[family](labels=3)
    inject_adapters(model, FAMILIES[family], LoraSpec(head=HeadMode.LORA, r=8))
    ranks = [adapter_layers(model)[name].r for name in FAMILIES[family].head]
    assert ranks == [8, 3]


@pytest.mark.parametrize("family", tiny_base.each_family())
def test_injection_keeps_logits_and_merge_restores_plain_layers(family: str) -> None:
    torch.manual_seed(0)
    model = tiny_base.FAMILIES[family]()
    names = set(model.state_dict())
    before = model(INPUT).logits
    inject_adapters(model, FAMILIES[family], LoraSpec(targets=tuple(LayerRole), head=HeadMode.LORA))
    model.eval()
    torch.testing.assert_close(model(INPUT).logits, before)
    for adapter in adapter_layers(model).values():
        torch.nn.init.normal_(adapter.B, std=0.1)
    adapted = model(INPUT).logits
    assert not torch.allclose(adapted, before, atol=1e-3)
    merge_adapters(model)
    torch.testing.assert_close(model(INPUT).logits, adapted, rtol=1e-4, atol=1e-5)
    assert set(model.state_dict()) == names


def test_role_without_a_match_lists_available_roles() -> None:
    model = tiny_base.distilbert()
    for block in model.distilbert.transformer.layer:
        block.ffn = torch.nn.Identity()
    with pytest.raises(LayerRoleNotFound) as caught:
        inject_adapters(
            model, FAMILIES["distilbert"], LoraSpec(targets=(LayerRole.QUERY, LayerRole.MLP))
        )
    assert str(caught.value) == (
        "No module of distilbert has the role 'mlp'. "
        "Available roles: query, key, value, projection."
    )
    assert not adapter_layers(model)


def test_missing_layer_is_refused_before_any_change() -> None:
    model = tiny_base.distilbert()
    with pytest.raises(LayerOutOfRange, match="numbered 0 to 1"):
        inject_adapters(model, FAMILIES["distilbert"], LoraSpec(layers=(0, 2)))
    assert not adapter_layers(model)


def test_rank_above_the_layer_size_is_refused_before_any_change() -> None:
    model = tiny_base.distilbert()
    with pytest.raises(RankTooLarge, match="at most 32"):
        inject_adapters(model, FAMILIES["distilbert"], LoraSpec(r=33))
    assert not adapter_layers(model)
