"""Export of a sweep's trials as CSV, and as the `results.txt` of "LoRA from scratch"."""

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

from app.csv_cells import escape_formula
from app.sweeps.snapshot import METRICS, SPLITS, SweepSnapshot, TrialSnapshot
from lora_core.specs.method import HeadMode, LoraSpec, Role

BLOCK_RULE = "-" * 48
ACCURACY_LABELS = ("Train acc: ", "Val acc:   ", "Test acc:  ")  # in the order of SPLITS


def as_csv(snapshot: SweepSnapshot) -> str:
    """Return a CSV file with a header and a row per trial.

    Columns: number, state, the fields of the space, share, trainable_parameters, seconds, each
    metric that any trial has (`validation_accuracy`), job_id, error. Unknown values are empty,
    lists are written as `query+value`, booleans as in JSON. A text that a spreadsheet would
    evaluate as a formula is prefixed with an apostrophe.
    """
    columns = [
        (split, name)
        for split in SPLITS
        for name in METRICS
        if any(trial.metric(split, name) is not None for trial in snapshot.trials)
    ]
    text = io.StringIO()
    # Lines end in \r\n (RFC 4180). Python 3.11 quotes a lone \r in a value only with that setting.
    writer = csv.writer(text)
    writer.writerow(
        [
            *("number", "state", *snapshot.fields, "share", "trainable_parameters", "seconds"),
            *(f"{split}_{name}" for split, name in columns),
            *("job_id", "error"),
        ]
    )
    for trial in snapshot.trials:
        row = [
            *(trial.number, trial.state),
            *(trial.settings.get(field) for field in snapshot.fields),
            *(trial.budget, trial.trainable_parameters, trial.seconds),
            *(trial.metric(split, name) for split, name in columns),
            *(trial.job_id, trial.error),
        ]
        writer.writerow([_csv_value(value) for value in row])
    return text.getvalue()


def as_results_txt(snapshot: SweepSnapshot) -> str:
    """Return a block for each complete LoRA trial that has all three accuracies.

    The format, including the 48 dashes, is that of `03_finetune-lora-script.py` by Sebastian
    Raschka (Lightning AI, "LoRA from Scratch"), without its last two settings, `device` and
    `verbose`.
    """
    return "".join(f"{line}\n" for trial in snapshot.trials for line in _results_block(trial))


def _csv_value(value: Any) -> Any:
    if isinstance(value, list | tuple):
        value = "+".join(str(item) for item in value)
    elif isinstance(value, bool | dict):
        value = json.dumps(value, ensure_ascii=False)
    return escape_formula(value)


def _results_block(trial: TrialSnapshot) -> Iterator[str]:
    method = trial.spec.get("method", {})
    metrics = [trial.metric(split, "accuracy") for split in SPLITS]
    accuracies = [value for value in metrics if value is not None]
    is_lora = method.get("type") == "lora"
    if not trial.is_complete or not is_lora or len(accuracies) < len(SPLITS):
        return
    yield BLOCK_RULE
    for name, value in _block_settings(LoraSpec.model_validate(method)):
        yield f"{name}: {value}"
    for name, accuracy in zip(ACCURACY_LABELS, accuracies, strict=True):
        yield f"{name}{100 * accuracy:.2f}%"
    yield BLOCK_RULE


def _block_settings(method: LoraSpec) -> Iterator[tuple[str, object]]:
    yield "lora_r", method.r
    yield "lora_alpha", int(method.alpha) if method.alpha.is_integer() else method.alpha
    for role in Role:
        yield f"lora_{role.value}", role in method.targets
    yield "lora_head", method.head is HeadMode.LORA
