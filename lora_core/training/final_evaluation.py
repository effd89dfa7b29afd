"""How good the final weights of a run are."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_core import distributed
from lora_core.data import linear_baseline
from lora_core.data.records import Example
from lora_core.events import Evaluated, Observer, Phase, finite
from lora_core.progress_reporter import Pulse
from lora_core.specs.data import Split
from lora_core.tasks import calibration
from lora_core.tasks.metrics import CURVES
from lora_core.training import eval_subset, evaluate
from lora_core.training.correctness import grade
from lora_core.training.loop import Trained
from lora_core.training.prepare import Prepared

Logits = dict[Split, NDArray[np.float32]]


def of_trial(prepared: Prepared, trained: Trained) -> tuple[dict[str, Any], Logits]:
    """Figures and logits of the last weights, on the validation texts of the trial."""
    logits: Logits = {Split.VALIDATION: trained.validation_logits}
    return _reports(prepared, logits), logits


def of_run(
    prepared: Prepared, trained: Trained, observer: Observer, pulse: Pulse
) -> tuple[dict[str, Any], Logits]:
    """Figures and logits of the best weights on validation and test, beside the linear rival's.

    The temperature is fitted on validation alone, and is 1 where that has too few texts.
    """
    pulse.enter(Phase.LINEAR_RIVAL)
    with distributed.main_first():
        rival = linear_baseline.fit(prepared.splits).figures
    if prepared.cross_validated is not None:  # it has learned from the validation texts
        rival = rival.model_copy(update={"validation": {}})
    observer.on_event(rival)
    pulse.enter(Phase.EVALUATING)
    logits: Logits = {
        Split.VALIDATION: trained.validation_logits,
        Split.TEST: _answers(prepared, Split.TEST, pulse),
    }
    validation_labels = prepared.parts[Split.VALIDATION].labels
    calibrated = calibration.fitted(trained.validation_logits, validation_labels)
    temperature = calibrated["temperature"]
    for split, rows in logits.items():
        labels = prepared.parts[split].labels
        calibrated[split] = calibration.compare(rows, labels, temperature)
    figures = {
        "linear": rival.model_dump(mode="json", exclude={"event"}),
        "calibration": calibrated,
        **_reports(prepared, logits),
    }
    if prepared.spec.result.train_figures:
        train = _answers(prepared, Split.TRAIN, pulse)
        figures |= _reports(prepared, {Split.TRAIN: train})
    test = {name: figures[Split.TEST][name] for name in CURVES}
    observer.on_event(Evaluated(step=trained.best_step, split=Split.TEST, metrics=finite(test)))
    return figures, logits


def graded(prepared: Prepared, logits: Logits) -> dict[str, Any]:
    """Of each part, which texts were answered rightly."""
    return {
        split: grade(answered(prepared, split), prepared.splits.labels, rows)
        for split, rows in logits.items()
    }


def answered(prepared: Prepared, split: Split) -> list[Example]:
    """The examples that a run is judged by."""
    examples = prepared.splits.part(split)
    return [examples[i] for i in eval_subset.texts(prepared.spec, split, len(examples))]


def _answers(prepared: Prepared, split: Split, pulse: Pulse) -> NDArray[np.float32]:
    part, budget = prepared.parts[split], prepared.spec.optim.micro_batch_tokens
    return evaluate.logits(prepared.forward, part, budget=budget, pulse=pulse)


def _reports(prepared: Prepared, logits: Logits) -> dict[str, Any]:
    found = {}
    for split, rows in logits.items():
        part = prepared.parts[split]
        which = eval_subset.texts(prepared.spec, split, len(part))
        found[split.value] = prepared.task.report(rows, part.labels[which])
    return found
