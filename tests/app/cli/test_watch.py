"""Following a job to its end, also over broken connections."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from time import sleep
from typing import cast

import pytest
from fastapi import FastAPI
from sqlalchemy import delete

from app.cli import watch
from app.cli.client import Client, JobStreamMessage
from app.cli.errors import RequestRejected, ServiceUnreachableOrFailed
from app.jobs.schemas import MetricPointView
from app.main import create_app
from app.queue.tables import Job
from app.settings import Settings
from tests.app.cli.conftest import FakeWorker, Run, answer, serving


def submitted(cli: Run, *options: str) -> str:
    return str(answer(cli("train", *options, "--json"))["id"])


def test_waiting_ends_with_the_result(cli: Run, worker: FakeWorker, tmp_path: Path) -> None:
    job = submitted(cli)
    worker.succeed(worker.claim(), tmp_path / "made", register_as="sentiment")
    result = cli("watch", job)
    assert result.exit_code == 0
    assert "Registered sentiment:1." in result.stdout


def test_watching_a_failed_job_exits_with_1(cli: Run, worker: FakeWorker) -> None:
    job = submitted(cli)
    worker.fail(worker.claim())
    result = cli("watch", job)
    assert result.exit_code == 1
    assert f"error: job {job} failed: Only one label. (one_class)" in result.stderr


def test_watching_a_cancelled_job_exits_with_1(cli: Run) -> None:
    job = submitted(cli)
    cli("jobs", "cancel", job)
    for options in ([], ["--json"]):
        result = cli("watch", job, *options)
        assert result.exit_code == 1
        assert "(job_cancelled)" in result.stderr


def test_json_prints_one_line_per_message(cli: Run, worker: FakeWorker, tmp_path: Path) -> None:
    job = submitted(cli)
    lease = worker.claim()
    worker.report(lease, 10, loss=0.7, accuracy=0.5)
    worker.succeed(lease, tmp_path / "made")
    lines = [json.loads(line) for line in cli("watch", job, "--json").stdout.splitlines()]
    kinds = [line["event"] for line in lines]
    assert kinds.count("metric") == 2
    assert kinds[-1] == "end"
    assert lines[-1]["data"]["state"] == "succeeded"


def test_watch_shows_events(cli: Run, worker: FakeWorker, tmp_path: Path) -> None:
    def work() -> None:
        lease = worker.claim()
        worker.report(lease, 50, loss=0.31, accuracy=0.8)
        worker.succeed(lease, tmp_path / "made")

    thread = threading.Thread(target=work)
    thread.start()
    result = cli("train", "--watch", "--name", "live")
    thread.join()
    assert result.exit_code == 0
    assert "At 50." in result.stderr
    assert "live (auto): succeeded" in result.stderr
    assert "linear (TF-IDF + logistic regression)" in result.stdout


def test_wait_prints_only_the_job(cli: Run, worker: FakeWorker) -> None:
    def fail() -> None:
        worker.fail(worker.claim())

    thread = threading.Thread(target=fail)
    thread.start()
    result = cli("train", "--wait", "--json")
    thread.join()
    assert result.exit_code == 1
    assert json.loads(result.stdout)["state"] == "failed"
    assert result.stderr.count("\n") == 1


def test_broken_stream_is_resumed(
    settings: Settings,
    worker: FakeWorker,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watch, "RETRY_SECONDS", 0.05)
    quiet = settings.model_copy(update={"log_level": "ERROR"})
    with serving(create_app(quiet)) as first:
        job = submitted(lambda *arguments: run(*arguments, LORAWORKS_URL=first))
        lease = worker.claim()
        worker.report(lease, 10, loss=0.7, accuracy=0.5)
        messages = watch.stream_job_messages(Client(first), job)
        seen = [next(messages) for _ in range(6)]
        port = int(first.rpartition(":")[2])
    worker.report(lease, 20, loss=0.6, accuracy=0.6)
    worker.succeed(lease, tmp_path / "made")
    with serving(create_app(quiet), port=port):
        seen += messages
    numbers = [message.id for message in seen if message.event in ("event", "metric")]
    assert numbers == sorted(set(numbers), key=int)
    steps = [message.body.step for message in seen if isinstance(message.body, MetricPointView)]
    assert steps == [10, 10, 20, 20]
    assert seen[-1].event == "end"


def test_long_outage_ends_watching(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(watch, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(watch, "OUTAGE_TIMEOUT", 0.05)
    with Client("http://127.0.0.1:9") as client, pytest.raises(ServiceUnreachableOrFailed):
        next(watch.stream_job_messages(client, "0"))
    assert capsys.readouterr().err.count("trying again") == 1


def test_outage_after_silence_is_waited_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queued job sends no messages, which is no outage."""
    monkeypatch.setattr(watch, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(watch, "OUTAGE_TIMEOUT", 0.05)
    point = MetricPointView(
        seq=1, attempt=1, split="train", name="loss", step=1, epoch=None, value=0.5,
        nonfinite=False, at=0.0,
    )  # fmt: skip

    class BreakingClient:
        connections = 0

        def stream_job(self, _job_id: str, _after: str | None) -> Iterator[JobStreamMessage]:
            self.connections += 1
            if self.connections == 1:
                yield JobStreamMessage("metric", "1", point)
                sleep(0.1)
                raise ServiceUnreachableOrFailed("it restarts", "unreachable")
            yield JobStreamMessage("end", "1", point)

    messages = watch.stream_job_messages(cast(Client, BreakingClient()), "0")
    assert [each.event for each in messages] == ["metric", "end"]


def test_deleted_job_ends_watching(
    cli: Run, app: FastAPI, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "RETRY_SECONDS", 0.01)
    job = submitted(cli)
    with Client(url) as client:
        messages = watch.stream_job_messages(client, job)
        next(messages)
        with app.state.resources.database.write() as session:
            session.execute(delete(Job))  # in one step: a cancelled job ends its stream
        with pytest.raises(RequestRejected, match="no job"):
            list(messages)


def test_ctrl_c_keeps_the_job_running(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(client: Client, job_id: str) -> Iterator[JobStreamMessage]:
        raise KeyboardInterrupt

    monkeypatch.setattr(watch, "stream_job_messages", interrupted)
    job = submitted(cli)
    result = cli("watch", job)
    assert result.exit_code == 130
    assert f"loraworks watch {job}" in result.stderr
    assert answer(cli("jobs", "show", job, "--json"))["state"] == "queued"
