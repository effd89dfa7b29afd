"""Create finished jobs without training."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import httpx2
import numpy as np
from numpy.typing import NDArray

from app.jobs.results import comparison
from app.queue.transitions import AttemptResult, Succeeded
from app.registry import service as registry
from app.resources import Resources
from app.storage import repository as artifacts
from app.storage.tables import MODEL_KIND
from lora_core import manifest
from lora_core.data.more_labels_estimate import MoreLabelsEstimate
from lora_core.data.split import Example
from lora_core.results import Verdict
from lora_core.saved_predictions import save_predictions
from lora_core.tasks.base import Calibration, Task
from lora_core.tasks.single_label import SingleLabel
from lora_core.training.correctness import grade_predictions, save_misclassified
from lora_core.verdict import ReferencePredictions, build_verdict
from tests.app.jobs.fake_worker import FakeWorker
from tests.job_rows import MANIFEST

HOSTILE = "<img src=x onerror=alert(1)>"


def add(client: httpx2.Client, **fields: Any) -> str:
    """Submit a job; return its id."""
    response = client.post("/v1/jobs", json={"method": {"type": "baseline"}, **fields})
    assert response.status_code == 202, response.text
    job_id: str = response.json()["id"]
    return job_id


def end(resources: Resources, ending: AttemptResult, *, step: int = 3) -> None:
    """Run the next queued job to the given attempt result."""
    worker = FakeWorker(resources.database)
    lease = worker.claim().lease
    worker.log(lease, step=step, points={"loss": 0.5})
    worker.finish(lease, ending)


def succeed(
    client: httpx2.Client,
    resources: Resources,
    *,
    right: int = 8,
    of: int = 10,
    labels: tuple[str, ...] = ("no", "yes"),
    texts: str = "text",
    model: str | None = None,
    more_labels: MoreLabelsEstimate | None = None,
    verdict: Verdict | None = None,
    **fields: Any,
) -> str:
    """Submit a job and finish it; return its id.

    The first `right` of its `of` test texts are predicted correctly.
    """
    job_id = add(client, **fields)
    lease = FakeWorker(resources.database).claim().lease
    directory = resources.settings.data_dir / f"made-{job_id}"
    directory.mkdir()
    examples = [Example(i + 1, f"{texts} {i} {HOSTILE}", i % len(labels)) for i in range(of)]
    logits = np.zeros((of, len(labels)), dtype=np.float32)
    for i, example in enumerate(examples):
        logits[i, (example.label + (i >= right)) % len(labels)] = 2 + i / of
    task, predicted = SingleLabel(labels), logits.argmax(axis=1)
    save_predictions(directory, "test", examples, logits, predicted.tolist())
    save_misclassified(directory, "test", examples, logits, task, Calibration())
    manifest.create_and_save(directory, {**MANIFEST, "labels": labels})
    ref = resources.store.move_directory_into_store(directory, f"jobs/{job_id}/a1")
    matrix = np.zeros((len(labels), len(labels)), dtype=int)
    for example, row in zip(examples, logits, strict=True):
        matrix[example.label, row.argmax()] += 1
    metrics = {"accuracy": right / of, "macro_f1": 0.5, "balanced_accuracy": 0.6, "loss": 0.7}
    label_metrics = {"precision": 0.25, "recall": 0.5, "f1": 0.75, "support": of}
    part = {
        **metrics,
        "confusion_matrix": matrix.tolist(),
        "per_class": dict.fromkeys(labels, label_metrics),
    }
    summary = {
        "labels": list(labels), "trainable_parameters": 1234, "total_parameters": 5678,
        "best_step": 2, "stopped_early": False, "train_seconds": 3.0, "test": part,
        "linear": {"test": {"accuracy": 0.55}, "validation": {"accuracy": 0.45}},
    }  # fmt: skip
    if more_labels is not None:
        summary["more_labels"] = more_labels.model_dump(mode="json")
    if verdict is not None:
        summary["verdict"] = verdict.model_dump(mode="json")
    with resources.database.write() as session:
        artifact = artifacts.add_artifact(session, job_id=UUID(job_id), kind=MODEL_KIND, ref=ref)
        comparison.store_correctness(
            session, UUID(job_id), {"test": grade_predictions(examples, task, predicted)}
        )
        if model is not None:
            facts = {**MANIFEST, "metrics": summary}
            registry.add_version(session, name=model, artifact=artifact, manifest=facts)
    FakeWorker(resources.database).finish(lease, Succeeded(artifact.id, summary))
    return job_id


def make_verdict(*, learned: bool) -> Verdict:
    """Return the verdict on a model whose predictions are right, or all the same.

    Those of the linear model are right.
    """
    texts = np.arange(100)
    truth = texts % 2
    return build_verdict(
        SingleLabel(("no", "yes")),
        truth,
        truth if learned else np.zeros_like(truth),
        {"linear": ReferencePredictions(texts, truth)},
        training_targets=truth,
    )


def succeed_with(
    client: httpx2.Client,
    resources: Resources,
    task: Task,
    examples: Sequence[Example],
    logits: NDArray[np.float32],
    /,
    *,
    model: str | None = None,
    texts: bool = True,
    **fields: Any,
) -> str:
    """Submit a job and finish it with these test predictions; return its id.

    `texts`: whether the misclassified texts are saved, as by runs that save a model.
    """
    job_id = add(client, **fields)
    lease = FakeWorker(resources.database).claim().lease
    directory = resources.settings.data_dir / f"made-{job_id}"
    directory.mkdir()
    targets = task.targets([example.label for example in examples])
    calibration = task.calibrate(logits, targets)
    predicted = task.predict(logits, calibration)
    save_predictions(directory, "test", examples, logits, map(task.prediction_to_target, predicted))
    if texts:
        save_misclassified(directory, "test", examples, logits, task, calibration)
    spec = client.get(f"/v1/jobs/{job_id}").json()["spec"]
    report = task.report(logits, targets, calibration)
    summary: dict[str, Any] = {
        "labels": list(task.labels), "trainable_parameters": 1234, "total_parameters": 5678,
        "best_step": 2, "stopped_early": False, "train_seconds": 3.0,
        "validation": report, "test": report,
        "calibration": calibration.model_dump(mode="json")
        | dict.fromkeys(
            ("validation", "test"), task.evaluate_calibration(logits, targets, calibration)
        ),
    }  # fmt: skip
    facts = {
        "spec": spec,
        "labels": list(task.labels),
        "calibration": calibration.model_dump(mode="json"),
        "metrics": summary,
    }
    manifest.create_and_save(directory, facts)
    ref = resources.store.move_directory_into_store(directory, f"jobs/{job_id}/a1")
    with resources.database.write() as session:
        artifact = artifacts.add_artifact(session, job_id=UUID(job_id), kind=MODEL_KIND, ref=ref)
        comparison.store_correctness(
            session, UUID(job_id), {"test": grade_predictions(examples, task, predicted)}
        )
        if model is not None:
            registry.add_version(session, name=model, artifact=artifact, manifest=facts)
    FakeWorker(resources.database).finish(lease, Succeeded(artifact.id, summary))
    return job_id
