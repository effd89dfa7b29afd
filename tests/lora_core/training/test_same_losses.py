"""A run has the losses of transformers and PEFT, step by step."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedModel,
    get_linear_schedule_with_warmup,
)

from lora_core.adapters import adapter_layers
from lora_core.data.batching import collate, epoch_batches
from lora_core.progress_reporter import ProgressReporter
from lora_core.specs.data import Split
from lora_core.specs.train import TrainSpec
from lora_core.training.loop import Trainer
from lora_core.training.prepare import PreparedRun, prepare_run
from lora_core.training.resume import build_or_resume_trainer
from tests.recording_observer import RecordingObserver
from tests.slow import slow_but
from tests.tiny_base import FAMILIES, make_base, whole_layers

LORA = {"type": "lora", "variant": "lora", "r": 4, "alpha": 8.0, "targets": ["query", "value"]}
METHODS: dict[str, dict[str, Any]] = {
    "lora": LORA,
    "baseline": {"type": "baseline", "blocks": 1},
    "full": {"type": "full"},
}


def transformers_model(base: Path, prepared: PreparedRun) -> Any:
    """Return a model of transformers that trains what the prepared run trains, from its start."""
    ours, family = prepared.model, prepared.family
    model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(base)
    for name in family.head_module_names:
        model.get_submodule(name).load_state_dict(ours.get_submodule(name).state_dict())
    adapters = adapter_layers(ours)
    if not adapters:
        trained = {name for name, parameter in ours.named_parameters() if parameter.requires_grad}
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in trained)
        return model
    config = LoraConfig(
        task_type="SEQ_CLS",
        r=4,
        lora_alpha=8,
        target_modules=list(adapters),
        modules_to_save=list(family.saved_modules),
    )
    wrapped = get_peft_model(model, config)
    with torch.no_grad():
        for name, adapter in adapters.items():
            layer: Any = wrapped.base_model.model.get_submodule(name)
            layer.lora_A["default"].weight.copy_(adapter.A)
            layer.lora_B["default"].weight.copy_(adapter.B)
    return wrapped


def losses_of_transformers(
    model: nn.Module, prepared: PreparedRun, trainer: Trainer
) -> list[float]:
    """Return the loss of each step of a plain loop over the same batches."""
    optim, data = prepared.spec.optim, prepared.tokenized[Split.TRAIN]
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": optim.weight_decay},
            {"params": [p for p in trained if p.ndim == 1], "weight_decay": 0.0},
        ],
        lr=prepared.learning_rate,
    )
    schedule = get_linear_schedule_with_warmup(optimizer, 0, trainer.total_steps)
    losses = []
    model.train()
    for epoch in range(trainer.epochs):
        for texts in epoch_batches(
            data.lengths,
            batch_size=trainer.batch_size,
            seed=prepared.spec.runtime.seed,
            epoch=epoch,
        ):
            batch = collate([data.ids[i] for i in texts], data.pad_id)
            loss = model(
                input_ids=batch.input_ids,
                attention_mask=batch.attention_mask,
                labels=torch.from_numpy(data.targets[texts]),
            ).loss
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(trained, optim.max_grad_norm)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
    return losses


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", slow_but(FAMILIES, "distilbert", "modernbert"))
def test_losses_are_those_of_transformers(
    spec: Callable[..., TrainSpec], tmp_path: Path, family: str, method: str
) -> None:
    base = make_base(tmp_path / "a base", family)
    settings = dict(METHODS[method])
    if "targets" in settings:
        settings["targets"] = whole_layers(family, *settings["targets"])
    described = spec(
        method=settings,
        base=str(base),
        optim={
            "epochs": 2,
            "learning_rate": 5e-3,
            "head_learning_rate": 5e-3,
            "head_dropout": 0.0,
            "warmup": 0.0,
        },
        runtime={"precision": "fp32"},
    )
    observer = RecordingObserver()
    progress = ProgressReporter(observer, observer)
    prepared = prepare_run(described, observer, progress)
    trainer = build_or_resume_trainer(
        prepared, observer=observer, progress=progress, checkpoint_settings=None, saved=None
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PEFT
        reference = transformers_model(base, prepared)
    expected = losses_of_transformers(reference, prepared, trainer)
    trainer.train()
    losses = [event.loss for event in observer.all("step")]
    assert len(losses) == len(expected) > 10
    np.testing.assert_allclose(losses, expected, rtol=1e-3)
    first, second = np.array_split(expected, 2)
    assert second.mean() < first.mean()
