from typing import Any

import pytest

from lora_core import compatibility
from lora_core.resolve_defaults import (
    default_learning_rate,
    resolve_checkpoint_selection,
    resolve_defaults,
    resolve_epochs_and_batch_size,
    resolve_learning_rates,
)
from lora_core.samples import minilm
from lora_core.specs.data import Split
from lora_core.specs.method import FullFineTuningSpec, LastLayersBaselineSpec, LoraSpec
from lora_core.specs.pooling import Pooling
from lora_core.specs.task import RegressionSpec, SingleLabelSpec
from lora_core.specs.train import CheckpointSelectionAndStopSpec, OptimSpec, SelectBy, TrainSpec


def test_learning_rate_depends_on_method_and_width() -> None:
    assert default_learning_rate(LoraSpec(), 384) == 1.5e-3  # chosen on validation: decision 16
    for width in (384, 768):
        ratio = default_learning_rate(LoraSpec(), width) / default_learning_rate(
            FullFineTuningSpec(), width
        )
        assert 10 <= ratio <= 20
    assert default_learning_rate(LastLayersBaselineSpec(), 384) == 1e-3


def test_explicit_settings_are_kept_and_the_rest_is_resolved() -> None:
    shape = compatibility.read_encoder_shape(
        minilm.build_distilbert_config_dict(), base=minilm.NAME
    )
    spec, rate, length = resolve_defaults(TrainSpec(method=LoraSpec()), shape)
    assert (rate, length) == (1.5e-3, 512)
    assert (spec.optim.learning_rate, spec.data.max_length) == (rate, length)
    settings = {
        "method": {"type": "full"},
        "optim": {"learning_rate": 0.5},
        "data": {"max_length": 64},
    }
    assert resolve_defaults(TrainSpec.model_validate(settings), shape)[1:] == (0.5, 64)


@pytest.mark.parametrize(
    ("texts", "epochs", "batch_size"),
    [
        (0, 60, 16),
        (7, 60, 16),
        (16, 60, 16),
        (256, 4, 16),
        (500, 2, 16),
        (501, 4, 32),
        (6000, 2, 32),
    ],
)
def test_few_texts_get_a_minimum_of_updates(texts: int, epochs: int, batch_size: int) -> None:
    assert resolve_epochs_and_batch_size(OptimSpec(), texts) == (epochs, batch_size)
    assert epochs * -(-max(1, texts) // batch_size) >= 60
    assert resolve_epochs_and_batch_size(OptimSpec(epochs=1), texts) == (1, batch_size)
    assert resolve_epochs_and_batch_size(OptimSpec(batch_size=600), texts)[1] == 600


def test_few_validation_texts_do_not_select_a_checkpoint() -> None:
    task = SingleLabelSpec()
    assert (
        resolve_checkpoint_selection(CheckpointSelectionAndStopSpec(), 99, task).select_by
        is SelectBy.LAST
    )
    assert (
        resolve_checkpoint_selection(CheckpointSelectionAndStopSpec(), 100, task).select_by
        is SelectBy.MACRO_F1
    )
    assert (
        resolve_checkpoint_selection(CheckpointSelectionAndStopSpec(patience=2), 9, task).select_by
        is SelectBy.MACRO_F1
    )
    assert (
        resolve_checkpoint_selection(
            CheckpointSelectionAndStopSpec(select_by=SelectBy.LOSS), 9, task
        ).select_by
        is SelectBy.LOSS
    )
    assert (
        resolve_checkpoint_selection(
            CheckpointSelectionAndStopSpec(), 100, RegressionSpec()
        ).select_by
        is SelectBy.RMSE
    )
    with pytest.raises(ValueError, match="patience has no meaning with select_by 'last'"):
        CheckpointSelectionAndStopSpec(select_by=SelectBy.LAST, patience=2)


@pytest.mark.parametrize(
    ("settings", "head_init", "head_rate"),
    [
        ({"method": {"type": "lora"}}, "probe", 1e-4),
        ({"method": {"type": "lora", "variant": "unscaled"}}, "probe", 5e-5),
        ({"method": {"type": "lora", "head": "frozen"}}, "random", 1.5e-3),
        ({"method": {"type": "lora", "head": "lora"}}, "random", 1.5e-3),
        ({"method": {"type": "full"}}, "random", 1e-4),
        ({"method": {"type": "baseline", "blocks": 1}}, "random", 1e-4),
        ({"method": {"type": "probe"}}, "probe", 1e-4),
        ({"method": {"type": "baseline"}}, "random", 1e-3),
        ({"method": {"type": "lora"}, "head_init": "random"}, "random", 1.5e-3),
        ({"method": {"type": "lora", "head": "frozen"}, "head_init": "probe"}, "probe", 1e-4),
        ({"method": {"type": "lora"}, "optim": {"learning_rate": 3e-3}}, "probe", 2e-4),
        (
            {"method": {"type": "full"}, "head_init": "probe", "optim": {"learning_rate": 3e-3}},
            "probe",
            3e-3,
        ),
        ({"method": {"type": "lora"}, "optim": {"head_learning_rate": 0.5}}, "probe", 0.5),
        ({"preset": "seed", "method": {"type": "lora", "head": "train"}}, "random", 5e-5),
    ],
)
def test_lora_head_is_initialized_from_the_probe(
    settings: dict[str, Any], head_init: str, head_rate: float
) -> None:
    shape = compatibility.read_encoder_shape(
        minilm.build_distilbert_config_dict(), base=minilm.NAME
    )
    spec, _, _ = resolve_defaults(TrainSpec.model_validate(settings), shape)
    assert spec.head_init == head_init
    assert spec.optim.head_learning_rate == pytest.approx(head_rate)


@pytest.mark.parametrize(
    ("settings", "texts", "rate", "head_rate"),
    [
        ({"method": {"type": "lora"}}, 256, 1.5e-3, 1e-4),
        ({"method": {"type": "lora"}}, 64, 7.5e-4, 1e-4),
        ({"method": {"type": "lora"}}, 1, 1.5e-3 / 16, 1.5e-3 / 16),
        ({"method": {"type": "lora"}, "optim": {"learning_rate": 1.5e-3}}, 64, 1.5e-3, 2e-4),
        ({"method": {"type": "lora"}, "head_init": "random"}, 64, 1.5e-3, 1.5e-3),
        ({"method": {"type": "lora", "variant": "unscaled"}}, 64, 5e-5, 5e-5),
        ({"method": {"type": "full"}}, 64, 1e-4, 1e-4),
    ],
)
def test_adapters_on_few_texts_have_a_lower_learning_rate(
    settings: dict[str, Any], texts: int, rate: float, head_rate: float
) -> None:
    found = resolve_learning_rates(TrainSpec.model_validate(settings), 384, texts)
    assert found == pytest.approx((rate, head_rate))


def test_adapted_head_cannot_be_initialized_from_the_probe() -> None:
    settings = {"method": {"type": "lora", "head": "lora"}, "head_init": "probe"}
    with pytest.raises(ValueError, match=r"train or freeze the head, or omit head_init"):
        TrainSpec.model_validate(settings)
    with pytest.raises(ValueError, match="Input should be 'auto', 'probe' or 'random'"):
        TrainSpec.model_validate({"method": {"type": "lora"}, "head_init": "zeros"})


def test_defaults_depend_on_text_count_and_base() -> None:
    shape = compatibility.read_encoder_shape(
        minilm.build_distilbert_config_dict(), base=minilm.NAME
    )
    texts = {Split.TRAIN: 100, Split.VALIDATION: 10, Split.TEST: 20}
    spec, _, _ = resolve_defaults(TrainSpec(method=LoraSpec()), shape, texts)
    assert (spec.optim.epochs, spec.optim.batch_size) == (9, 16)
    assert (spec.stop.select_by, spec.pooling) == (SelectBy.LAST, Pooling.MEAN)
    again, _, _ = resolve_defaults(spec, shape, texts)
    assert again == spec
