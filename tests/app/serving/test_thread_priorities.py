"""The event loop runs before all other threads, if that is permitted."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import TypeVar

from fastapi.testclient import TestClient

from app.serving.thread_priorities import raise_event_loop_priority

T = TypeVar("T")

WITHOUT_PERMISSION = """
import os, resource
from app.serving.thread_priorities import raise_event_loop_priority
resource.setrlimit(resource.RLIMIT_RTPRIO, (0, 0))
if os.geteuid() == 0:
    os.setuid(65534)
assert not raise_event_loop_priority()
assert os.sched_getscheduler(0) == os.SCHED_OTHER
"""


def is_permitted() -> bool:
    become_real_time = "import os; os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))"
    return not subprocess.run([sys.executable, "-c", become_real_time], check=False).returncode


def run_in_thread(work: Callable[[], T]) -> T:
    results: list[T] = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join()
    return results[0]


def policy() -> int:
    return os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK


def test_only_the_calling_thread_becomes_a_real_time_thread() -> None:
    def policies() -> tuple[bool, int, int]:
        return raise_event_loop_priority(), policy(), run_in_thread(policy)

    expected = os.SCHED_RR if is_permitted() else os.SCHED_OTHER
    assert run_in_thread(policies) == (is_permitted(), expected, os.SCHED_OTHER)
    assert policy() == os.SCHED_OTHER


def test_without_permission_it_stays_a_normal_thread() -> None:
    subprocess.run([sys.executable, "-c", WITHOUT_PERMISSION], check=True)


def test_event_loop_of_the_service_has_the_priority(client: TestClient) -> None:
    assert client.portal is not None
    expected = os.SCHED_RR if is_permitted() else os.SCHED_OTHER
    assert client.portal.call(policy) == expected
