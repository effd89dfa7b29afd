"""The texts that a job answered most wrongly, from what it left."""

from typing import Any, Literal

import numpy as np
from pydantic import Field

from app.artifacts.content import described, lines
from app.artifacts.store import ArtifactRef, Store
from app.fields import View
from app.jobs.errors import NoAnswers
from app.jobs.tables import Job
from lora_core.training import mistakes

Part = Literal["validation", "test"]
MOST = mistakes.KEPT


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
    kept, answers = f"{mistakes.FOLDER}/{part}.jsonl", f"predictions/{part}.jsonl"
    if kept in facts["files"]:
        return [MistakeView(**line) for line in lines(store, ref, kept, name=name)[:most]]
    if answers not in facts["files"]:
        raise NoAnswers(job_id=job.id, part=part)
    return _without_texts(lines(store, ref, answers, name=name), facts, most)


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
        for found in mistakes.worst(logits, truth, temperature=temperature, most=most)
    ]
