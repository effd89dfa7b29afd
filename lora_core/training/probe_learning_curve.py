"""The learning curve of a run on a base: would more labels help?

It is measured with a probe, if there is one target and the pass of the frozen base over the texts
that this needs is cheap, and with the linear model otherwise.
"""

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from lora_core import compatibility, cost_model, distributed, manifest
from lora_core.data import learning_curve as curve
from lora_core.data.batching import length_sorted_batches
from lora_core.data.more_labels_estimate import (
    MoreLabelsEstimate,
    estimate_if_curve_impossible,
)
from lora_core.data.rows import TextRow
from lora_core.events import Phase
from lora_core.fast import feature_cache
from lora_core.progress_reporter import ProgressReporter, run_in_thread_with_progress
from lora_core.specs.data import Split
from lora_core.training.linear import distinct_training_rows, estimate_label_gain_with_linear
from lora_core.training.prepare import PreparedRun

# Limit for one pass of the base: about two seconds of two idle cores, or of a GPU.
PASS_FLOPS = {"cpu": 1e12, "cuda": 1e14}


def estimate_label_gain(
    prepared: PreparedRun, progress: ProgressReporter
) -> MoreLabelsEstimate | None:
    """Return the learning curve of a run before it is trained, while its base is unchanged.

    Return None for a partial run, and on all ranks but 0. Raises `DiskFull`, `StopRequested`.
    """
    if prepared.spec.trial is not None or not distributed.is_main_process():
        return None
    task_type = prepared.task.type
    distinct = distinct_training_rows(prepared.splits, prepared.task)
    with_linear = partial(
        estimate_label_gain_with_linear, distinct, prepared.splits, prepared.task, progress
    )
    estimate = estimate_if_curve_impossible([row.label for row in distinct], task_type)
    if estimate is not None:
        return estimate
    if task_type == "several_targets":
        return with_linear()
    sample = curve.subsample_for_curve(distinct, task_type)
    if not _encoder_pass_is_cheap(prepared, sample):
        return with_linear()
    progress.enter_phase(Phase.LEARNING_CURVE)
    facts = {
        "basis": "probe",
        "data": prepared.splits.digest,
        "base": prepared.base_sha256,
        "tokenizer": manifest.file_sha256(prepared.tokenizer_file),
        "config": feature_cache.serialize_encoder_config(prepared.model),
        "max_length": prepared.max_length,
        "precision": prepared.runtime.precision,
        **({} if task_type == "single_label" else {"task": task_type}),
        **({"long_texts": "windows"} if prepared.spec.data.long_texts == "windows" else {}),
    }

    def measure() -> MoreLabelsEstimate:
        vectors = _pooled_vectors(prepared, sample, progress)
        if not np.isfinite(vectors).all():  # training fails with an error of its own
            return with_linear()
        task, targets = curve.build_task_and_targets(sample, task_type)
        learner = curve.probe_learner(vectors, task, targets)
        return run_in_thread_with_progress(
            progress,
            lambda: curve.measure_and_extrapolate_curve(
                learner, task, targets, texts=len(distinct), basis="probe"
            ),
        )

    return curve.load_or_compute_estimate(facts, measure)


def _encoder_pass_is_cheap(prepared: PreparedRun, rows: list[TextRow]) -> bool:
    """Return whether a pass of the base over these texts takes at most some seconds."""
    lengths = prepared.tokenized[Split.TRAIN].lengths[[row.number for row in rows]].astype(float)
    shape = compatibility.read_encoder_shape(
        prepared.model.config.to_dict(), base=prepared.family.model_type
    )
    per_token = cost_model.forward_flops_per_token(shape, length=(lengths**2).sum() / lengths.sum())
    limit = PASS_FLOPS["cpu" if prepared.runtime.device == "cpu" else "cuda"]
    return bool(per_token * lengths.sum() <= limit)


@torch.no_grad()
def _pooled_vectors(
    prepared: PreparedRun, rows: list[TextRow], progress: ProgressReporter
) -> NDArray[np.float32]:
    """Return the input of the head (texts, width) for these texts, scaled to a mean norm of 1."""
    model, data = prepared.model, prepared.tokenized[Split.TRAIN]
    numbers = np.array([row.number for row in rows])
    was_training = model.training
    model.eval()
    x = torch.zeros(len(rows), model.config.hidden_size)
    budget = prepared.spec.optim.micro_batch_tokens
    for batch in length_sorted_batches(data.lengths[numbers], budget):
        x[batch] = prepared.forward.pooled_states(data, numbers[batch].tolist()).float().cpu()
        progress.tick()
    model.train(was_training)
    norm = float(x.norm(dim=1).mean()) or 1.0
    vectors: NDArray[np.float32] = (x / norm).numpy()
    return vectors
