"""The texts that a job misclassified, read from its artifact, and as CSV or JSON Lines."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np

from app.csv_cells import escape_formula
from app.jobs.errors import NoPredictions
from app.jobs.schemas import MisclassifiedText
from app.queue.tables import Job
from app.storage.store import ArtifactRef, Store, read_json_lines, read_manifest
from lora_core.tasks.mispredictions import most_confident_errors
from lora_core.training import correctness

EvaluatedSplit = Literal["validation", "test"]
MisclassifiedFormat = Literal["csv", "jsonl"]
MAX_MISCLASSIFIED = correctness.MAX_SAVED
OLD_FOLDER = "mistakes"  # in artifacts of earlier versions; their manifests hash the name
MEDIA_TYPES: dict[MisclassifiedFormat, str] = {
    "csv": "text/csv; charset=utf-8; header=present",
    "jsonl": "application/jsonl; charset=utf-8",
}


def list_misclassified(
    store: Store, job: Job, ref: ArtifactRef, *, split: EvaluatedSplit, limit: int
) -> list[MisclassifiedText]:
    """Return the most confident errors first. Raises `NoPredictions`, `StoredArtifactCorrupt`."""
    name = f"job {job.id}"
    facts = read_manifest(store, ref, name=name)
    for folder in (correctness.MISCLASSIFIED_FOLDER, OLD_FOLDER):
        if (stored := f"{folder}/{split}.jsonl") in facts["files"]:
            lines = read_json_lines(store, ref, stored, name=name, limit=limit)
            return [MisclassifiedText(**line) for line in lines]
    predictions = f"predictions/{split}.jsonl"
    if predictions not in facts["files"]:
        raise NoPredictions(job_id=job.id, part=split)
    return _from_predictions(read_json_lines(store, ref, predictions, name=name), facts, limit)


def to_jsonl(texts: Iterable[MisclassifiedText]) -> str:
    """Return one JSON line per text."""
    return "".join(f"{text.model_dump_json()}\n" for text in texts)


def to_csv(texts: Sequence[MisclassifiedText]) -> str:
    """Return a header and one row per text. No cell is a formula to a spreadsheet."""
    output = io.StringIO()
    pairs = any(text.text_pair is not None for text in texts)
    columns = [name for name in MisclassifiedText.model_fields if pairs or name != "text_pair"]
    # Lines end in \r\n (RFC 4180): only then does Python 3.11 quote a lone \r inside a value.
    writer = csv.DictWriter(output, columns)
    writer.writeheader()
    for text in texts:
        cells = text.model_dump() | {"cut": "true" if text.cut else "false"}
        writer.writerow({name: escape_formula(value) for name, value in cells.items()})
    return output.getvalue()


def _from_predictions(
    predictions: list[dict[str, Any]], facts: dict[str, Any], limit: int
) -> list[MisclassifiedText]:
    """Compute the errors of a run without stored texts (no model was stored, or an old run)."""
    labels, temperature = facts["labels"], facts.get("calibration", {}).get("temperature", 1.0)
    logits = np.array([line["logits"] for line in predictions], dtype=np.float32)
    truth = np.array([line["label"] for line in predictions])
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
        for error in most_confident_errors(logits, truth, temperature=temperature, limit=limit)
    ]
