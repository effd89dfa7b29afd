"""The method `auto`: cross-validate its candidates, then train the best one on all texts."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.metrics import f1_score

from lora_core import compatibility, distributed, model_selection, runtime
from lora_core.artifact import resolve_base_or_artifact
from lora_core.cost_model import DEFAULT_FLOPS_PER_SECOND, CostModel, estimate_mean_tokens
from lora_core.cross_validation import (
    AutoSelectionResult,
    Logits,
    first_folds_mask,
    splits_for_references,
    trainable_examples,
    uses_cross_validated_verdict,
)
from lora_core.data.load import load_splits
from lora_core.data.split import Example, Splits
from lora_core.data.windows import max_tokens_read, mean_tokens_computed
from lora_core.errors.training import CheckpointMismatch
from lora_core.events import (
    CandidateEvaluated,
    MethodSelected,
    NullObserver,
    Observer,
    Phase,
    StopSignal,
)
from lora_core.model_selection import CandidateScores
from lora_core.progress_reporter import ProgressReporter
from lora_core.results import CandidateResult, MethodSelection
from lora_core.specs.data import Split
from lora_core.specs.method import (
    NUM_FOLDS,
    SKLEARN_METHODS,
    AutoSpec,
    CandidateSpec,
    LinearSpec,
)
from lora_core.specs.train import CheckpointSelectionAndStopSpec, SelectBy, TrainSpec
from lora_core.tasks.single_label import SingleLabel
from lora_core.training import checkpoint, linear, verdict
from lora_core.training.checkpoint import SavedCheckpoint
from lora_core.training.checkpoint_schedule import CheckpointSettings
from lora_core.training.cross_validation import AnyMethodCrossValidator
from lora_core.training.encoder import train_encoder


def train_auto(
    spec: TrainSpec,
    *,
    out_dir: Path,
    observer: Observer,
    stop: StopSignal,
    checkpoint_settings: CheckpointSettings | None = None,
    resume: Path | None = None,
) -> dict[str, Any]:
    """Select a method, then train, evaluate and save as `train_encoder` does; return the summary.

    Checkpoints are those of the selected method: a resume does not select again.
    """
    rank_observer = observer if distributed.is_main_process() else NullObserver()
    progress, started = ProgressReporter(rank_observer, stop), time.monotonic()
    with runtime.convert_resource_errors(spec):
        splits = load_splits(spec.data, spec.task)
        saved = checkpoint.read_verified(resume) if resume is not None else None
        if saved is None:
            selected = _select_method(spec, splits, rank_observer, progress, started)
        else:
            selected = _selection_from_checkpoint(spec, splits, saved, started)
    selected_spec = spec.with_method(selected.selection.method)
    if isinstance(selected_spec.method, LinearSpec):
        if not distributed.destroy_group_and_check_main():
            return {}
        if spec.result.model:
            with runtime.convert_resource_errors(spec):
                probe = verdict.fit_probe_and_predict(
                    spec,
                    splits_for_references(selected.splits, selected.cross_validated),
                    ProgressReporter(rank_observer, stop),
                )
            selected = replace(selected, probe=probe)
        return linear.train_linear(
            selected_spec, out_dir=out_dir, observer=observer, stop=stop, selected=selected
        )
    if selected.cross_validated is not None:
        stop_spec = CheckpointSelectionAndStopSpec(select_by=SelectBy.LAST)
        selected_spec = selected_spec.model_copy(update={"stop": stop_spec})
    return train_encoder(
        selected_spec,
        out_dir=out_dir,
        observer=observer,
        stop=stop,
        checkpoint_settings=checkpoint_settings,
        resume=saved,
        selected=selected,
    )


def _select_method(
    spec: TrainSpec, splits: Splits, observer: Observer, progress: ProgressReporter, started: float
) -> AutoSelectionResult:
    examples = trainable_examples(spec, splits)
    candidates = _plan_candidates(spec, examples, len(splits.labels))
    cross_validation = AnyMethodCrossValidator(spec, splits.labels, examples, progress)
    progress.enter_phase(Phase.SELECTING)
    evaluated: dict[int, _Evaluation] = {}
    # The fast methods first, so that there soon is something to see.
    for number, index in enumerate(_fast_first(candidates), start=1):
        evaluated[index] = _evaluate(candidates[index], cross_validation)
        event = CandidateEvaluated(
            number=number, of=len(candidates), result=evaluated[index].result
        )
        observer.on_event(event)
    results, scores, all_logits = zip(*(evaluated[i] for i in range(len(candidates))), strict=True)
    best = model_selection.select_candidate_index(scores)
    selection = MethodSelection(texts=len(examples), chosen=best, candidates=results)
    observer.on_event(MethodSelected(number=best + 1, method=selection.method, texts=len(examples)))
    cross_fitted = None
    all_predicted = all(each.folds == NUM_FOLDS for each in candidates)
    if all_predicted and uses_cross_validated_verdict(spec, examples):
        cross_fitted = cross_validation.predict_by_cross_fitted_choice(scores, all_logits)
    if Split.VALIDATION not in splits.drawn:
        return AutoSelectionResult(selection, splits, None, started, cross_fitted)
    splits = _with_cross_validated_split(splits, examples, candidates[best])
    predicted = first_folds_mask(examples, candidates[best].folds)
    logits = all_logits[best][0, predicted]
    return AutoSelectionResult(selection, splits, logits, started, cross_fitted)


def _selection_from_checkpoint(
    spec: TrainSpec, splits: Splits, saved: SavedCheckpoint, started: float
) -> AutoSelectionResult:
    """Return the selection that was made when the run began. Raises `CheckpointMismatch`."""
    if saved.selection is None:
        what = "its method was given by the spec, not selected by auto"
        raise CheckpointMismatch(path=saved.name, what=what)
    cross_fitted = None if saved.cross_fitted is None else saved.cross_fitted.numpy()
    if saved.cross_validated is None:
        return AutoSelectionResult(saved.selection, splits, None, started, cross_fitted)
    result = saved.selection.candidates[saved.selection.chosen]
    candidate = CandidateSpec(method=result.method, folds=result.folds, repeats=result.repeats)
    splits = _with_cross_validated_split(splits, trainable_examples(spec, splits), candidate)
    logits = saved.cross_validated.numpy()
    return AutoSelectionResult(saved.selection, splits, logits, started, cross_fitted)


def _with_cross_validated_split(
    splits: Splits, examples: tuple[Example, ...], candidate: CandidateSpec
) -> Splits:
    """Use all examples for training, and those that the candidate predicted for validation."""
    predicted = first_folds_mask(examples, candidate.folds)
    validation = tuple(each for each, keep in zip(examples, predicted, strict=True) if keep)
    # The validation texts are now in the training split as well, so they do not count as drawn.
    drawn = splits.drawn - {Split.VALIDATION}
    return replace(splits, train=examples, validation=validation, drawn=drawn)


def _plan_candidates(
    spec: TrainSpec, examples: Sequence[Example], labels: int
) -> tuple[CandidateSpec, ...]:
    """Return the candidates planned when the job was created, or plan them now."""
    if not isinstance(spec.method, AutoSpec):
        raise TypeError(f"{spec.method.type} is one method")
    if spec.method.candidates is not None:
        return spec.method.candidates
    base = resolve_base_or_artifact(spec.encoder_base, spec.base_revision)
    shape = compatibility.read_encoder_shape(base.config, base=base.name, pooling=spec.pooling)
    max_length = shape.resolve_max_length(spec.data.max_length)
    characters = sum(each.characters for each in examples) / len(examples)
    limit = max_tokens_read(max_length, spec.data.long_texts)
    device, _, _ = runtime.resolve_device(spec.runtime.device).partition(":")
    costs = CostModel(
        shape=shape,
        optim=spec.optim,
        mean_tokens=mean_tokens_computed(
            estimate_mean_tokens(characters, limit), spec.data, max_length
        ),
        flops_per_second=DEFAULT_FLOPS_PER_SECOND[device],
        task=spec.task.type,
        labels=labels,
    )
    return model_selection.plan_candidates(
        len(examples), spec.method.time_budget, costs.seconds, task=spec.task
    )


class _Evaluation(NamedTuple):
    """How well a candidate predicts held-out texts."""

    result: CandidateResult
    scores: CandidateScores
    logits: Logits


def _fast_first(candidates: Sequence[CandidateSpec]) -> list[int]:
    """Return the indices of the candidates, those of scikit-learn first."""
    return sorted(
        range(len(candidates)), key=lambda i: candidates[i].method.type not in SKLEARN_METHODS
    )


def _evaluate(candidate: CandidateSpec, cross_validation: AnyMethodCrossValidator) -> _Evaluation:
    started = time.monotonic()
    logits = cross_validation.predict_held_out_logits(candidate)
    scores = cross_validation.evaluate_logits(logits)
    seconds = time.monotonic() - started
    first_repeat, task = logits[0], cross_validation.task
    predicted = ~np.isnan(first_repeat[:, 0])
    macro_f1 = scores.value if task.metric.name == "macro_f1" else None
    if isinstance(task, SingleLabel):
        targets = cross_validation.targets[predicted]
        answers = task.predict_cross_fitted(first_repeat[predicted], targets)
        macro_f1 = float(f1_score(targets, answers, average="macro", zero_division=0.0))
    low, high = scores.interval
    result = CandidateResult(
        method=candidate.method,
        folds=candidate.folds,
        repeats=candidate.repeats,
        texts=int(scores.scored_mask.sum()),
        metric=task.metric.name,
        value=scores.value,
        accuracy=scores.value if task.metric.name == "accuracy" else None,
        low=low,
        high=high,
        macro_f1=macro_f1,
        seconds=round(seconds, 2),
    )
    return _Evaluation(result, scores, logits)
