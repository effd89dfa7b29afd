"""The linear model (TF-IDF + a linear model, `lora_core.linear`) as a baseline of every run.

It is trained on the same splits with its default settings. It takes seconds and is hard to beat on
long texts, so every run on a base model reports it next to its own result.
"""

import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from numpy.typing import NDArray
from pydantic import ValidationError
from sklearn.metrics import accuracy_score, f1_score

from lora_core.atomic_files import atomic_path
from lora_core.cache import FOLDER_LIMITS, cache_dir, evict_least_recently_used
from lora_core.data.split import (
    Example,
    Splits,
    assign_folds,
    rows_and_task_for_stratification,
    stratified_subset,
)
from lora_core.errors.data import TooFewRows
from lora_core.events import LinearModelFitted
from lora_core.linear import model as linear
from lora_core.linear.files import MAX_TERMS
from lora_core.model_selection import num_folds_to_evaluate
from lora_core.specs.fields import FrozenModel
from lora_core.specs.method import LinearSpec
from lora_core.specs.text_input import TextInput
from lora_core.tasks.base import Calibration, Logits, Task
from lora_core.tasks.multi_label import MultiLabel
from lora_core.tasks.regression import Regression
from lora_core.tasks.several_targets import SeveralTargets
from lora_core.tasks.single_label import SingleLabel
from lora_core.tasks.targets import Targets

Indices = NDArray[np.int64]

MAX_TEXTS = 20_000
MAX_FITTED_LABELS = 400_000  # texts x labels of a multi-label task, which has a fit for each label
MAX_CHARACTERS = 50_000_000  # about, of the training texts: a fit takes 17 bytes per character
SPEC = LinearSpec()
# Part of the cache key: change it to invalidate cached results.
_METRICS_VERSION = "macro F1 of the classes that occur, answers"


class LinearBaselineResult(FrozenModel):
    """The cached result: its metrics, and the prediction for each test text."""

    metrics: LinearModelFitted
    test_predictions: list[Any]  # for each text an index, a 0 or 1 for each label, or a number


def fit_or_load_linear_baseline(splits: Splits, task: Task) -> LinearBaselineResult:
    """Return the baseline for these splits, from the cache if they have been seen before.

    Without a validation split, thresholds are fitted by cross-validation of the training split.
    `seconds` is the time of the original fit. Raises `DiskFull`.
    """
    path = cache_dir() / "linear" / f"{_cache_key(splits, task)}.json"
    result = _read_cached(path)
    if result is None:
        result = _evaluate(splits, task)
        with atomic_path(path) as unfinished:
            unfinished.write_text(result.model_dump_json(), encoding="utf-8")
        evict_least_recently_used(path.parent, FOLDER_LIMITS[path.parent.name])
    return result


def _cache_key(splits: Splits, task: Task) -> str:
    limits = (MAX_TEXTS, MAX_CHARACTERS, MAX_TERMS)
    settings = f"{splits.digest}\0{limits}\0{SPEC}\0{_METRICS_VERSION}\0{sklearn.__version__}"
    if isinstance(task, SeveralTargets):
        settings += "\0" + "\0".join(
            f"{name} {each.type} {each.has_thresholds}" for name, each in task.tasks.items()
        )
    elif not isinstance(task, SingleLabel) or task.has_thresholds:
        settings += f"\0{task.problem_type}"
    return hashlib.sha256(settings.encode()).hexdigest()


def _evaluate(splits: Splits, task: Task) -> LinearBaselineResult:
    start = time.perf_counter()
    tasks = task.tasks.values() if isinstance(task, SeveralTargets) else [task]
    fits = sum(len(each.labels) for each in tasks if isinstance(each, MultiLabel))
    max_texts = min(MAX_TEXTS, MAX_FITTED_LABELS // max(1, fits))
    train = subsample_to_max_characters(
        subsample_to_max_texts(splits.train, max_texts), len(splits.labels)
    )
    parts = [splits.validation, splits.test]
    validation, test = (task.targets([each.label for each in part]) for part in parts)
    validation_logits, test_logits = fit_and_predict_logits(train, parts, task)
    calibration = None
    if splits.validation:
        calibration = task.calibrate(validation_logits, validation)
    elif task.has_thresholds:
        calibration = _calibrate_by_cross_validation(train, task)
    metrics = LinearModelFitted(
        validation=_metrics(validation_logits, validation, task, calibration)
        if splits.validation
        else {},
        test=_metrics(test_logits, test, task, calibration),
        train_texts=len(train),
        seconds=round(time.perf_counter() - start, 3),
        cached=False,
    )
    predictions = task.predict(test_logits, calibration).tolist()
    return LinearBaselineResult(metrics=metrics, test_predictions=predictions)


def fit_and_predict_logits(
    train: Sequence[Example], parts: Sequence[Sequence[Example]], task: Task
) -> list[Logits]:
    """Return logits (texts, outputs) for the texts of each split."""
    model = fit_linear_model(train, SPEC, task)
    return [model.logits([e.input for e in part]) for part in parts]


def _calibrate_by_cross_validation(train: Sequence[Example], task: Task) -> Calibration | None:
    def predict_held_out(learned: Indices, held_out: Indices) -> Logits:
        learned_from, predicted = ([train[i] for i in rows] for rows in (learned, held_out))
        return fit_and_predict_logits(learned_from, [predicted], task)[0]

    return calibrate_on_held_out_folds(train, task, predict_held_out)


def calibrate_on_held_out_folds(
    train: Sequence[Example], task: Task, predict_held_out: Callable[[Indices, Indices], Logits]
) -> Calibration | None:
    """Return the calibration of a model that was fitted on all of these texts.

    `predict_held_out` fits a model on texts, by their indices, and returns logits of others. As
    many folds are held out as `auto` uses for its candidates. None: all texts are in one fold.
    """
    folds = assign_folds(train, seed=0)
    evaluated = np.unique(folds[folds < num_folds_to_evaluate(len(train))])
    held_out = [np.flatnonzero(folds == fold) for fold in evaluated]
    learned = [np.flatnonzero(folds != fold) for fold in evaluated]
    if not all(map(len, learned)):
        return None
    logits = np.concatenate(list(map(predict_held_out, learned, held_out)))
    targets = task.targets([train[i].label for i in np.concatenate(held_out)])
    return task.calibrate(logits, targets)


def fit_linear_model(
    train: Sequence[Example],
    spec: LinearSpec,
    task: Task,
    *,
    balanced: bool | Mapping[str, bool] = False,
) -> linear.LinearModel:
    """Fit a model on examples, as `lora_core.linear.model` does on texts.

    Of several targets, `balanced` may be given by name.
    """
    texts = [example.input for example in train]
    targets = task.targets([example.label for example in train])
    if not isinstance(task, SeveralTargets):
        return fit_single_target(texts, targets, spec, task, balanced=bool(balanced))
    tfidf = linear.fit_tfidf_matrix(texts, spec, len(task.labels))
    models = [
        fit_single_target(
            texts,
            task.values_of(targets, name),
            spec,
            each,
            balanced=balanced if isinstance(balanced, bool) else balanced[name],
            tfidf=tfidf,
        )
        for name, each in task.tasks.items()
    ]
    return linear.stack_linear_models(models, tfidf)


def fit_single_target(
    texts: Sequence[TextInput],
    targets: Targets,
    spec: LinearSpec,
    task: Task,
    *,
    balanced: bool,
    tfidf: linear.TfidfMatrix | None = None,
) -> linear.LinearModel:
    """Fit a model of a task with one target on texts and their targets."""
    match task:
        case SingleLabel():
            classes = len(task.labels)
            return linear.fit_single_label(
                texts, targets, spec, classes=classes, balanced=balanced, tfidf=tfidf
            )
        case MultiLabel():
            return linear.fit_multi_label(texts, targets, spec, balanced=balanced, tfidf=tfidf)
        case Regression():
            return linear.fit_regression(texts, task.standardize(targets), spec, tfidf=tfidf)
        case _:
            raise TypeError(f"no linear model for {type(task).__name__}")


def subsample_to_max_texts(train: Sequence[Example], max_texts: int) -> list[Example]:
    """Return at most `max_texts` of the texts, stratified; more if each label needs it."""
    if len(train) <= max_texts:
        return list(train)
    rows, task = rows_and_task_for_stratification(train)
    try:
        subset = stratified_subset(rows, max_texts, of=len(rows), seed=0, task=task)
    except TooFewRows:
        return subsample_to_max_texts(train, 2 * max_texts)
    return [train[row.number] for row in subset]


def subsample_to_max_characters(train: Sequence[Example], labels: int) -> list[Example]:
    """Return as many texts as have `MAX_CHARACTERS` by their mean length, stratified.

    The sum of their own lengths may be somewhat more. More texts if each label needs them.
    """
    characters = sum(example.characters for example in train)
    if characters <= MAX_CHARACTERS:
        return list(train)
    return subsample_to_max_texts(train, max(labels, len(train) * MAX_CHARACTERS // characters))


def _metrics(
    logits: Logits, targets: Targets, task: Task, calibration: Calibration | None
) -> dict[str, float]:
    """Return accuracy and macro F1 of labels; of other tasks the metrics that training logs."""
    if not isinstance(task, SingleLabel):
        metrics = task.select_logged_metrics(task.report(logits, targets, calibration))
        return {name: value for name, value in metrics.items() if name != "loss"}
    predicted = task.predict(logits, calibration)
    macro_f1 = f1_score(targets, predicted, average="macro", zero_division=0.0)
    return {"accuracy": float(accuracy_score(targets, predicted)), "macro_f1": float(macro_f1)}


def _read_cached(path: Path) -> LinearBaselineResult | None:
    """Read a cache entry and mark it as used; return None if it is missing or damaged."""
    try:
        cached = LinearBaselineResult.model_validate_json(path.read_bytes())
        os.utime(path)
    except (FileNotFoundError, ValidationError):
        return None
    return cached.model_copy(update={"metrics": cached.metrics.model_copy(update={"cached": True})})
