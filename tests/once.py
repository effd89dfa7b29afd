"""Share an expensive value between all processes of a pytest run."""

import os
from collections.abc import Callable
from fcntl import LOCK_EX, flock
from pathlib import Path

import pytest


def once(folders: pytest.TempPathFactory, name: str, make: Callable[[Path], str]) -> str:
    """The text that `make` returns, called in one process only with an empty folder."""
    shared = folders.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    with (shared / f"{name}.lock").open("w") as lock:
        flock(lock, LOCK_EX)
        kept = shared / f"{name}.made"
        if not kept.exists():
            kept.write_text(make(folders.mktemp(name)), encoding="utf-8")
    return kept.read_text(encoding="utf-8")
