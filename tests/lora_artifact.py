"""Make the artifact of a LoRA run without training: its adapter is random."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from lora_core import manifest
from lora_core.adapters import merge_adapters
from lora_core.artifact import (
    resolve_base_or_artifact,
    save_adapter,
    save_base_adapter_and_head,
    save_head,
    save_merged_model,
)
from lora_core.encoders.load import encoder_weights_sha256, load_classifier, weights_sha256
from lora_core.fine_tuning_methods import LoraMethod
from lora_core.inference.predictor import Predictor
from lora_core.manifest import FORMAT_VERSION
from lora_core.saved_predictions import save_golden_predictions
from lora_core.specs.data import DataSpec
from lora_core.specs.method import LoraSpec
from lora_core.specs.task import SingleLabelSpec, TaskSpec
from lora_core.specs.train import TrainSpec
from lora_core.tasks.base import Calibration
from tests.tiny_artifact import PAIRS, PROBLEM_TYPES, TEXTS
from tests.tiny_base import make_base, tokenizer

LABELS = ("bad", "good")


def make_lora_artifact(
    directory: Path,
    spec: LoraSpec,
    *,
    family: str = "distilbert",
    labels: tuple[str, ...] = LABELS,
    max_length: int = 64,
    base: Path | None = None,
    in_format_1: bool = False,
    seed: int = 5,
    task: TaskSpec = SingleLabelSpec(),
    calibration: Calibration | None = None,
    pairs: bool = False,
    data: DataSpec = DataSpec(),
) -> Path:
    """Make `directory/artifact` on `base`, or on a new base in `directory/base`.

    With `pairs` it reads pairs of texts. In format 1 it has a merged checkpoint instead of a base.
    """
    pretrained = resolve_base_or_artifact(str(base or make_base(directory / "base", family)))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model, _ = load_classifier(pretrained, labels, PROBLEM_TYPES[task.type])
        base_sha256 = encoder_weights_sha256(model, pretrained.family)
        method = LoraMethod(spec)
        method.prepare(model, pretrained.family)
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                nn.init.normal_(parameter, mean=float(name.endswith("magnitude")), std=0.1)
    out = directory / "artifact"
    out.mkdir(parents=True)
    if in_format_1:
        save_adapter(out, spec, method.state_dict(model), family)
        merge_adapters(model)
        save_merged_model(out, model, tokenizer(family), max_length)
        save_head(out, model, pretrained.family)
    else:
        save_base_adapter_and_head(out, model, pretrained.family, tokenizer(family), spec)
    windows = data.long_texts == "windows"
    predictor = Predictor.from_model(
        model, tokenizer(family), max_length, pairs=pairs, windows=windows
    )
    texts = PAIRS if pairs else TEXTS
    save_golden_predictions(out, texts, predictor.forward(predictor.encode(texts)).numpy())
    if pairs:
        data = data.model_copy(update={"text_pair_column": "second"})
    train_spec = TrainSpec(method=spec, base=pretrained.name, task=task, data=data)
    facts: dict[str, Any] = {
        "format": 1 if in_format_1 else FORMAT_VERSION,
        "created_by": {"loraworks": "0"},
        "spec": train_spec.model_dump(mode="json"),
        "encoder": family,
        "base_sha256": base_sha256,
        **({} if in_format_1 else {"merged_sha256": weights_sha256(model.state_dict())}),
        "labels": list(labels),
        "max_length": max_length,
        "metrics": {"labels": list(labels), "validation": {"accuracy": 0.8, "macro_f1": 0.79}},
        **({"calibration": calibration.model_dump(mode="json")} if calibration else {}),
    }
    manifest.create_and_save(out, facts)
    return out
