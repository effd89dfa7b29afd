"""Everything a run needs before its first step: data, model, method, token ids."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from lora_core import compatibility, defaults, environment, methods
from lora_core.data.load import load
from lora_core.data.records import Splits
from lora_core.data.tokenized_split import Part
from lora_core.data.tokens import check_ends, load_tokenizer, tokenise
from lora_core.encoders.base import EncoderFamily
from lora_core.encoders.gradient_checkpointing import recompute
from lora_core.encoders.load import fingerprint, load_classifier, locate
from lora_core.encoders.pooling import pool
from lora_core.events import Noted, Observer, Phase
from lora_core.fast.optimize import optimize
from lora_core.forward import BlockwiseForward
from lora_core.methods.base import Method
from lora_core.progress_reporter import Pulse
from lora_core.runtime import Runtime, start
from lora_core.specs.data import Split
from lora_core.specs.method import ProbeSpec
from lora_core.specs.train import HeadInit, TrainSpec
from lora_core.tasks.sequence_classification import SequenceClassification


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to start."""

    spec: TrainSpec  # with every default filled in
    learning_rate: float
    max_length: int  # tokens of a text
    runtime: Runtime
    splits: Splits
    parts: dict[Split, Part]
    cut: float  # share of texts that were truncated
    model: PreTrainedModel
    family: EncoderFamily
    method: Method
    task: SequenceClassification
    forward: BlockwiseForward
    tokenizer: Tokenizer
    tokenizer_file: Path  # that it was read from
    base_sha256: str
    # Logits of the validation part by cross-validation: then no model answers it during training.
    cross_validated: NDArray[np.float32] | None = None


def prepare(
    spec: TrainSpec,
    observer: Observer,
    pulse: Pulse,
    splits: Splits | None = None,
    cross_validated: NDArray[np.float32] | None = None,
) -> Prepared:
    """Load and check everything, cheapest first. Raises a `LoraCoreError` for every known cause.

    `splits`: other parts than those that the spec describes.
    """
    runtime = start(spec.runtime)
    base = locate(spec.encoder_base, spec.base_revision)
    shape = compatibility.read_shape(base.config, base=base.name, pooling=spec.pooling)
    compatibility.check(shape, spec)
    splits = splits or load(spec.data)
    texts = {split: len(splits.part(split)) for split in Split}
    family = base.family
    model, kept = load_classifier(
        base,
        splits.labels,
        encoder_dropout=spec.optim.encoder_dropout,
        head_dropout=spec.optim.head_dropout,
    )
    fitted = spec.head_init is HeadInit.PROBE or isinstance(spec.method, ProbeSpec)
    if kept and not fitted:
        spec = spec.model_copy(update={"head_init": HeadInit.RANDOM})
        _note(observer, "head_kept", "The base answers the same labels; its head is trained on.")
    spec, learning_rate, max_length = defaults.settled(spec, shape, texts)
    spec = _on(spec, runtime)
    # The order matters from here on. The base is hashed before injection renames its layers. A is
    # drawn on the CPU, so that it is the same on every device. `optimize` copies weights on the
    # device. `recompute` wraps the blocks as they are, so it comes last.
    pool(model, family, spec.pooling)
    base_sha256 = fingerprint(model, family)
    method = methods.build(spec.encoder_method)
    method.prepare(model, family)
    model.to(runtime.device)

    pulse.enter(Phase.TOKENISING)
    tokenizer_file = base.directory / "tokenizer.json"
    tokenizer = load_tokenizer(tokenizer_file)
    check_ends(tokenizer, base.name)
    if splits.leaked:
        text = f"{splits.leaked} validation or test texts are in the training part as well."
        _note(observer, "leaked", text, level="warning")
    # Of the model, not of its tokenizer: some embeddings go by it.
    parts, cut = tokenise_parts(splits, tokenizer, max_length, model.config.pad_token_id or 0)
    if cut:
        text = f"{cut:.1%} of the texts have over {max_length} tokens and were cut."
        _note(observer, "truncated", text)
    task = SequenceClassification(
        spec.task,
        splits.labels,
        np.bincount(parts[Split.TRAIN].labels, minlength=len(splits.labels)).tolist(),
    )
    read = set(Split) if cross_validated is None else {Split.TRAIN, Split.TEST}
    forward = optimize(
        model,
        family,
        runtime,
        {split: part for split, part in parts.items() if split in read},
        encoder_dropout=spec.optim.encoder_dropout,
        micro_batch_tokens=spec.optim.micro_batch_tokens,
        pulse=pulse,
        environment=environment.here(runtime, spec.optim.micro_batch_tokens),
    )
    if spec.runtime.gradient_checkpointing:
        recompute(model, family)
    return Prepared(
        spec=spec,
        learning_rate=learning_rate,
        max_length=max_length,
        runtime=runtime,
        splits=splits,
        parts=parts,
        cut=cut,
        model=model,
        family=family,
        method=method,
        task=task,
        forward=forward,
        tokenizer=tokenizer,
        tokenizer_file=tokenizer_file,
        base_sha256=base_sha256,
        cross_validated=cross_validated,
    )


def _on(spec: TrainSpec, runtime: Runtime) -> TrainSpec:
    """The same spec with what depends on the machine decided."""
    used = {"device": runtime.device, "precision": runtime.precision, "threads": runtime.threads}
    return spec.model_copy(update={"runtime": spec.runtime.model_copy(update=used)})


def tokenise_parts(
    splits: Splits, tokenizer: Tokenizer, max_length: int, pad: int
) -> tuple[dict[Split, Part], float]:
    """All parts as token ids, padded with the id `pad`, and the share of texts that were cut."""
    parts: dict[Split, Part] = {}
    cut = total = 0
    for split in Split:
        examples = splits.part(split)
        tokens = tokenise(tokenizer, [e.text for e in examples], max_length)
        labels = np.array([e.label for e in examples], dtype=np.int64)
        parts[split] = Part(split, tokens, tokens.lengths, labels, pad)
        cut += tokens.truncated
        total += len(examples)
    return parts, cut / total


def _note(
    observer: Observer, code: str, message: str, level: Literal["info", "warning"] = "info"
) -> None:
    observer.on_event(Noted(level=level, code=code, message=message))
