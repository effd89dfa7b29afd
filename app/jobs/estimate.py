"""Estimate how long a job takes: its floating-point operations divided by the measured speed.

The speed is that of the latest jobs. The estimate helps to decide before anything is trained: a run
on another device or with shorter texts has another speed, and a run may stop early. It excludes the
wait in the queue.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from app.jobs.data_sources import ALL_ROWS, ResolvedData
from app.queue.enums import DeviceClass
from lora_core import cost_model, model_selection
from lora_core.compatibility import EncoderShape
from lora_core.cost_model import (
    ATTENDED_LENGTH_RATIO,
    DEFAULT_FLOPS_PER_SECOND,
    CostModel,
)
from lora_core.linear.files import count_weight_rows, max_terms_for_weight_rows
from lora_core.resolve_defaults import (
    HEAD_INIT_MAX_TEXTS,
    resolve_epochs_and_batch_size,
    resolve_head_init,
)
from lora_core.specs.data import Split, resolve_split_size
from lora_core.specs.method import AutoSpec, CandidateSpec
from lora_core.specs.task import TaskType
from lora_core.specs.train import HeadInit, TrainSpec

# FLOP/s until a job has finished here. A job for any device may get the slow one.
DEFAULT_SPEEDS: Mapping[DeviceClass, float] = {
    DeviceClass.CPU: DEFAULT_FLOPS_PER_SECOND["cpu"],
    DeviceClass.GPU: DEFAULT_FLOPS_PER_SECOND["cuda"],
    DeviceClass.ANY: DEFAULT_FLOPS_PER_SECOND["cpu"],
}
STARTUP_SECONDS = 12.0  # interpreter, libraries, model, artifact
_LINEAR_MODEL_MAX_TEXTS = 20_000  # the linear model beside a run is fitted on at most these

_LINEAR_STARTUP_SECONDS = 3.0  # for a linear model, which does not load torch
_TERMS_PER_TOKEN = 0.12  # words and word pairs that occur at least twice, measured on the samples


@dataclass(frozen=True)
class JobCost:
    """The estimated cost of a job. `flops_per_token` is a mean over all tokens of the training."""

    seconds: int
    flops_per_token: float
    startup_seconds: float = STARTUP_SECONDS  # included in `seconds`; before anything is computed


def estimate_encoder_cost(
    spec: TrainSpec,
    *,
    shape: EncoderShape,
    data: ResolvedData,
    speed: float,
    completed_share: float = 0.0,
) -> JobCost:
    """Estimate the cost of a training job.

    `speed` is in FLOP/s. `completed_share` is the share of the steps that another job, which this
    one continues, has already made.
    """
    length = data.mean_tokens * ATTENDED_LENGTH_RATIO
    texts = split_sizes(data)
    epochs, _ = resolve_epochs_and_batch_size(spec.optim, texts[Split.TRAIN])
    training = cost_model.training_flops_per_token(shape, spec.encoder_method, length=length)
    forward = cost_model.forward_flops_per_token(shape, length=length)
    # Blocks below the lowest trained one run once per text (lora_core/fast/frozen_encoder.py).
    frozen_fraction = (
        cost_model.fraction_of_blocks_below_lowest_trained(shape, spec.encoder_method)
        if spec.optim.encoder_dropout == 0
        else 0.0
    )
    frozen = forward * frozen_fraction
    if spec.runtime.gradient_checkpointing:
        training += forward - frozen
    share = (spec.trial.budget if spec.trial else 1.0) - completed_share
    # A run that continues has its head in the checkpoint.
    fits_head = resolve_head_init(spec) is HeadInit.PROBE and not completed_share
    once = sum(texts.values()) * frozen
    once += fits_head * min(texts[Split.TRAIN], HEAD_INIT_MAX_TEXTS) * (forward - frozen)
    operations = (
        once
        + share * epochs * texts[Split.TRAIN] * (training - frozen)
        + _evaluated_texts(spec, texts, epochs, completed_share) * (forward - frozen)
    )
    linear_texts = 0 if spec.trial else min(texts[Split.TRAIN], _LINEAR_MODEL_MAX_TEXTS)
    of_a_token = cost_model.linear_model_seconds_per_token(spec.task.type, data.likely_label_count)
    linear_seconds = linear_texts * of_a_token * data.mean_tokens
    seconds = STARTUP_SECONDS + linear_seconds + operations * data.mean_tokens / speed
    trained_texts = epochs * max(1, texts[Split.TRAIN])
    per_token = training - frozen + once / trained_texts
    return JobCost(seconds=round(seconds), flops_per_token=per_token)


def plan_auto_candidates(
    spec: TrainSpec, auto: AutoSpec, *, shape: EncoderShape, data: ResolvedData, speed: float
) -> tuple[tuple[CandidateSpec, ...], JobCost]:
    """Return the candidates to cross-validate, and the cost of all of it.

    They are those of the spec, or else as many as the time budget allows. The slowest candidate may
    be the one that is trained at the end.
    """
    sizes = split_sizes(data)
    has_validation = Split.VALIDATION.value in data.rows or spec.data.train_size is not None
    texts = max(1, sizes[Split.TRAIN] + (0 if has_validation else sizes[Split.VALIDATION]))
    labels = data.likely_label_count
    costs = CostModel(shape, spec.optim, data.mean_tokens, speed, spec.task.type, labels)
    candidates = auto.candidates or model_selection.plan_candidates(
        texts, auto.time_budget, costs.seconds, task=spec.task
    )
    seconds = model_selection.estimate_selection_seconds(candidates, texts, costs.seconds)
    test_tokens = sizes[Split.TEST] * data.mean_tokens
    length = data.mean_tokens * ATTENDED_LENGTH_RATIO
    seconds += test_tokens * cost_model.forward_flops_per_token(shape, length=length) / speed
    return candidates, JobCost(round(STARTUP_SECONDS + seconds), 0.0)


def estimate_linear_parameters(data: ResolvedData, task: TaskType) -> int:
    """Estimate roughly how many parameters a linear model of these texts has."""
    rows = count_weight_rows(data.likely_label_count, single_label=task == "single_label")
    tokens = split_sizes(data)[Split.TRAIN] * data.mean_tokens
    return (min(max_terms_for_weight_rows(rows), round(_TERMS_PER_TOKEN * tokens)) + 1) * rows


def estimate_linear_cost(data: ResolvedData, task: TaskType) -> JobCost:
    """Estimate the cost of a linear model, which is fitted in one step."""
    tokens = sum(split_sizes(data).values()) * data.mean_tokens
    seconds = tokens * cost_model.linear_model_seconds_per_token(task, data.likely_label_count)
    return JobCost(round(_LINEAR_STARTUP_SECONDS + seconds), 0.0, _LINEAR_STARTUP_SECONDS)


def extrapolate_whole_run_seconds(part: int, share: float) -> int:
    """Return the estimate for a whole run from that for a share of its steps."""
    startup = min(STARTUP_SECONDS, part)
    return round(startup + (part - startup) / share)


def remaining_seconds(whole: int, completed_share: float) -> int:
    """Return the estimate for the rest of a run, which starts as the whole one does."""
    startup = min(STARTUP_SECONDS, whole)
    return round(startup + (whole - startup) * (1 - completed_share))


def _evaluated_texts(
    spec: TrainSpec, texts: Mapping[Split, int], epochs: int, completed_share: float
) -> int:
    """Return how many texts the evaluations during and after the training classify."""
    evaluations = epochs * spec.stop.evaluations_per_epoch
    end_share = spec.trial.budget if spec.trial else 1.0
    during = int(end_share * evaluations) - int(completed_share * evaluations)
    validation = texts[Split.VALIDATION]
    if spec.trial is not None:
        final = min(validation, spec.trial.validation_texts or validation)
    else:
        final = texts[Split.TEST] + spec.result.train_metrics * texts[Split.TRAIN]
    return during * validation + final


def median_speed_or_default(speeds: Iterable[float], device_class: DeviceClass) -> float:
    """Return the median of the speeds of the latest jobs in FLOP/s, or the default."""
    positive = [speed for speed in speeds if speed > 0]
    return median(positive) if positive else DEFAULT_SPEEDS[device_class]


def split_sizes(data: ResolvedData) -> dict[Split, int]:
    """Return the texts per split. Splits that are not given are drawn from the training rows."""
    spec = data.spec
    remaining = all_rows = data.rows.get(ALL_ROWS, data.rows.get(Split.TRAIN.value, 0))
    sizes: dict[Split, int] = {}
    for split, requested in (
        (Split.VALIDATION, spec.validation_size),
        (Split.TEST, spec.test_size),
    ):
        size = data.rows.get(split.value)
        if size is None:
            size = resolve_split_size(requested, all_rows)
            remaining -= size
        sizes[split] = size
    train = remaining if spec.train_size is None else resolve_split_size(spec.train_size, all_rows)
    sizes[Split.TRAIN] = max(0, min(remaining, train))
    return sizes
