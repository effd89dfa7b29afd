"""Everything a run needs before its first step: data, model, method, token ids."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from transformers import PreTrainedModel

from lora_core import fit, methods
from lora_core.data.load import load
from lora_core.data.records import Splits
from lora_core.data.tokens import load_tokenizer, tokenise
from lora_core.encoders import unfused
from lora_core.encoders.base import EncoderFamily
from lora_core.encoders.checkpoint import fingerprint, load_classifier, locate
from lora_core.encoders.first_token import shorten
from lora_core.encoders.modules import blocks
from lora_core.encoders.recompute import recompute
from lora_core.events import Noted, Observer, Phase
from lora_core.layers import held
from lora_core.methods.base import Method
from lora_core.specs.data import Split
from lora_core.specs.train import TrainSpec
from lora_core.tasks.sequence_classification import SequenceClassification
from lora_core.training import runtime
from lora_core.training.forward import Forward
from lora_core.training.optim import default_rate
from lora_core.training.part import Part
from lora_core.training.pulse import Pulse
from lora_core.training.runtime import Runtime
from lora_core.training.trunk import choose

MAX_LENGTH = 512  # tokens, unless the spec or the base says less


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to start; `spec` has every default filled in."""

    spec: TrainSpec
    machine: Runtime
    splits: Splits
    parts: dict[Split, Part]
    cut: float  # share of texts that were truncated
    model: PreTrainedModel
    family: EncoderFamily
    method: Method
    task: SequenceClassification
    forward: Forward
    tokenizer_file: Path
    base_sha256: str


def prepare(spec: TrainSpec, observer: Observer, pulse: Pulse) -> Prepared:
    """Load and check everything, cheapest first. Raises a `LoraCoreError` for every known cause."""
    machine = runtime.start(spec.runtime)
    base = locate(spec.base, spec.base_revision)
    fit.check(base.config, spec)
    spec = _on(resolved(spec, base.config), machine)
    splits = load(spec.data)
    family = base.family
    model, kept = load_classifier(
        base,
        splits.labels,
        encoder_dropout=spec.optim.encoder_dropout,
        head_dropout=spec.optim.head_dropout,
    )
    if kept:
        _note(observer, "head_kept", "The base answers the same labels; its head is trained on.")
    base_sha256 = fingerprint(model, family)
    method = methods.build(spec.method)
    method.prepare(model, family)
    shorten(model, family)
    if unfused.pays(machine.device, machine.precision):
        unfused.use(model)
    if spec.runtime.gradient_checkpointing:
        recompute(model, family)
    model.to(machine.device)
    if machine.precision == "bf16":
        held.hold(blocks(model, family), torch.bfloat16)

    pulse.enter(Phase.TOKENISING)
    tokenizer_file = base.directory / "tokenizer.json"
    if splits.leaked:
        text = f"{splits.leaked} validation or test texts are in the training part as well."
        _note(observer, "leaked", text, level="warning")
    parts, cut = tokenise_parts(splits, tokenizer_file, spec.data.max_length or MAX_LENGTH)
    if cut:
        text = f"{cut:.1%} of the texts have over {spec.data.max_length} tokens and were cut."
        _note(observer, "truncated", text)
    task = SequenceClassification(
        spec.task,
        splits.labels,
        np.bincount(parts[Split.TRAIN].labels, minlength=len(splits.labels)).tolist(),
    )
    forward = choose(
        model,
        machine,
        family,
        parts,
        encoder_dropout=spec.optim.encoder_dropout,
        budget=spec.optim.micro_batch_tokens,
        pulse=pulse,
    )
    return Prepared(
        spec,
        machine,
        splits,
        parts,
        cut,
        model,
        family,
        method,
        task,
        forward,
        tokenizer_file,
        base_sha256,
    )


def resolved(spec: TrainSpec, config: dict[str, Any]) -> TrainSpec:
    """The same spec with what depends on the base decided."""
    shape = fit.read_shape(config, base=spec.base)
    length = spec.data.max_length or min(MAX_LENGTH, shape.positions)
    rate = spec.optim.learning_rate or default_rate(spec.method, shape.width)
    return spec.model_copy(
        update={
            "data": spec.data.model_copy(update={"max_length": length}),
            "optim": spec.optim.model_copy(update={"learning_rate": rate}),
        }
    )


def _on(spec: TrainSpec, machine: Runtime) -> TrainSpec:
    """The same spec with what depends on the machine decided."""
    used = {"device": machine.device, "precision": machine.precision, "threads": machine.threads}
    return spec.model_copy(update={"runtime": spec.runtime.model_copy(update=used)})


def tokenise_parts(
    splits: Splits, tokenizer_file: Path, max_length: int
) -> tuple[dict[Split, Part], float]:
    """All parts as token ids, and the share of texts that were cut."""
    pad = load_tokenizer(tokenizer_file).token_to_id("[PAD]") or 0
    parts: dict[Split, Part] = {}
    cut = total = 0
    for split in Split:
        examples = splits.part(split)
        tokens = tokenise(tokenizer_file, [e.text for e in examples], max_length)
        labels = np.array([e.label for e in examples], dtype=np.int64)
        parts[split] = Part(split, tokens, tokens.lengths, labels, pad)
        cut += tokens.truncated
        total += len(examples)
    return parts, cut / total


def _note(
    observer: Observer, code: str, message: str, level: Literal["info", "warning"] = "info"
) -> None:
    observer.on_event(Noted(level=level, code=code, message=message))
