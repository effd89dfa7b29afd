"""`loraworks demo`: two jobs, the better one promoted, two answers, nothing left running."""

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

import pytest

from app.cli import demo
from app.cli.client import Client
from app.cli.errors import RunFailed
from app.cli.own_service import own_service
from tests.app.cli.conftest import FakeWorker, Run, answer

LORA = {
    "validation": {"accuracy": 0.83, "macro_f1": 0.829},
    "test": {"accuracy": 0.823, "macro_f1": 0.822},
}
BASELINE = {
    "validation": {"accuracy": 0.7, "macro_f1": 0.69},
    "test": {"accuracy": 0.696, "macro_f1": 0.69},
}


@contextmanager
def working(worker: FakeWorker, folder: Path, *figures: dict[str, Any]) -> Iterator[None]:
    """A worker that makes the jobs succeed with these figures, in the order they come."""

    def work() -> None:
        for number, each in enumerate(figures):
            lease = worker.claim()
            worker.report(lease, 10, loss=0.5, accuracy=0.7)
            worker.succeed(lease, folder / str(number), register_as="sentiment", **each)

    thread = threading.Thread(target=work)
    thread.start()
    yield
    thread.join()


def test_both_jobs_learn_from_one_split(
    cli: Run, url: str, worker: FakeWorker, tmp_path: Path
) -> None:
    with working(worker, tmp_path, LORA, BASELINE), Client(url) as client:
        jobs = demo.train_both(client, "rotten-tomatoes")
    lora, baseline = jobs["lora"]["spec"], jobs["baseline"]["spec"]
    method = lora["method"]
    assert (method["r"], method["alpha"]) == (8, 16)
    assert method["targets"] == ["query", "key", "value", "projection", "mlp"]
    assert baseline["method"]["type"] == "baseline"
    assert lora["data"] == baseline["data"]
    data = lora["data"]
    assert (data["train_size"], data["validation_size"], data["test_size"]) == (4000, 1000, 2000)
    assert {job["register_as"] for job in jobs.values()} == {"sentiment"}


@pytest.mark.parametrize(("figures", "best"), [((LORA, BASELINE), 1), ((BASELINE, LORA), 2)])
def test_the_better_one_on_validation_goes_into_production(
    cli: Run, url: str, worker: FakeWorker, tmp_path: Path, figures: Any, best: int
) -> None:
    with working(worker, tmp_path, *figures), Client(url) as client:
        demo.promote_better(client, demo.train_both(client, "imdb"))
    assert answer(cli("models", "show", "sentiment", "--json"))["aliases"] == {"production": best}


def test_a_table_names_the_winner_and_a_script_gets_shares(
    url: str, worker: FakeWorker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with working(worker, tmp_path, LORA, BASELINE), Client(url) as client:
        jobs = demo.train_both(client, "rotten-tomatoes")
    capsys.readouterr()
    predictions = [{"text": "fine", "label": "pos", "score": 0.9}]
    demo.print_comparison(jobs, predictions, "sentiment:1")
    told = capsys.readouterr().out
    rows = [line.split()[0] for line in told.splitlines() if "74.4 %" in line or "%" in line]
    assert rows[:3] == ["lora", "baseline", "linear"]
    assert "lora beats the linear rival by 7.9 points" in told
    assert "The linear rival beats baseline by 4.8 points" in told
    assert demo.result(jobs, predictions) == {
        "jobs": [jobs["lora"]["id"], jobs["baseline"]["id"]],
        "lora_test_accuracy": 0.823,
        "baseline_test_accuracy": 0.696,
        "linear_test_accuracy": 0.744,
        "predictions": predictions,
    }


def test_a_job_that_fails_ends_the_demo(url: str, worker: FakeWorker) -> None:
    thread = threading.Thread(target=lambda: worker.fail(worker.claim()))
    thread.start()
    with Client(url) as client, pytest.raises(RunFailed, match="Only one label"):
        demo.train_both(client, "rotten-tomatoes")
    thread.join()


@pytest.mark.e2e
@pytest.mark.slow  # what it is started with: the next test; that it goes: the one after
def test_its_own_service_ignores_settings_from_outside_and_goes_with_the_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORAWORKS_AUTH", "on")

    def use_and_fail() -> None:
        with own_service(tmp_path) as url, Client(url) as client:
            assert client.jobs(1) == []
            urls.append(url)
            raise RuntimeError("something else went wrong")

    urls: list[str] = []
    with pytest.raises(RuntimeError, match="something else"):
        use_and_fail()
    with Client(urls[0]) as client:
        assert not client.ready()


def test_its_own_service_is_told_the_slots_that_are_wanted_and_no_setting_from_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = "{name: value for name, value in os.environ.items() if name.startswith('LORAWORKS_')}"
    program = f"import json, os; print(json.dumps({{'url': json.dumps({ours})}}))"
    monkeypatch.setattr("app.cli.own_service.COMMAND", (sys.executable, "-c", program))
    monkeypatch.setenv("LORAWORKS_AUTH", "on")
    with own_service(tmp_path, slots=2) as told:
        assert json.loads(told) == {"LORAWORKS_SLOTS": "2"}


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("number", "status"),
    [
        # An exception as SIGTERM makes one; that it ends with 130 stands in test_local.py, too.
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
        (signal.SIGTERM, 143),
        (signal.SIGKILL, -9),
    ],
)
def test_nothing_is_left_when_it_is_interrupted(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
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
        while client.ready() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not client.ready()
    assert number == signal.SIGKILL or list(tmp_path.iterdir()) == []


@pytest.mark.e2e
@pytest.mark.slow
def test_the_whole_demo_on_a_few_sentences(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {"train_size": 32, "validation_size": 16, "test_size": 16}
    monkeypatch.setattr(demo, "SIZES", {"rotten-tomatoes": few})
    monkeypatch.setattr(demo, "OPTIM", {key: {"epochs": 1} for key in demo.OPTIM})
    review = 'A "fine" film; it\'s $good'
    result = run("demo", "--review", review)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout.splitlines()[-1])
    assert set(told["seconds"]) == {"service", "lora", "baseline", "total"}
    assert [each["text"] for each in told["predictions"]] == [review, demo.REVIEWS[0]]
    assert 0 <= told["linear_test_accuracy"] <= 1
