"""Random adapters of one base, each with its own task, ranks, targets and labels."""

from pathlib import Path

import torch

from benchmarks.serve.checkpoint import SPEC
from lora_core import __version__, artifact, fine_tuning_methods, manifest
from lora_core.adapters import adapter_layers
from lora_core.data.tokens import load_tokenizer
from lora_core.encoders.load import encoder_weights_sha256, load_classifier, resolve_base
from lora_core.inference.predictor import Predictor
from lora_core.saved_predictions import save_golden_predictions
from lora_core.specs.encoded_labels import NUMBER
from lora_core.specs.method import LayerRole, LoraSpec
from lora_core.specs.task import MultiLabelSpec, RegressionSpec, SingleLabelSpec, TaskSpec
from lora_core.tasks.base import UNCALIBRATED, Calibration
from lora_core.tasks.build import build_task

ROLES = (
    (LayerRole.QUERY, LayerRole.VALUE),
    tuple(LayerRole),
    (LayerRole.QUERY, LayerRole.KEY, LayerRole.VALUE, LayerRole.PROJECTION),
    (LayerRole.MLP,),
)
TEXTS = ("a good film", "a dull plot", "the story was fine")


def task(number: int) -> TaskSpec:
    """Return one of three in turn."""
    return (SingleLabelSpec(), MultiLabelSpec(), RegressionSpec())[number % 3]


def labels(number: int) -> tuple[str, ...]:
    """Two to eight of them, or one number."""
    if isinstance(task(number), RegressionSpec):
        return (NUMBER,)
    return tuple(f"label-{number}-{i}" for i in range(2 + number % 7))


def calibration(number: int) -> Calibration:
    """Return one that changes no logit."""
    if isinstance(task(number), SingleLabelSpec):
        return UNCALIBRATED
    size = len(labels(number))
    thresholds = (0.5,) * size if isinstance(task(number), MultiLabelSpec) else ()
    return Calibration(scale=(1.0,) * size, offset=(0.0,) * size, thresholds=thresholds)


def method(number: int) -> LoraSpec:
    """Ranks from 4 to 32."""
    r = 4 * (1 + number % 8)
    return LoraSpec(r=r, alpha=2.0 * r, targets=ROLES[number % len(ROLES)])


def save(directory: Path, number: int) -> None:
    """A finished artifact, as a run saves it."""
    torch.manual_seed(number)
    spec = SPEC.model_copy(update={"method": method(number), "task": task(number)})
    base, length = resolve_base(spec.base), spec.data.max_length or 0
    problem_type = build_task(spec.task, labels(number), (0.0, 1.0)).problem_type
    model, _ = load_classifier(base, labels(number), problem_type)
    encoder = encoder_weights_sha256(model, base.family)
    trained = fine_tuning_methods.build_method(spec.method)
    trained.prepare(model, base.family)
    with torch.no_grad():
        for adapter in adapter_layers(model).values():
            adapter.B.normal_(std=0.01)
    tokenizer = load_tokenizer(base.directory / "tokenizer.json")
    directory.mkdir(parents=True)
    artifact.save_base_adapter_and_head(directory, model, base.family, tokenizer, spec.method)
    merged = artifact.load_merged_model(directory)
    predictor = Predictor.from_model(merged, tokenizer, length)
    logits = predictor.forward(predictor.encode(TEXTS)).numpy()
    save_golden_predictions(directory, TEXTS, logits)
    manifest.create_and_save(
        directory,
        {
            "format": manifest.FORMAT_VERSION,
            "created_by": {"loraworks": __version__},
            "spec": spec.model_dump(mode="json"),
            "encoder": base.family.model_type,
            "base_sha256": encoder,
            "labels": list(labels(number)),
            "calibration": calibration(number).model_dump(mode="json"),
            "max_length": length,
            "data_sha256": "0" * 64,
            "metrics": {"labels": list(labels(number))},
        },
    )
