"""A fine-tuning job of the OpenAI API from file to answer, by the unmodified client."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import OpenAI

from app.main import create_app
from app.settings import Settings
from tests.app.cli.conftest import serving
from tests.tiny_base import make_chat_examples
from tests.waiting import wait_until
from worker.service import open_service

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


@pytest.fixture
def client(settings: Settings) -> Iterator[OpenAI]:
    """A client of a service with a worker, whose training starts in a fresh interpreter."""
    worker = open_service(settings.model_copy(update={"fork_server": False}))
    worker.start()
    with (
        serving(create_app(settings)) as address,
        OpenAI(base_url=f"{address}/openai/v1", api_key="none") as client,
    ):
        yield client
    assert worker.requeue_jobs_and_wait()
    worker.close()


def test_a_job_runs_to_its_end(client: OpenAI, tmp_path: Path) -> None:
    train = make_chat_examples(tmp_path / "films.jsonl", rows=120)
    check = make_chat_examples(tmp_path / "check.jsonl", rows=24)
    files = [client.files.create(file=path, purpose="fine-tune").id for path in (train, check)]
    job = client.fine_tuning.jobs.create(
        model="babbage-002",
        training_file=files[0],
        validation_file=files[1],
        suffix="films",
        extra_body={"method": {"type": "auto", "auto": {"time_budget": 20}}},  # seconds: no LoRA
    )

    def ended() -> bool:
        return client.fine_tuning.jobs.retrieve(job.id).finished_at is not None

    wait_until(ended, seconds=240, what="the end of the job")
    done = client.fine_tuning.jobs.retrieve(job.id)
    assert (done.status, done.error) == ("succeeded", None)
    events = list(client.fine_tuning.jobs.list_events(job.id, limit=5))
    messages = " ".join(event.message for event in events)
    assert "babbage-002 is a model of OpenAI" in messages
    assert "the beginning 'Sort the review:', the end '###'" in messages
    [metrics] = [event for event in events if event.type == "metrics"]
    assert isinstance(metrics.data, dict)
    accuracy = metrics.data["valid_mean_token_accuracy"]

    results = client.files.content(done.result_files[0]).text
    [last] = [row for row in csv.DictReader(io.StringIO(results)) if row["train_accuracy"]]
    assert float(last["valid_mean_token_accuracy"]) == accuracy > 0.8
    [checkpoint] = client.fine_tuning.jobs.checkpoints.list(job.id)
    assert checkpoint.metrics.valid_mean_token_accuracy == accuracy
    assert checkpoint.fine_tuned_model_checkpoint == done.fine_tuned_model
    assert client.models.retrieve(checkpoint.fine_tuned_model_checkpoint).owned_by == "loraworks"

    # The model may be a linear one, on which nothing can be trained.
    again = client.fine_tuning.jobs.create(
        model=checkpoint.fine_tuned_model_checkpoint, training_file=files[0]
    )
    assert again.model in ("films:1", "minilm-l6")
    client.fine_tuning.jobs.cancel(again.id)
