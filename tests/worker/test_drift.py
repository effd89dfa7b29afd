"""Workers check for drift beside their jobs."""

import threading
from collections.abc import Iterator
from functools import partial

import pytest

from app.resources import Resources
from app.settings import Settings
from tests.waiting import wait_until
from tests.worker.scripted import scripted
from tests.worker.test_job_runner import GOOD
from worker import drift
from worker.background import repeat_until_drained
from worker.service import open_service


@pytest.fixture
def draining() -> Iterator[threading.Event]:
    flag = threading.Event()
    yield flag
    flag.set()


def test_due_checks_are_made_and_errors_end_nothing(
    resources: Resources, draining: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[bool | Exception] = [True, True, False, RuntimeError("broken"), True, False]
    calls = []

    def check(given: Resources) -> bool:
        assert given is resources
        calls.append(given)
        answer = answers[len(calls) - 1] if len(calls) <= len(answers) else False
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr("worker.drift.run_next_due_check", check)
    task = partial(drift.run_due_drift_checks, resources, draining=draining)
    thread = threading.Thread(
        target=repeat_until_drained,
        args=(task,),
        kwargs={"name": "drift", "seconds": 0.01, "draining": draining},
    )
    thread.start()
    wait_until(lambda: len(calls) > len(answers), what="checks")
    draining.set()
    thread.join(10)
    assert not thread.is_alive()


def test_a_worker_makes_checks(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    checked = threading.Event()
    monkeypatch.setattr("worker.drift.run_next_due_check", lambda _: checked.set())
    monkeypatch.setattr(drift, "POLL_SECONDS", 0.01)
    scripted(*GOOD)
    opened = open_service(settings)
    opened.start()
    assert checked.wait(30)
    opened.requeue_jobs_and_wait()
    opened.close()
