"""Everything that a run needs before its first step: data, model, method, token ids."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from lora_core import compatibility, fine_tuning_methods, resolve_defaults, runtime_environment
from lora_core.artifact import resolve_base_or_artifact
from lora_core.data.data_report import format_count
from lora_core.data.load import load_splits
from lora_core.data.split import Splits, notes_on_prompt_format_and_leaks
from lora_core.data.tokens import (
    TokenizedSplit,
    check_tokenizer_adds_special_tokens,
    load_tokenizer,
    tokenize_with_cache,
)
from lora_core.data.windows import max_tokens_read
from lora_core.encoders.encoder_parts import enable_gradient_checkpointing
from lora_core.encoders.families import EncoderFamily
from lora_core.encoders.load import encoder_weights_sha256, load_classifier
from lora_core.encoders.pooling import set_pooling
from lora_core.encoders.safety import check_has_fast_tokenizer
from lora_core.events import NoteLogged, Observer, Phase
from lora_core.fast.optimize import optimize
from lora_core.fine_tuning_methods import FineTuningMethod
from lora_core.forward import Forward, WindowedForward
from lora_core.progress_reporter import ProgressReporter
from lora_core.runtime import Runtime, setup_runtime
from lora_core.specs.data import Split
from lora_core.specs.method import ProbeSpec
from lora_core.specs.train import HeadInit, TrainSpec
from lora_core.tasks.base import Task
from lora_core.tasks.build import build_task
from lora_core.tasks.loss import Loss, build_loss


@dataclass(frozen=True)
class PreparedRun:
    """A run that is ready to start."""

    spec: TrainSpec  # with every default filled in
    learning_rate: float
    max_length: int  # tokens of a text
    runtime: Runtime
    splits: Splits
    tokenized: dict[Split, TokenizedSplit]
    truncated_share: float  # of the texts
    model: PreTrainedModel
    family: EncoderFamily
    method: FineTuningMethod
    task: Task
    loss: Loss
    forward: Forward
    tokenizer: Tokenizer
    tokenizer_file: Path  # that it was loaded from
    base_sha256: str
    # Validation logits by cross-validation. If given, training does not evaluate on that split.
    cross_validated: NDArray[np.float32] | None = None


def prepare_run(
    spec: TrainSpec,
    observer: Observer,
    progress: ProgressReporter,
    splits: Splits | None = None,
    cross_validated: NDArray[np.float32] | None = None,
) -> PreparedRun:
    """Load and check everything, cheapest first. Raises a `LoraCoreError` for every known cause.

    `splits` replaces the data that the spec describes.
    """
    runtime = setup_runtime(spec.runtime)
    base = resolve_base_or_artifact(spec.encoder_base, spec.base_revision)
    check_has_fast_tokenizer(base.name, (path.name for path in base.directory.iterdir()))
    shape = compatibility.read_encoder_shape(base.config, base=base.name, pooling=spec.pooling)
    compatibility.check_compatibility(shape, spec)
    if compatibility.ignores_declared_mean(base.config, shape, spec.pooling):
        text = (
            f"The base declares mean pooling (1_Pooling/config.json), which is not available for "
            f"{shape.family.model_type}: the head reads what its class in transformers reads, "
            "usually the first token. With few texts, expect more of a base with mean pooling."
        )
        _note(observer, "declared_pooling_unused", text, level="warning")
    splits = splits or load_splits(spec.data, spec.task)
    spec = spec.with_prompt_format(splits.prompt_format)
    counts = {split: len(splits.examples_of(split)) for split in Split}
    family = base.family
    task = build_task(spec.task, splits.labels, [each.label for each in splits.train])
    model, head_kept = load_classifier(
        base,
        task.labels,
        task.problem_type,
        encoder_dropout=spec.optim.encoder_dropout,
        head_dropout=spec.optim.head_dropout,
    )
    fits_head = spec.head_init is HeadInit.PROBE or isinstance(spec.method, ProbeSpec)
    if head_kept and not fits_head:
        spec = spec.model_copy(update={"head_init": HeadInit.RANDOM})
        text = "The base has a head for the same labels; training continues from that head."
        _note(observer, "head_kept", text)
    spec, learning_rate, max_length = resolve_defaults.resolve_defaults(spec, shape, counts)
    spec = _with_resolved_runtime(spec, runtime)
    # The order matters from here on. The base is hashed before injection renames its layers. A is
    # drawn on the CPU, so that it is the same on every device. `optimize` copies weights
    # on the device. `enable_gradient_checkpointing` wraps the blocks as they are, so it comes last.
    set_pooling(model, family, spec.pooling)
    base_sha256 = encoder_weights_sha256(model, family)
    method = fine_tuning_methods.build_method(spec.encoder_method)
    method.prepare(model, family)
    model.to(runtime.device)

    progress.enter_phase(Phase.TOKENIZING)
    tokenizer_file = base.directory / "tokenizer.json"
    tokenizer = load_tokenizer(tokenizer_file)
    check_tokenizer_adds_special_tokens(tokenizer, base.name, pairs=splits.are_pairs)
    for note in notes_on_prompt_format_and_leaks(splits):
        observer.on_event(note)
    # The padding id of the model, not of its tokenizer: some embeddings depend on it.
    pad_id = model.config.pad_token_id or 0
    longest = max_tokens_read(max_length, spec.data.long_texts)
    tokenized, truncated_share = tokenize_splits_and_measure_truncation(
        splits, task, tokenizer, longest, pad_id, segments=shape.segments > 1
    )
    in_windows = spec.data.long_texts == "windows"
    if in_windows:
        tokenized = {split: data.in_windows(max_length) for split, data in tokenized.items()}
    if truncated_share:
        total = sum(counts.values())
        truncated = f"{round(truncated_share * total):,} of {format_count(total, 'text')}"
        text = f"Truncated {truncated} to {longest:,} tokens."
        _note(observer, "truncated", text)
    forwarded = set(Split) if cross_validated is None else {Split.TRAIN, Split.TEST}
    forward = optimize(
        model,
        family,
        runtime,
        {split: data.windows or data for split, data in tokenized.items() if split in forwarded},
        encoder_dropout=spec.optim.encoder_dropout,
        micro_batch_tokens=spec.optim.micro_batch_tokens,
        progress=progress,
        environment=runtime_environment.describe_environment(
            runtime, spec.optim.micro_batch_tokens
        ),
    )
    if in_windows:
        forward = WindowedForward(forward)
    if spec.runtime.gradient_checkpointing:
        enable_gradient_checkpointing(model, family)
    return PreparedRun(
        spec=spec,
        learning_rate=learning_rate,
        max_length=max_length,
        runtime=runtime,
        splits=splits,
        tokenized=tokenized,
        truncated_share=truncated_share,
        model=model,
        family=family,
        method=method,
        task=task,
        loss=build_loss(spec.task, task, tokenized[Split.TRAIN].targets),
        forward=forward,
        tokenizer=tokenizer,
        tokenizer_file=tokenizer_file,
        base_sha256=base_sha256,
        cross_validated=cross_validated,
    )


def _with_resolved_runtime(spec: TrainSpec, runtime: Runtime) -> TrainSpec:
    """Return the spec with the device, precision and threads that this machine uses."""
    used = {"device": runtime.device, "precision": runtime.precision, "threads": runtime.threads}
    return spec.model_copy(update={"runtime": spec.runtime.model_copy(update=used)})


def tokenize_splits_and_measure_truncation(
    splits: Splits,
    task: Task,
    tokenizer: Tokenizer,
    max_length: int,
    pad_id: int,
    *,
    segments: bool = False,
) -> tuple[dict[Split, TokenizedSplit], float]:
    """Return every split as token ids, and the share of texts that were truncated.

    `pad_id` is the id of the padding token, `segments` whether the encoder has two of them.
    """
    tokenized: dict[Split, TokenizedSplit] = {}
    truncated = total = 0
    for split in Split:
        examples = splits.examples_of(split)
        tokens = tokenize_with_cache(tokenizer, [e.input for e in examples], max_length)
        targets = task.targets([e.label for e in examples])
        starts = tokens.segment_starts if segments else None
        tokenized[split] = TokenizedSplit(split, tokens, tokens.lengths, targets, pad_id, starts)
        truncated += tokens.truncated
        total += len(examples)
    return tokenized, truncated / total


def _note(
    observer: Observer, code: str, message: str, *, level: Literal["info", "warning"] = "info"
) -> None:
    observer.on_event(NoteLogged(level=level, code=code, message=message))
