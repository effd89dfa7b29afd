"""Fixtures: a model, an uploaded file without labels, and a fake worker."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from app.queue import leases
from app.queue.transitions import Succeeded
from app.resources import Resources
from app.storage import repository as artifacts
from app.storage.tables import RESULTS_KIND
from lora_core import manifest
from tests.job_rows import claim_next
from tests.prediction_rows import add_model, add_texts

TEXTS = 'id,body\n1,"good, and more"\n2,so bad\n3,"a ""film"""\n'
ROWS: list[dict[str, Any]] = [
    {"id": "1", "body": "good, and more", "share": 0.5, "seen": True, "tags": ["a", "b"]},
    {"id": "2", "body": "so bad", "share": None, "seen": False},
]
SCORES = ({"good": 0.75, "bad": 0.25}, {"bad": 1.0, "good": 0.0})
SUMMARY = {"rows": 2, "cut": 0, "predicted": {"good": 1, "bad": 1}}
Answer = Callable[[], UUID]


def predicted_rows() -> list[dict[str, Any]]:
    """Return the rows as a run writes them."""
    return [
        {
            **row,
            "predicted_label": next(iter(scores)),
            "predicted_score": next(iter(scores.values())),
            "predicted_scores": scores,
        }
        for row, scores in zip(ROWS, SCORES, strict=True)
    ]


MULTI_LABEL: dict[str, Any] = {
    "task": "multi_label",
    "rows": [
        {"id": "1", "predicted_labels": ["bad", "good"],
         "predicted_scores": {"good": 0.75, "bad": 0.5}},
        {"id": "2", "predicted_labels": [], "predicted_scores": {"bad": 0.25, "good": 0.0}},
    ],
    "summary": {"rows": 2, "cut": 0, "predicted": {"bad": 1, "good": 1}, "unlabeled": 1},
}  # fmt: skip
REGRESSION: dict[str, Any] = {
    "task": "regression",
    "labels": [],
    "rows": [
        {"id": "1", "predicted_value": 3.5, "predicted_low": 3.0, "predicted_high": 4.0},
        {"id": "2", "predicted_value": -1.0, "predicted_low": None, "predicted_high": None},
    ],
    "summary": {"rows": 2, "cut": 1, "predicted": {},
                "value": {"mean": 1.25, "min": -1.0, "max": 3.5}},
}  # fmt: skip


SEVERAL_TARGETS: dict[str, Any] = {
    "task": "several_targets",
    "labels": [],
    "targets": {
        "stars": {"task": "regression", "labels": []},
        "topic": {"task": "single_label", "labels": ["bad", "good"]},
    },
    "rows": [
        {"id": "1", "predicted_targets": {
            "stars": {"predicted_value": 3.5, "predicted_low": None, "predicted_high": None},
            "topic": {"predicted_label": "good", "predicted_score": 0.75,
                      "predicted_scores": {"good": 0.75, "bad": 0.25}},
        }},
    ],
    "summary": {"rows": 1, "cut": 0, "predicted": {"topic/good": 1},
                "unlabeled_by_target": {"flags": 1},
                "values": {"stars": {"mean": 3.5, "min": 3.5, "max": 3.5}}},
}  # fmt: skip


def store_results(
    resources: Resources,
    directory: Path,
    *,
    rows: Sequence[Mapping[str, Any]] | None = None,
    summary: dict[str, Any] = SUMMARY,
    **facts: Any,
) -> UUID:
    """Claim the next run and finish it with `rows`, by default with `predicted_rows`.

    `facts` are fields of its manifest.
    """
    claimed = claim_next(resources.database)
    directory.mkdir()
    lines = "".join(json.dumps(row) + "\n" for row in rows or predicted_rows())
    (directory / "results.jsonl").write_text(lines, encoding="utf-8")
    columns = ["id"] if rows else ["id", "body", "share", "seen", "tags"]
    facts = {"columns": columns, "labels": ["bad", "good"], **facts}
    manifest.create_and_save(directory, {"format": 1, "metrics": summary, **facts})
    run_id = claimed.lease.job_id
    ref = resources.store.move_directory_into_store(
        directory, f"predictions/{run_id}/a{claimed.lease.attempt}"
    )
    with resources.database.write() as session:
        artifact = artifacts.add_artifact(session, job_id=run_id, kind=RESULTS_KIND, ref=ref)
        leases.finish_attempt(session, claimed.lease, Succeeded(artifact.id, summary))
    return run_id


@pytest.fixture
def model(resources: Resources, tmp_path: Path) -> str:
    """Create a version in production; its files are never read."""
    directory = tmp_path / "model"
    directory.mkdir()
    manifest.create_and_save(directory, {"format": 1})
    return add_model(resources, directory)


@pytest.fixture
def texts(resources: Resources, tmp_path: Path) -> str:
    """Store a file of three rows without an inspection; return its name."""
    file = tmp_path / "reviews.csv"
    file.write_text(TEXTS)
    return add_texts(resources, file, rows=3).name


@pytest.fixture
def answer(resources: Resources, tmp_path: Path) -> Answer:
    """Return a function that finishes the next run."""
    return lambda: store_results(resources, tmp_path / "results")
