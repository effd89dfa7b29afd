"""One run of the method `linear`, from its description to a finished artifact. Needs no torch.

The fit takes seconds, so there are no checkpoints: a run that was interrupted begins anew.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError

from lora_core import compatibility, manifest
from lora_core.atomic_files import is_no_room
from lora_core.cross_validation import CrossValidation, judges, learnable
from lora_core.data.linear_baseline import MAX_CHARACTERS, fit_examples, within_memory
from lora_core.data.load import load
from lora_core.data.records import Example, Splits
from lora_core.errors.training import DiskFull, FitOutOfMemory
from lora_core.events import (
    Evaluated,
    Finished,
    Noted,
    Observer,
    Phase,
    Started,
    StopSignal,
    finite,
)
from lora_core.failpoints import reach
from lora_core.inference.linear import ENGINE
from lora_core.linear import files
from lora_core.linear.model import LinearModel, settled
from lora_core.process import cores, is_no_memory
from lora_core.progress_reporter import Pulse, while_beating
from lora_core.saved_predictions import save_golden, save_predictions
from lora_core.specs.data import Split
from lora_core.specs.method import LinearSpec
from lora_core.specs.train import TrainSpec
from lora_core.tasks import calibration
from lora_core.tasks.metrics import CURVES, report
from lora_core.training import linear_learning_curve, misclassified
from lora_core.training.chosen import Chosen
from lora_core.training.correctness import grade
from lora_core.verdict import Verdict, judge, majority

STEPS = 1

Logits = dict[Split, NDArray[np.float32]]


def run(
    spec: TrainSpec,
    *,
    out_dir: Path,
    observer: Observer,
    stop: StopSignal,
    chosen: Chosen | None = None,
) -> dict[str, Any]:
    """Fit, evaluate, save; returns the summary. Raises a `LoraCoreError` for every known cause.

    `chosen`: how the method was selected, if it was.
    """
    began = time.monotonic()
    method = spec.method
    if not isinstance(method, LinearSpec):
        raise TypeError(f"{method.type} is trained by lora_core.training.run")
    compatibility.check_steps(spec)
    pulse = Pulse(observer, stop)
    pulse.enter(Phase.LOADING)
    with _known():
        reach("loading")
        splits = chosen.splits if chosen else load(spec.data)
        train = _learned(splits, observer)
        method = settled(method, [example.text for example in train])
        spec = _settled(spec, method)
        pulse.enter(Phase.TRAINING)
        fitted_at = time.monotonic()
        model = while_beating(
            pulse,
            lambda: fit_examples(train, method, classes=len(splits.labels), balanced=spec.balanced),
        )
        seconds = time.monotonic() - fitted_at
        if not model.converged:
            text = "The fit was stopped before it had converged; a smaller C converges sooner."
            observer.on_event(Noted(level="warning", code="not_converged", message=text))
        observer.on_event(_started(spec, splits, model))
        pulse.enter(Phase.EVALUATING, STEPS)
        logits = while_beating(pulse, lambda: _answers(spec, splits, model))
        if chosen is not None and chosen.cross_validated is not None:
            logits[Split.VALIDATION] = chosen.cross_validated
        measured = _measured(splits, logits, observer)
        summary = {**_facts(splits, train, model, seconds), **measured}
        summary |= chosen.summary() if chosen else {}
        more_labels = linear_learning_curve.of_splits(splits, pulse)
        summary["more_labels"] = more_labels.model_dump(mode="json")
        if spec.result.model:
            pulse.enter(Phase.JUDGING, STEPS)
            found = _verdict(spec, method, splits, logits[Split.TEST], chosen, pulse)
            summary["verdict"] = found.model_dump(mode="json")
        pulse.enter(Phase.SAVING, STEPS)
        reach("saving")
        out_dir.mkdir(parents=True, exist_ok=True)
        for split in (Split.VALIDATION, Split.TEST):
            save_predictions(out_dir, split, splits.part(split), logits[split])
        if spec.result.model:
            _save(out_dir, splits, model, logits, measured["calibration"]["temperature"])
        summary["total_seconds"] = round(time.monotonic() - began, 2)
        manifest.write(out_dir, _manifest(spec, splits, summary, logits))
    observer.on_event(Finished(summary=summary))
    return summary


@contextmanager
def _known() -> Iterator[None]:
    """Raises `DiskFull` and `FitOutOfMemory` for what means that."""
    try:
        yield
    except (MemoryError, OSError, SafetensorError) as error:
        if is_no_room(error):
            raise DiskFull(what="the model") from error
        if is_no_memory(error):
            raise FitOutOfMemory() from error
        raise


def _settled(spec: TrainSpec, method: LinearSpec) -> TrainSpec:
    """With all that was left open decided."""
    used = {"device": "cpu", "threads": spec.runtime.threads or cores()}
    runtime = spec.runtime.model_copy(update=used)
    return spec.model_copy(update={"method": method, "runtime": runtime})


def _learned(splits: Splits, observer: Observer) -> list[Example]:
    """The texts of the training part, as many as there is memory for."""
    if splits.leaked:
        text = f"{splits.leaked} validation or test texts are in the training part as well."
        observer.on_event(Noted(level="warning", code="leaked", message=text))
    train = within_memory(splits.train, len(splits.labels))
    if len(train) < len(splits.train):
        text = (
            f"It learns from {len(train):,} of the {len(splits.train):,} training texts, since "
            f"they have more than {MAX_CHARACTERS:,} characters."
        )
        observer.on_event(Noted(level="warning", code="training_texts_drawn", message=text))
    return train


def _started(spec: TrainSpec, splits: Splits, model: LinearModel) -> Started:
    return Started(
        total_steps=STEPS,
        trainable_parameters=_weights(model),
        total_parameters=_weights(model),
        examples={split: len(splits.part(split)) for split in Split},
        labels=list(splits.labels),
        device="cpu",
        precision=ENGINE.name.rpartition("-")[2],
        threads=spec.runtime.threads or cores(),
        learning_rate=None,
    )


def _weights(model: LinearModel) -> int:
    return model.parameters.coef.size + model.parameters.intercept.size


def _answers(spec: TrainSpec, splits: Splits, model: LinearModel) -> Logits:
    """Logits of validation and test, and of the training part if its figures are wanted."""
    wanted = [Split.VALIDATION, Split.TEST]
    wanted += [Split.TRAIN] if spec.result.train_figures else []
    return {
        split: model.logits([each.text for each in splits.part(split)]).astype(np.float32)
        for split in wanted
    }


def _measured(splits: Splits, logits: Logits, observer: Observer) -> dict[str, Any]:
    """The figures of each part; the temperature is fitted on validation alone."""
    labels = {
        split: np.array([example.label for example in splits.part(split)]) for split in logits
    }
    calibrated = calibration.fitted(logits[Split.VALIDATION], labels[Split.VALIDATION])
    temperature = calibrated["temperature"]
    figures: dict[str, Any] = {"calibration": calibrated}
    for split, rows in logits.items():
        figures[split.value] = report(rows, labels[split], splits.labels)
        if split is not Split.TRAIN:
            calibrated[split] = calibration.compare(rows, labels[split], temperature)
            best = split is Split.VALIDATION
            metrics = finite({name: figures[split.value][name] for name in CURVES})
            observer.on_event(Evaluated(step=STEPS, split=split, metrics=metrics, best=best))
    return figures


def _verdict(
    spec: TrainSpec,
    method: LinearSpec,
    splits: Splits,
    test: NDArray[np.float32],
    chosen: Chosen | None,
    pulse: Pulse,
) -> Verdict:
    """On the test part; of few texts all are held out once instead."""
    examples = learnable(spec, splits)
    rivals = {"probe": chosen.probe} if chosen and chosen.probe else {}
    common = majority(examples)
    if not judges(spec, examples):
        truth = np.array([example.label for example in splits.test])
        answers = test.argmax(axis=1)
        return judge(truth, answers, rivals, labels=splits.labels, majority=common)
    tried = CrossValidation(spec, splits.labels, examples, pulse)
    return judge(
        tried.truth,
        tried.answers(method),
        rivals,
        labels=splits.labels,
        majority=common,
        measured_on="cross_validation",
    )


def _save(
    out_dir: Path, splits: Splits, model: LinearModel, logits: Logits, temperature: float
) -> None:
    files.save(out_dir, model.parameters)
    names = list(splits.labels)
    for split in (Split.VALIDATION, Split.TEST):
        misclassified.save(out_dir, split, splits.part(split), logits[split], names, temperature)
    save_golden(out_dir, [example.text for example in splits.test], logits[Split.TEST])


def _facts(
    splits: Splits, train: Sequence[Example], model: LinearModel, seconds: float
) -> dict[str, Any]:
    return {
        "labels": list(splits.labels),
        "trainable_parameters": _weights(model),
        "total_parameters": _weights(model),
        "terms": len(model.parameters.terms),
        "examples": {split: len(splits.part(split)) for split in Split} | {Split.TRAIN: len(train)},
        "steps": STEPS,
        "best_step": STEPS,
        "train_seconds": round(seconds, 2),
        "reviews_per_second": round(len(train) / max(seconds, 1e-3), 2),
    }


def _manifest(
    spec: TrainSpec, splits: Splits, summary: dict[str, Any], logits: Logits
) -> dict[str, Any]:
    return {
        "format": manifest.FORMAT,
        "created_by": manifest.created_by(),
        "spec": spec.model_dump(mode="json"),
        "labels": list(splits.labels),
        "data_sha256": splits.digest,
        "calibration": {"temperature": summary["calibration"]["temperature"]},
        "metrics": summary,
        "graded": {
            split: grade(splits.part(split), splits.labels, rows)
            for split, rows in logits.items()
            if split is not Split.TRAIN
        },
    }
