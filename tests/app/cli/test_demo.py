"""`loraworks demo`: all methods, promotion of the best, predictions, and cleanup."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.cli import demo
from app.cli.client import Client
from app.cli.demo import temporary_service
from app.cli.errors import RunFailed
from lora_core.tasks.single_label import SingleLabel
from lora_core.verdict import build_verdict
from tests.app.cli.conftest import FakeWorker, Run, answer
from tests.slow import slow_but

TRUTH = np.array([0, 1] * 100)
VERDICT = build_verdict(
    SingleLabel(("neg", "pos")),
    TRUTH,
    np.array([0, 1] * 80 + [1, 0] * 20),
    {},
    training_targets=TRUTH,
).model_dump(mode="json")


def metrics(share: float) -> dict[str, Any]:
    """Return the summary of a run with this accuracy."""
    part = {"accuracy": share, "macro_f1": share}
    return {"validation": part, "test": part, "verdict": VERDICT}


SHARES = {"linear": 0.74, "probe": 0.76, "baseline": 0.7, "lora": 0.83, "full": 0.82}
ALL = [metrics(share) for share in SHARES.values()]


@contextmanager
def working(worker: FakeWorker, folder: Path, *metrics: dict[str, Any]) -> Iterator[None]:
    """A worker that makes jobs succeed with these metrics, in order."""

    def work() -> None:
        for number, each in enumerate(metrics):
            lease = worker.claim()
            worker.report(lease, 10, loss=0.5, accuracy=0.7)
            worker.succeed(lease, folder / str(number), register_as="sentiment", **each)

    thread = threading.Thread(target=work)
    thread.start()
    yield
    thread.join()


def test_all_jobs_use_the_same_split(
    cli: Run, url: str, worker: FakeWorker, tmp_path: Path
) -> None:
    with working(worker, tmp_path, *ALL), Client(url) as client:
        jobs = demo.train_each_method(client, "rotten-tomatoes")
    assert [job.spec["method"]["type"] for job in jobs.values()] == [*SHARES]
    method = jobs["lora"].spec["method"]
    assert (method["r"], method["alpha"]) == (8, 16)
    data = [
        {name: job.spec["data"][name] for name in ("train_size", "validation_size", "test_size")}
        for job in jobs.values()
    ]
    assert data == [{"train_size": 2000, "validation_size": 500, "test_size": 1000}] * 5
    assert {job.register_as for job in jobs.values()} == {"sentiment"}


@pytest.mark.parametrize("best", slow_but(range(5), 0, 3))
def test_best_model_on_validation_is_promoted(
    cli: Run, url: str, worker: FakeWorker, tmp_path: Path, best: int
) -> None:
    found = [metrics(0.9 if number == best else 0.8) for number in range(5)]
    with working(worker, tmp_path, *found), Client(url) as client:
        demo.promote_best(client, demo.train_each_method(client, "imdb"))
    aliases = answer(cli("models", "show", "sentiment", "--json"))["aliases"]
    assert aliases == {"production": best + 1}


def test_table_lists_all_methods_and_json_has_fractions(
    url: str, worker: FakeWorker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with working(worker, tmp_path, *ALL), Client(url) as client:
        jobs = demo.train_each_method(client, "rotten-tomatoes")
    capsys.readouterr()
    predictions = [{"text": "fine", "label": "pos", "score": 0.9}]
    demo.print_comparison(jobs, predictions, "sentiment:1")
    output = capsys.readouterr().out
    rows = [line.split()[0] for line in output.splitlines() if "%" in line]
    assert rows[:5] == [*SHARES]
    assert VERDICT["headline"] in output
    assert demo.summary_for_scripts(jobs, predictions) == {
        "jobs": [str(job.id) for job in jobs.values()],
        **{f"{name}_test_accuracy": share for name, share in SHARES.items()},
        "promoted": "lora",
        "predictions": predictions,
    }


def test_failed_job_ends_the_demo(url: str, worker: FakeWorker) -> None:
    thread = threading.Thread(target=lambda: worker.fail(worker.claim()))
    thread.start()
    with Client(url) as client, pytest.raises(RunFailed, match="Only one label"):
        demo.train_each_method(client, "rotten-tomatoes")
    thread.join()


@pytest.mark.e2e
@pytest.mark.slow  # what it is started with: the next test; that it goes: the one after
def test_temporary_service_ignores_outer_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORAWORKS_AUTH", "on")

    def use_and_fail() -> None:
        with temporary_service(tmp_path) as url, Client(url) as client:
            assert client.list_jobs(1) == []
            urls.append(url)
            raise RuntimeError("something else went wrong")

    urls: list[str] = []
    with pytest.raises(RuntimeError, match="something else"):
        use_and_fail()
    with Client(urls[0]) as client:
        assert not client.is_ready()


def test_temporary_service_gets_slots_and_no_outer_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = "{name: value for name, value in os.environ.items() if name.startswith('LORAWORKS_')}"
    program = f"import json, os; print(json.dumps({{'url': json.dumps({ours})}}))"
    monkeypatch.setattr("app.cli.demo.SERVICE_COMMAND", (sys.executable, "-c", program))
    monkeypatch.setenv("LORAWORKS_AUTH", "on")
    with temporary_service(tmp_path, concurrency=2) as environment:
        assert json.loads(environment) == {"LORAWORKS_CONCURRENCY": "2"}


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("number", "status"),
    [
        # The exception that SIGTERM raises; test_local.py also tests the exit status 130.
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGKILL, -9, marks=pytest.mark.slow),
    ],
)
def test_interrupt_stops_the_service(tmp_path: Path, number: signal.Signals, status: int) -> None:
    command = [sys.executable, "-m", "app.cli.main", "demo"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        ready = next(line for line in process.stdout if line.startswith("Ready: "))
        process.send_signal(number)
        assert process.wait(timeout=60) == status
    with Client(ready.split()[1].rstrip(",")) as client:
        deadline = time.monotonic() + 30
        while client.is_ready() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not client.is_ready()
    assert number == signal.SIGKILL or list(tmp_path.iterdir()) == []


@pytest.mark.e2e
@pytest.mark.slow
def test_the_whole_demo_on_a_few_sentences(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {"train_size": 32, "validation_size": 16, "test_size": 16}
    monkeypatch.setattr(demo, "SPLIT_SIZES", {"rotten-tomatoes": few})
    monkeypatch.setattr(
        demo, "METHOD_SETTINGS", {key: {"epochs": 1} for key in demo.METHOD_SETTINGS}
    )
    review = 'A "fine" film; it\'s $good'
    result = run("demo", "--review", review)
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout.splitlines()[-1])
    assert set(summary["seconds"]) == {"service", *demo.METHOD_SETTINGS, "total"}
    assert [each["text"] for each in summary["predictions"]] == [review, demo.SAMPLE_REVIEWS[0]]
    assert 0 <= summary["linear_test_accuracy"] <= 1
