"""What each method trains and saves."""

import pytest
import torch

from lora_core import fine_tuning_methods
from lora_core.encoders import FAMILIES
from lora_core.errors.spec import LayerOutOfRange
from lora_core.layers import VARIANTS
from lora_core.layers.lora import LoraLinear
from lora_core.specs.method import (
    FullFineTuningSpec,
    HeadMode,
    LastLayersBaselineSpec,
    LayerRole,
    LoraSpec,
    LoraVariant,
)
from tests import tiny_base

SPECS = [
    LastLayersBaselineSpec(),
    LastLayersBaselineSpec(blocks=1),
    LoraSpec(r=2),
    LoraSpec(r=2, head=HeadMode.LORA),
    FullFineTuningSpec(),
]
every_family = pytest.mark.parametrize("family", tiny_base.each_family())


@every_family
@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_only_trainable_parameters_change_and_restore_undoes_it(
    family: str, spec: LastLayersBaselineSpec | LoraSpec | FullFineTuningSpec
) -> None:
    torch.manual_seed(0)
    model = tiny_base.FAMILIES[family]()
    method = fine_tuning_methods.build_method(spec)
    method.prepare(model, FAMILIES[family])
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    saved = method.state_dict(model)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.5)
    for _ in range(2):  # at the first step A has no gradient, since B is zero
        optimizer.zero_grad()
        model(torch.tensor([[2, 7, 9, 3]])).logits[0, 0].backward()
        optimizer.step()
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed <= set(saved)
    assert changed
    method.load_state_dict(model, saved)
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())


@every_family
def test_baseline_trains_the_head_and_the_last_blocks(family: str) -> None:
    model = tiny_base.FAMILIES[family]()
    method = fine_tuning_methods.build_method(LastLayersBaselineSpec(blocks=1))
    method.prepare(model, FAMILIES[family])
    head, last = FAMILIES[family].head_module_names, f"{FAMILIES[family].block_list}.1"
    prefixes = (*(f"{name}." for name in head), f"{last}.")
    expected = {name for name, _ in model.named_parameters() if name.startswith(prefixes)}
    assert set(method.state_dict(model)) == expected


@every_family
@pytest.mark.parametrize(
    ("head", "saved"),
    [
        (HeadMode.TRAIN, ("weight", "bias")),
        (HeadMode.LORA, ("A", "B")),
        (HeadMode.FROZEN, ()),
    ],
)
def test_lora_head_is_trained_adapted_or_frozen(
    family: str, head: HeadMode, saved: tuple[str, ...]
) -> None:
    model = tiny_base.FAMILIES[family]()
    method = fine_tuning_methods.build_method(LoraSpec(r=2, head=head))
    method.prepare(model, FAMILIES[family])
    prefixes = tuple(f"{name}." for name in FAMILIES[family].head_module_names)
    names = {n for n in method.state_dict(model) if n.startswith(prefixes)}
    in_model = {n for n, _ in model.named_parameters()}
    expected = {f"{name}{part}" for name in prefixes for part in saved}
    assert names == expected & in_model
    assert {name.rpartition(".")[0] for name in names} >= (
        set(FAMILIES[family].head) if saved else set()
    )


class FrozenA(LoraLinear):
    """A variant that trains B alone."""

    def init_A(self) -> None:  # noqa: N802
        super().init_A()
        self.A.requires_grad_(False)


def test_parameters_frozen_by_a_variant_are_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VARIANTS, LoraVariant.LORA, FrozenA)
    model = tiny_base.distilbert()
    method = fine_tuning_methods.build_method(LoraSpec(r=2, head=HeadMode.FROZEN))
    method.prepare(model, FAMILIES["distilbert"])
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    state = method.state_dict(model)
    assert {name.rpartition(".")[2] for name in trained} == {"B"}
    assert state.keys() == {*trained, *(name[:-1] + "A" for name in trained)}
    assert method.count_parameters(model).trainable == sum(p.numel() for p in trained.values())
    method.load_state_dict(model, {name: torch.ones_like(tensor) for name, tensor in state.items()})
    assert all(tensor.eq(1).all() for tensor in method.state_dict(model).values())


def test_state_of_another_method_is_refused() -> None:
    model = tiny_base.distilbert()
    method = fine_tuning_methods.build_method(LoraSpec())
    method.prepare(model, FAMILIES["distilbert"])
    state = method.state_dict(model)
    state.pop("classifier.bias")
    with pytest.raises(KeyError, match=r"classifier\.bias"):
        method.load_state_dict(model, state)


def test_more_blocks_than_the_encoder_has_is_refused() -> None:
    with pytest.raises(LayerOutOfRange):
        fine_tuning_methods.build_method(LastLayersBaselineSpec(blocks=3)).prepare(
            tiny_base.bert(), FAMILIES["bert"]
        )


def test_parameter_counts_match_the_published_lessons() -> None:
    distilbert = tiny_base.distilbert(
        vocab_size=30522, dim=768, n_layers=6, n_heads=12, hidden_dim=3072,
        max_position_embeddings=512,
    )  # fmt: skip
    query_value = LoraSpec(targets=(LayerRole.QUERY, LayerRole.VALUE), head=HeadMode.FROZEN)
    full, last, lora = (
        fine_tuning_methods.build_method(spec)
        for spec in (FullFineTuningSpec(), LastLayersBaselineSpec(), query_value)
    )
    full.prepare(distilbert, FAMILIES["distilbert"])
    assert full.count_parameters(distilbert).trainable == 66_955_010
    last.prepare(distilbert, FAMILIES["distilbert"])
    assert last.count_parameters(distilbert).trainable == 592_130
    lora.prepare(distilbert, FAMILIES["distilbert"])
    assert lora.count_parameters(distilbert).trainable == 147_456
