"""One run of the method `linear`, from its spec to a finished artifact. Needs no torch.

The linear model is TF-IDF + logistic regression or, for numbers, ridge regression. Fitting it takes
seconds, so there are no checkpoints: an interrupted run starts again from the beginning.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from lora_core import compatibility, manifest, nearest_examples
from lora_core.atomic_files import is_disk_full
from lora_core.cross_validation import (
    AutoSelectionResult,
    LinearCrossValidator,
    Logits,
    trainable_examples,
    uses_cross_validated_verdict,
)
from lora_core.data import learning_curve as curve
from lora_core.data.duplicates import group_duplicates
from lora_core.data.linear_baseline import (
    MAX_CHARACTERS,
    fit_linear_model,
    subsample_to_max_characters,
)
from lora_core.data.load import load_splits
from lora_core.data.more_labels_estimate import (
    MoreLabelsEstimate,
    estimate_if_curve_impossible,
)
from lora_core.data.rows import TextRow
from lora_core.data.split import Example, Splits, notes_on_prompt_format_and_leaks
from lora_core.errors.training import DiskFull, LinearFitOutOfMemory
from lora_core.events import (
    Evaluated,
    Finished,
    NoteLogged,
    Observer,
    Phase,
    Started,
    StopSignal,
    replace_nonfinite_with_none,
)
from lora_core.failpoints import failpoint
from lora_core.inference.linear import LINEAR_ENGINE
from lora_core.linear import files
from lora_core.linear.model import LinearModel, fill_in_min_df
from lora_core.nearest_examples import ExampleIndex, SparseVectors
from lora_core.process_settings import available_cores, is_oom_error
from lora_core.progress_reporter import ProgressReporter, run_in_thread_with_progress
from lora_core.results import Verdict
from lora_core.saved_predictions import SplitLogits, save_golden_predictions, save_predictions
from lora_core.specs.data import Split
from lora_core.specs.method import LinearSpec
from lora_core.specs.train import TrainSpec
from lora_core.tasks.base import Calibration, Task
from lora_core.tasks.build import build_task
from lora_core.tasks.primary_metric import Predictions
from lora_core.training.correctness import grade_predictions, save_misclassified
from lora_core.verdict import build_verdict

_STEPS = 1


def train_linear(
    spec: TrainSpec,
    *,
    out_dir: Path,
    observer: Observer,
    stop: StopSignal,
    selected: AutoSelectionResult | None = None,
) -> dict[str, Any]:
    """Fit, evaluate and save a linear model; return the summary.

    `selected`: how `auto` selected the method, if it did. Raises a `LoraCoreError` for every known
    cause.
    """
    started = selected.started if selected else time.monotonic()
    method = spec.method
    if not isinstance(method, LinearSpec):
        raise TypeError(f"{method.type} is trained by `train_encoder`")
    compatibility.check_method_supports_partial_run(spec)
    progress = ProgressReporter(observer, stop)
    progress.enter_phase(Phase.LOADING)
    with _translate_errors():
        failpoint("loading")
        splits = selected.splits if selected else load_splits(spec.data, spec.task)
        spec = spec.with_prompt_format(splits.prompt_format)
        task = build_task(spec.task, splits.labels, [each.label for each in splits.train])
        train = _training_examples(splits, observer)
        method = fill_in_min_df(method, [example.input for example in train])
        spec = _with_resolved_settings(spec, method)
        progress.enter_phase(Phase.TRAINING)
        fit_started = time.monotonic()
        model = run_in_thread_with_progress(
            progress,
            lambda: fit_linear_model(train, method, task, balanced=spec.balanced),
        )
        fit_seconds = time.monotonic() - fit_started
        if not model.converged:
            text = "The fit was stopped before it had converged; a smaller C converges sooner."
            observer.on_event(NoteLogged(level="warning", code="not_converged", message=text))
        observer.on_event(_started_event(spec, splits, task, model))
        progress.enter_phase(Phase.EVALUATING, _STEPS)
        cross_validated = selected.cross_validated if selected else None
        logits = run_in_thread_with_progress(
            progress, lambda: _compute_logits(spec, splits, model, cross_validated)
        )
        calibration, metrics = _compute_metrics(splits, task, logits, observer)
        summary = {**_run_summary(splits, task, train, model, fit_seconds), **metrics}
        summary |= selected.summary() if selected else {}
        distinct = distinct_training_rows(splits, task)
        more_labels = estimate_label_gain_with_linear(distinct, splits, task, progress)
        summary["more_labels"] = more_labels.model_dump(mode="json")
        if spec.result.model:
            progress.enter_phase(Phase.VERDICT, _STEPS)
            predicted = task.predict(logits[Split.TEST], calibration)
            verdict = _verdict(spec, method, splits, task, predicted, selected, progress)
            summary["verdict"] = verdict.model_dump(mode="json")
        progress.enter_phase(Phase.SAVING, _STEPS)
        failpoint("saving")
        out_dir.mkdir(parents=True, exist_ok=True)
        correctness = {}
        for split in (Split.VALIDATION, Split.TEST):
            examples, rows = splits.examples_of(split), logits[split]
            predicted = task.predict(rows, calibration)
            save_predictions(
                out_dir, split, examples, rows, map(task.prediction_to_target, predicted)
            )
            correctness[split] = grade_predictions(examples, task, predicted)
            if spec.result.model:
                save_misclassified(out_dir, split, examples, rows, task, calibration)
        facts: dict[str, Any] = {}
        if spec.result.model:
            files.save_parameters(out_dir, model.parameters)
            if model.parameters.terms:
                # Cross-validated texts are validation texts that the model was trained on.
                held_out = Split.VALIDATION if cross_validated is None else Split.TEST
                index = _example_index(splits, task, model, held_out)
                nearest_examples.save_index(out_dir, index)
                facts[nearest_examples.MANIFEST_KEY] = index.manifest_entry()
            save_golden_predictions(
                out_dir, [example.input for example in splits.test], logits[Split.TEST]
            )
        summary["total_seconds"] = round(time.monotonic() - started, 2)
        facts |= {
            "labels": list(task.labels),
            "calibration": calibration.model_dump(mode="json", exclude={"fitted"}),
            "correctness": correctness,
        }
        manifest.create_and_save(out_dir, {**_manifest(spec, splits, summary), **facts})
    observer.on_event(Finished(summary=summary))
    return summary


def estimate_label_gain_with_linear(
    distinct: Sequence[TextRow], splits: Splits, task: Task, progress: ProgressReporter
) -> MoreLabelsEstimate:
    """Return the learning curve of a linear model on the training split, cached.

    It answers whether more labels would help. `distinct` are the `distinct_training_rows`. Raises
    `DiskFull`, `StopRequested`.
    """
    estimate = estimate_if_curve_impossible([row.label for row in distinct], task.type)
    if estimate is not None:
        return estimate
    progress.enter_phase(Phase.LEARNING_CURVE)
    facts = {"basis": "linear", "data": splits.digest}
    if task.type != "single_label":
        facts["task"] = task.type
    return run_in_thread_with_progress(
        progress,
        lambda: curve.load_or_compute_estimate(
            facts, lambda: curve.estimate_gain_of_more_labels(distinct, task.type)
        ),
    )


def distinct_training_rows(splits: Splits, task: Task) -> list[TextRow]:
    """Return the first row of each distinct training text. Row numbers are training indices."""
    rows = [
        TextRow(i, each.text, task.target_to_label(each.label), pair=each.pair)
        for i, each in enumerate(splits.train)
    ]
    return group_duplicates(rows)[0]


@contextmanager
def _translate_errors() -> Iterator[None]:
    """Raise `DiskFull` or `LinearFitOutOfMemory` in place of errors with that cause."""
    try:
        yield
    except (MemoryError, OSError, SafetensorError) as error:
        if is_disk_full(error):
            raise DiskFull(what="the model") from error
        if is_oom_error(error):
            raise LinearFitOutOfMemory() from error
        raise


def _with_resolved_settings(spec: TrainSpec, method: LinearSpec) -> TrainSpec:
    used = {"device": "cpu", "threads": spec.runtime.threads or available_cores()}
    runtime = spec.runtime.model_copy(update=used)
    return spec.model_copy(update={"method": method, "runtime": runtime})


def _training_examples(splits: Splits, observer: Observer) -> list[Example]:
    """Return the training split, or a sample of it that fits in memory."""
    for note in notes_on_prompt_format_and_leaks(splits):
        observer.on_event(note)
    train = subsample_to_max_characters(splits.train, len(splits.labels))
    if len(train) < len(splits.train):
        text = (
            f"The model is trained on {len(train):,} of the {len(splits.train):,} training texts, "
            f"because together they have more than {MAX_CHARACTERS:,} characters."
        )
        observer.on_event(NoteLogged(level="warning", code="training_texts_drawn", message=text))
    return train


def _started_event(spec: TrainSpec, splits: Splits, task: Task, model: LinearModel) -> Started:
    return Started(
        total_steps=_STEPS,
        trainable_parameters=_count_parameters(model),
        total_parameters=_count_parameters(model),
        examples={split: len(splits.examples_of(split)) for split in Split},
        labels=list(task.labels),
        device="cpu",
        precision=LINEAR_ENGINE.name.rpartition("-")[2],
        threads=spec.runtime.threads or available_cores(),
        learning_rate=None,
    )


def _count_parameters(model: LinearModel) -> int:
    return model.parameters.coef.size + model.parameters.intercept.size


def _compute_logits(
    spec: TrainSpec, splits: Splits, model: LinearModel, cross_validated: Logits | None
) -> SplitLogits:
    """Return logits of validation and test, and of the training split if the spec asks for it.

    Those of validation are cross-validated, if the model was trained on its texts.
    """
    wanted = [Split.VALIDATION, Split.TEST]
    wanted += [Split.TRAIN] if spec.result.train_metrics else []
    return {
        split: cross_validated
        if split is Split.VALIDATION and cross_validated is not None
        else model.logits([each.input for each in splits.examples_of(split)]).astype(np.float32)
        for split in wanted
    }


def _compute_metrics(
    splits: Splits, task: Task, logits: SplitLogits, observer: Observer
) -> tuple[Calibration, dict[str, Any]]:
    """Return the calibration, fitted on validation alone, and the metrics of each split."""
    targets = {
        split: task.targets([each.label for each in splits.examples_of(split)]) for split in logits
    }
    calibration = task.calibrate(logits[Split.VALIDATION], targets[Split.VALIDATION])
    calibrated = calibration.model_dump(mode="json")
    metrics: dict[str, Any] = {"calibration": calibrated}
    for split, rows in logits.items():
        report = task.report(rows, targets[split], calibration)
        metrics[split.value] = report
        if split is not Split.TRAIN:
            calibrated[split] = task.evaluate_calibration(rows, targets[split], calibration)
            best = split is Split.VALIDATION
            curve_metrics = replace_nonfinite_with_none(task.select_logged_metrics(report))
            observer.on_event(Evaluated(step=_STEPS, split=split, metrics=curve_metrics, best=best))
    return calibration, metrics


def _verdict(  # noqa: PLR0913
    spec: TrainSpec,
    method: LinearSpec,
    splits: Splits,
    task: Task,
    predicted: Predictions,
    selected: AutoSelectionResult | None,
    progress: ProgressReporter,
) -> Verdict:
    """Return the verdict on the test split or, with few texts, by cross-validation."""
    examples = trainable_examples(spec, splits)
    references = {"probe": selected.probe} if selected and selected.probe else {}
    training_targets = task.targets([each.label for each in examples])
    if not uses_cross_validated_verdict(spec, examples):
        targets = task.targets([each.label for each in splits.test])
        return build_verdict(
            task, targets, predicted, references, training_targets=training_targets
        )
    cross_validation = LinearCrossValidator(spec, splits.labels, examples, progress)
    cross_fitted = selected.cross_fitted if selected else None
    return build_verdict(
        cross_validation.task,
        cross_validation.targets,
        cross_validation.predict_held_out(method) if cross_fitted is None else cross_fitted,
        references,
        training_targets=training_targets,
        measured_on="cross_validation",
    )


def _example_index(splits: Splits, task: Task, model: LinearModel, held_out: Split) -> ExampleIndex:
    """Return the TF-IDF of a sample of training texts, to find the nearest ones of a text."""
    train = [splits.train[i] for i in nearest_examples.sample_example_indices(splits.train)]
    examples = splits.examples_of(held_out)
    others = [examples[i] for i in nearest_examples.sample_held_out_indices(len(examples))]
    vectors = SparseVectors.from_states(model.features([each.input for each in train]))
    states = model.features([each.input for each in others])
    return nearest_examples.build_index(train, task, vectors, held_out, states)


def _run_summary(
    splits: Splits, task: Task, train: Sequence[Example], model: LinearModel, seconds: float
) -> dict[str, Any]:
    return {
        "labels": list(task.labels),
        "trainable_parameters": _count_parameters(model),
        "total_parameters": _count_parameters(model),
        "terms": len(model.parameters.terms),
        "examples": {split: len(splits.examples_of(split)) for split in Split}
        | {Split.TRAIN: len(train)},
        "steps": _STEPS,
        "best_step": _STEPS,
        "train_seconds": round(seconds, 2),
        "reviews_per_second": round(len(train) / max(seconds, 1e-3), 2),
    }


def _manifest(spec: TrainSpec, splits: Splits, summary: dict[str, Any]) -> dict[str, Any]:
    return {
        "format": manifest.FORMAT_VERSION,
        "created_by": manifest.installed_library_versions(),
        "spec": spec.model_dump(mode="json"),
        "data_sha256": splits.digest,
        "metrics": summary,
    }
