"""Counts and checks from config.json alone, compared with the real models."""

import itertools
import json
from dataclasses import replace
from typing import Any

import pytest
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    CamembertConfig,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    PretrainedConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

from lora_core import compatibility, fine_tuning_methods
from lora_core.encoders import FAMILIES
from lora_core.errors.base_model import UnreadableBase, UnsupportedEncoder
from lora_core.errors.spec import (
    LayerOutOfRange,
    LayerRoleNotFound,
    MaxLengthTooLarge,
    RankTooLarge,
    SelectByUnsupported,
)
from lora_core.samples import minilm
from lora_core.specs.data import DataSpec
from lora_core.specs.method import (
    EncoderMethod,
    FullFineTuningSpec,
    HeadMode,
    LastLayersBaselineSpec,
    LayerRole,
    LoraSpec,
    LoraVariant,
)
from lora_core.specs.train import TrainSpec
from tests.slow import slow_but
from tests.tiny_base import whole_layers

DISTILBERT = {"model_type": "distilbert"}  # every size at its default: distilbert-base
SIZES = {
    "vocab_size": 50,
    "max_position_embeddings": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "hidden_size": 8,
    "intermediate_size": 6,
}
CONFIGS: dict[str, PretrainedConfig] = {
    "distilbert": DistilBertConfig(
        vocab_size=50, max_position_embeddings=16, n_layers=3, n_heads=2, dim=8, hidden_dim=12
    ),
    "bert": BertConfig(**SIZES, type_vocab_size=3),
    "roberta": RobertaConfig(**SIZES, type_vocab_size=1),
    "xlm-roberta": XLMRobertaConfig(**SIZES, type_vocab_size=1),
    "camembert": CamembertConfig(**SIZES),
    "electra": ElectraConfig(**SIZES, embedding_size=8),
    "electra-small": ElectraConfig(**SIZES, embedding_size=4),
    "modernbert": ModernBertConfig(**SIZES, pad_token_id=0),
    "modernbert-biased": ModernBertConfig(
        **SIZES,
        pad_token_id=0,
        attention_bias=True,
        mlp_bias=True,
        norm_bias=True,
        classifier_bias=True,
        classifier_pooling="mean",
    ),
}
METHODS: list[EncoderMethod] = [
    FullFineTuningSpec(),
    *(LastLayersBaselineSpec(blocks=blocks) for blocks in (0, 1, 3)),
    *(
        LoraSpec(variant=variant, head=head, r=4, targets=targets, layers=layers)
        for variant, head, targets, layers in itertools.product(
            LoraVariant,
            HeadMode,
            [(LayerRole.QUERY, LayerRole.VALUE), tuple(LayerRole)],
            [None, (0, 2)],
        )
    ),
]


def saved(config: PretrainedConfig) -> dict[str, Any]:
    """The config.json that transformers writes."""
    return {**json.loads(config.to_json_string(use_diff=False)), "model_type": config.model_type}


def shape(config: dict[str, Any]) -> compatibility.EncoderShape:
    return compatibility.read_encoder_shape(config, base="the base")


@pytest.mark.parametrize("method", METHODS, ids=repr)
@pytest.mark.parametrize("n_labels", slow_but([2, 5], 5))
@pytest.mark.parametrize("family", CONFIGS)
def test_parameter_count_matches_the_prepared_model(
    family: str, n_labels: int, method: EncoderMethod
) -> None:
    config = CONFIGS[family]
    config.num_labels = n_labels
    model = AutoModelForSequenceClassification.from_config(config)
    if isinstance(method, LoraSpec):
        targets = whole_layers(config.model_type, *method.targets)
        method = method.model_copy(update={"targets": targets})
    prepared = fine_tuning_methods.build_method(method)
    prepared.prepare(model, FAMILIES[config.model_type])
    counted = prepared.count_parameters(model)

    census = compatibility.count_parameters(shape(saved(config)), method, n_labels)

    assert (census.trainable, census.total) == (counted.trainable, counted.total)


def test_parameter_count_of_distilbert_base() -> None:
    assert compatibility.count_parameters(
        shape(DISTILBERT), FullFineTuningSpec(), 2
    ) == compatibility.ParameterCounts(66_955_010, 66_955_010)
    assert compatibility.count_parameters(
        shape(DISTILBERT), LastLayersBaselineSpec(), 2
    ) == compatibility.ParameterCounts(592_130, 66_955_010)
    frozen_head = LoraSpec(r=8, targets=(LayerRole.QUERY, LayerRole.VALUE), head=HeadMode.FROZEN)
    assert compatibility.count_parameters(shape(DISTILBERT), frozen_head, 2).trainable == 147_456


@pytest.mark.parametrize("model_type", FAMILIES)
def test_missing_sizes_have_the_defaults_of_transformers(model_type: str) -> None:
    complete = saved(AutoConfig.for_model(model_type))
    assert shape({"model_type": model_type}) == shape(complete)


def test_config_may_use_the_common_size_names() -> None:
    short = {**DISTILBERT, "dim": 8, "n_heads": 2, "n_layers": 3}
    common = {**DISTILBERT, "hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 3}
    assert shape(common) == shape(short)


def spec(method: EncoderMethod, **data: Any) -> TrainSpec:
    return TrainSpec(method=method, data=DataSpec(**data))


@pytest.mark.parametrize(
    "method",
    [
        FullFineTuningSpec(),
        LastLayersBaselineSpec(blocks=6),
        LoraSpec(layers=(5,)),
        LoraSpec(r=384),
    ],
)
def test_valid_settings_for_the_sample_base_are_accepted(method: EncoderMethod) -> None:
    compatibility.check_compatibility(shape(minilm.build_distilbert_config_dict()), spec(method))


@pytest.mark.parametrize(
    ("method", "error", "message"),
    [
        (LoraSpec(r=385), RankTooLarge, "at most 384"),
        (LoraSpec(r=385, targets=(LayerRole.MLP,)), RankTooLarge, "384 x 1536"),
        (LoraSpec(layers=(0, 6)), LayerOutOfRange, "numbered 0 to 5"),
        (LastLayersBaselineSpec(blocks=7), LayerOutOfRange, "has 6 layers"),
    ],
)
def test_invalid_setting_is_refused_with_the_limit(
    method: EncoderMethod, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        compatibility.check_compatibility(
            shape(minilm.build_distilbert_config_dict()), spec(method)
        )


def test_a_checkpoint_cannot_be_selected_by_a_metric_of_another_task() -> None:
    sample = shape(minilm.build_distilbert_config_dict())
    by_rmse = {"method": {"type": "lora"}, "stop": {"select_by": "rmse"}}
    with pytest.raises(SelectByUnsupported, match=r"'rmse' .*single_label.*accuracy"):
        compatibility.check_compatibility(sample, TrainSpec.model_validate(by_rmse))
    regression = TrainSpec.model_validate({**by_rmse, "task": {"type": "regression"}})
    compatibility.check_compatibility(sample, regression)


@pytest.mark.parametrize(
    "settings",
    [
        {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
        {"rope_scaling": {"type": "longrope"}},
        {"rope_parameters": {"full_attention": {"rope_type": "longrope"}}},
    ],
    ids=str,
)
def test_rotations_by_length_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UnreadableBase, match="depend on the length of a text"):
        shape({"model_type": "modernbert", **settings})
    for other in ({"rope_scaling": None}, {"rope_parameters": "x"}, {"rope_parameters": {"x": 1}}):
        assert shape({"model_type": "modernbert", **other}).layers == 22


def test_positions_up_to_the_padding_id_are_reserved() -> None:
    roberta_base = {"model_type": "roberta", "max_position_embeddings": 514, "type_vocab_size": 1}
    assert compatibility.count_parameters(
        shape(roberta_base), FullFineTuningSpec(), 2
    ) == compatibility.ParameterCounts(124_647_170, 124_647_170)
    assert shape(roberta_base).max_tokens == shape(roberta_base).resolve_max_length(None) == 512
    assert shape({**roberta_base, "pad_token_id": 0}).max_tokens == 513
    compatibility.check_compatibility(
        shape({**roberta_base, "max_position_embeddings": 514}),
        spec(FullFineTuningSpec(), max_length=512),
    )
    with pytest.raises(MaxLengthTooLarge, match="512 positions"):
        compatibility.check_compatibility(
            shape(roberta_base), spec(FullFineTuningSpec(), max_length=513)
        )
    for padding in (None, -1, 513):
        with pytest.raises(UnreadableBase):
            shape({**roberta_base, "pad_token_id": padding})


def test_max_length_above_the_positions_is_refused() -> None:
    compatibility.check_compatibility(
        shape(minilm.build_distilbert_config_dict()), spec(FullFineTuningSpec(), max_length=512)
    )
    compatibility.check_compatibility(
        shape({**minilm.build_distilbert_config_dict(), "max_position_embeddings": 64}),
        spec(FullFineTuningSpec()),
    )
    with pytest.raises(MaxLengthTooLarge, match="512 positions"):
        compatibility.check_compatibility(
            shape(minilm.build_distilbert_config_dict()), spec(FullFineTuningSpec(), max_length=513)
        )


def test_unknown_role_error_lists_available_roles() -> None:
    only_query = replace(FAMILIES["distilbert"], roles={LayerRole.QUERY: ("attention.q_lin",)})
    without_mlp = replace(shape(DISTILBERT), family=only_query)
    with pytest.raises(LayerRoleNotFound, match=r"role 'mlp'.*Available roles: query"):
        compatibility.check_compatibility(without_mlp, spec(LoraSpec(targets=(LayerRole.MLP,))))


@pytest.mark.parametrize("model_type", ["t6", None, ["bert"], "b" * 1000])
def test_unsupported_architecture_is_refused(model_type: Any) -> None:
    with pytest.raises(UnsupportedEncoder, match="Supported: distilbert, bert, roberta"):
        shape({"model_type": model_type})


@pytest.mark.parametrize("size", [0, -1, 1.5, "768", True, None, 10**9])
def test_invalid_size_in_the_config_is_refused(size: Any) -> None:
    with pytest.raises(UnreadableBase, match=r"dim in config\.json is not a valid size"):
        shape({**DISTILBERT, "dim": size})


@pytest.mark.parametrize("distance", [0, -1, None, 2.5])
def test_invalid_distance_of_global_attention_is_refused(distance: Any) -> None:
    config = {"model_type": "modernbert", "global_attn_every_n_layers": distance}
    with pytest.raises(UnreadableBase, match="global_attn_every_n_layers"):
        shape(config)


def test_hidden_size_not_divisible_by_heads_is_refused() -> None:
    with pytest.raises(UnreadableBase, match="12 heads"):
        shape({**DISTILBERT, "dim": 770})
