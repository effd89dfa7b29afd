"""A classifier job of the Mistral API from file to answer, by the unmodified client."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from mistralai.client import Mistral

from app.main import create_app
from app.settings import Settings
from tests.app.cli.conftest import serving
from tests.waiting import wait_until
from worker.service import open_service

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
WORDS = {"good": ("fine", "great", "lovely"), "bad": ("dull", "awful", "boring")}


@pytest.fixture
def client(settings: Settings) -> Iterator[Any]:
    """A client of a service with a worker."""
    worker = open_service(settings)
    worker.start()
    with (
        serving(create_app(settings)) as address,
        Mistral(server_url=f"{address}/mistral", api_key="none") as client,
    ):
        yield client
    assert worker.requeue_jobs_and_wait()
    worker.close()


def conversations(rows: int) -> bytes:
    """Return conversations with a mood, and with the kind of work as any number of labels."""
    lines = []
    for i in range(rows):
        mood = ("good", "bad")[i % 2]
        film = i % 3 == 0
        word = WORDS[mood][i // 2 % 3]
        text = f"Rate this: {'film' if film else 'book'} {i} was {word} and {word}"
        messages = [{"role": "user", "content": text}]
        labels = {"Mood": mood, "kinds": ["film"] if film else []}
        lines.append(json.dumps({"messages": messages, "labels": labels}))
    return "\n".join(lines).encode()


@pytest.mark.slow  # the small form is in test_openai.py
def test_a_job_runs_to_its_end(client: Any) -> None:
    content = conversations(48)
    file = client.files.upload(file={"file_name": "reviews.jsonl", "content": content})
    job = client.fine_tuning.jobs.create(
        model="ministral-3b-latest",
        job_type="classifier",
        training_files=[{"file_id": file.id, "weight": 1}],
        hyperparameters={"training_steps": 2, "learning_rate": 1e-4},
        classifier_targets=[
            {"name": "Mood", "labels": ["good", "bad"], "weight": 1},
            {"name": "kinds", "labels": ["film"], "weight": 1, "loss_function": "multi_class"},
        ],
        suffix="reviews",
        auto_start=False,
    )
    assert job.status == "VALIDATED"
    client.fine_tuning.jobs.start(job_id=job.id)

    def ended() -> bool:
        status = client.fine_tuning.jobs.get(job_id=job.id).status
        return status in ("SUCCESS", "FAILED", "FAILED_VALIDATION", "CANCELLED")

    wait_until(ended, seconds=240, what="the end of the job")
    done = client.fine_tuning.jobs.get(job_id=job.id)
    assert done.status == "SUCCESS", done.events
    assert done.trained_tokens
    assert done.checkpoints
    assert done.checkpoints[0].metrics.valid_loss is not None
    model = done.fine_tuned_model
    assert model is not None
    card = client.models.retrieve(model_id=model)
    assert card.aliases == ["reviews:1"]

    messages = [{"role": "user", "content": "Rate this: film 7 was great and great"}]
    for name in (model, "reviews:1"):
        [result] = client.classifiers.classify_chat(
            model=name,
            input={"messages": messages},
        ).results
        assert set(result) == {"Mood", "kinds"}
        assert sum(result["Mood"].scores.values()) == pytest.approx(1, abs=1e-5)
        assert result["Mood"].scores["good"] > 0.5
        assert set(result["kinds"].scores) == {"film"}
    [as_text] = client.classifiers.classify(
        model=model, inputs=["Rate this: film 7 was great and great"]
    ).results
    assert as_text["Mood"].scores == pytest.approx(result["Mood"].scores, abs=1e-6)
