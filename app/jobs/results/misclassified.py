"""The texts that a job answered wrongly, from what it left, and as files."""

import csv
import io
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from pydantic import Field

from app.csv_cells import inert
from app.http.fields import View
from app.jobs.errors import NoAnswers
from app.queue.tables import Job
from app.storage.archive import described, lines
from app.storage.store import ArtifactRef, Store
from lora_core.training import misclassified

Part = Literal["validation", "test"]
Format = Literal["csv", "jsonl"]
MOST = misclassified.KEPT
MEDIA_TYPES: dict[Format, str] = {
    "csv": "text/csv; charset=utf-8; header=present",
    "jsonl": "application/jsonl; charset=utf-8",
}


class MistakeView(View):
    """One text that was answered wrongly."""

    row: int = Field(description="In its file; 1 is the first row of data.")
    text: str | None = Field(description="Its beginning; null: the job kept no texts.")
    cut: bool = Field(description="Whether it goes on.")
    label: str = Field(description="The true one.")
    predicted: str
    score: float = Field(description="Probability of `predicted`, with the temperature.")
    true_score: float = Field(description="Probability of `label`.")


def read(store: Store, job: Job, ref: ArtifactRef, *, part: Part, most: int) -> list[MistakeView]:
    """The surest first. Raises `NoAnswers`, `ArtifactDamaged`."""
    name = f"job {job.id}"
    facts = described(store, ref, name=name)
    kept, answers = f"{misclassified.FOLDER}/{part}.jsonl", f"predictions/{part}.jsonl"
    if kept in facts["files"]:
        return [MistakeView(**line) for line in lines(store, ref, kept, name=name, most=most)]
    if answers not in facts["files"]:
        raise NoAnswers(job_id=job.id, part=part)
    return _without_texts(lines(store, ref, answers, name=name), facts, most)


def as_jsonl(found: Iterable[MistakeView]) -> str:
    """A line each."""
    return "".join(f"{each.model_dump_json()}\n" for each in found)


def as_csv(found: Iterable[MistakeView]) -> str:
    """A header and a row each. No cell of it is a formula to a spreadsheet."""
    text = io.StringIO()
    # Lines end in \r\n (RFC 4180): only so does Python 3.11 quote a lone \r inside a value.
    rows = csv.DictWriter(text, MistakeView.model_fields)
    rows.writeheader()
    for each in found:
        cells = each.model_dump() | {"cut": "true" if each.cut else "false"}
        rows.writerow({name: inert(value) for name, value in cells.items()})
    return text.getvalue()


def _without_texts(
    answers: list[dict[str, Any]], facts: dict[str, Any], most: int
) -> list[MistakeView]:
    """Of a run that left no model, or was made before texts were kept."""
    labels, temperature = facts["labels"], facts.get("calibration", {}).get("temperature", 1.0)
    logits = np.array([each["logits"] for each in answers], dtype=np.float32)
    truth = np.array([each["label"] for each in answers])
    return [
        MistakeView(
            row=answers[found.place]["row"],
            text=None,
            cut=False,
            label=labels[truth[found.place]],
            predicted=labels[found.predicted],
            score=found.score,
            true_score=found.true_score,
        )
        for found in misclassified.worst(logits, truth, temperature=temperature, most=most)
    ]
