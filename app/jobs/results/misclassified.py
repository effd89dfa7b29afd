"""The texts that a job misclassified, read from its artifact, and as CSV or JSON Lines."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, zip_longest
from typing import Any, Literal

import numpy as np

from app.csv_injection import escape_formula
from app.jobs.errors import NoPredictions
from app.jobs.schemas import MisclassifiedText
from app.queue.tables import Job
from app.storage.store import ArtifactRef, Store, read_artifact_json_lines, read_manifest
from lora_core.specs.encoded_labels import encode_label_set, unqualified_outputs_of_target
from lora_core.tasks.metric_info import task_type_of_spec
from lora_core.tasks.mispredictions import most_confident_errors
from lora_core.training import correctness

EvaluatedSplit = Literal["validation", "test"]
MisclassifiedFormat = Literal["csv", "jsonl"]
MAX_MISCLASSIFIED = correctness.MAX_SAVED
_OLD_FOLDER = "mistakes"  # in artifacts of earlier versions; their manifests hash the name
MEDIA_TYPES: dict[MisclassifiedFormat, str] = {
    "csv": "text/csv; charset=utf-8; header=present",
    "jsonl": "application/jsonl; charset=utf-8",
}


def list_misclassified(
    store: Store,
    job: Job,
    ref: ArtifactRef,
    *,
    split: EvaluatedSplit,
    limit: int,
    target: str | None = None,
) -> list[MisclassifiedText]:
    """Return the most confident errors first, or the largest of a regression.

    Of several targets all errors, or those of one `target`. Raises `NoPredictions`,
    `StoredArtifactCorrupt`.
    """
    name = f"job {job.id}"
    facts = read_manifest(store, ref, name=name)
    for folder in (correctness.MISCLASSIFIED_FOLDER, _OLD_FOLDER):
        if (stored := f"{folder}/{split}.jsonl") in facts["files"]:
            # The errors of several targets are in one file.
            wanted = limit if target is None else MAX_MISCLASSIFIED
            lines = read_artifact_json_lines(store, ref, stored, name=name, limit=wanted)
            return _of_target((MisclassifiedText(**line) for line in lines), target)[:limit]
    predictions = f"predictions/{split}.jsonl"
    if predictions not in facts["files"]:
        raise NoPredictions(job_id=job.id, part=split)
    lines = read_artifact_json_lines(store, ref, predictions, name=name)
    if task_type_of_spec(job.spec) == "several_targets":
        tasks = job.spec["task"]["targets"]
        chosen = [each for each in sorted(tasks) if target in (None, each)]
        found = [_errors_of_target(lines, facts, tasks, each, limit) for each in chosen]
        return [each for each in chain(*zip_longest(*found)) if each is not None][:limit]
    return _find_errors(job.spec, lines, facts, limit)


def _of_target(texts: Iterable[MisclassifiedText], target: str | None) -> list[MisclassifiedText]:
    return [each for each in texts if target is None or each.target == target]


def to_jsonl(texts: Iterable[MisclassifiedText]) -> str:
    """Return one JSON line per text."""
    return "".join(f"{text.model_dump_json()}\n" for text in texts)


def to_csv(texts: Sequence[MisclassifiedText]) -> str:
    """Return a header and one row per text. No cell is a formula to a spreadsheet."""
    output = io.StringIO()
    pairs = any(text.text_pair is not None for text in texts)
    targets = any(text.target is not None for text in texts)
    left_out = {name for name, used in (("text_pair", pairs), ("target", targets)) if not used}
    columns = [name for name in MisclassifiedText.model_fields if name not in left_out]
    # Lines end in \r\n (RFC 4180): only then does Python 3.11 quote a lone \r inside a value.
    writer = csv.DictWriter(output, columns)
    writer.writeheader()
    for text in texts:
        cells = text.model_dump() | {"cut": "true" if text.cut else "false"}
        writer.writerow({name: escape_formula(value) for name, value in cells.items()})
    return output.getvalue()


# The errors of a run without stored texts: no model was stored, or the run is old


def _find_errors(
    spec: Mapping[str, Any], predictions: list[dict[str, Any]], facts: dict[str, Any], limit: int
) -> list[MisclassifiedText]:
    match task_type_of_spec(spec):
        case "regression":
            return _largest_errors(predictions, limit)
        case "multi_label":
            return _wrong_label_sets(predictions, facts["labels"], limit)
        case _:
            return _from_predictions(predictions, facts, limit)


def _errors_of_target(
    predictions: list[dict[str, Any]],
    facts: dict[str, Any],
    tasks: Mapping[str, Any],
    target: str,
    limit: int,
) -> list[MisclassifiedText]:
    """Return the errors of one of several targets, as those of a job with this task alone."""
    sizes = {name: len(unqualified_outputs_of_target(name, facts["labels"])) for name in tasks}
    start = sum(size for name, size in sizes.items() if name < target)  # they are in this order
    alone = {
        "labels": unqualified_outputs_of_target(target, facts["labels"]),
        "calibration": facts.get("calibration", {}).get("targets", {}).get(target, {}),
    }
    lines = [
        {
            "row": line["row"],
            "label": line["label"][target],
            "predicted": line["predicted"][target],
            "logits": line["logits"][start : start + sizes[target]],
        }
        for line in predictions
    ]
    errors = _find_errors({"task": tasks[target]}, lines, alone, limit)
    return [each.model_copy(update={"target": target}) for each in errors]


def _largest_errors(predictions: list[dict[str, Any]], limit: int) -> list[MisclassifiedText]:
    predictions.sort(key=lambda line: -abs(line["predicted"] - line["label"]))
    return [
        _without_text(line, repr(line["label"]), repr(line["predicted"]))
        for line in predictions[:limit]
    ]


def _wrong_label_sets(
    predictions: list[dict[str, Any]], labels: list[str], limit: int
) -> list[MisclassifiedText]:
    """Return the texts with the most wrong labels first."""

    def wrong(line: dict[str, Any]) -> int:
        return len(set(line["label"]) ^ set(line["predicted"]))

    def names(indices: list[int]) -> str:
        return encode_label_set([labels[i] for i in indices])

    errors = sorted(filter(wrong, predictions), key=wrong, reverse=True)
    return [
        _without_text(line, names(line["label"]), names(line["predicted"]))
        for line in errors[:limit]
    ]


def _without_text(line: dict[str, Any], label: str, predicted: str) -> MisclassifiedText:
    return MisclassifiedText(
        row=line["row"],
        text=None,
        cut=False,
        label=label,
        predicted=predicted,
        score=None,
        true_score=None,
    )


def _from_predictions(
    predictions: list[dict[str, Any]], facts: dict[str, Any], limit: int
) -> list[MisclassifiedText]:
    """Compute the errors of a run without stored texts (no model was stored, or an old run)."""
    labels, temperature = facts["labels"], facts.get("calibration", {}).get("temperature", 1.0)
    logits = np.array([line["logits"] for line in predictions], dtype=np.float32)
    truth, predicted = (
        np.array([line[name] for line in predictions]) for name in ("label", "predicted")
    )
    return [
        MisclassifiedText(
            row=predictions[error.text_index]["row"],
            text=None,
            cut=False,
            label=labels[truth[error.text_index]],
            predicted=labels[error.predicted],
            score=error.score,
            true_score=error.true_score,
        )
        for error in most_confident_errors(
            logits, truth, temperature=temperature, limit=limit, predicted=predicted
        )
    ]
