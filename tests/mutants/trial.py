"""Runs tests on a mutated copy of the repository, in a process forked from one that has the
libraries loaded.

The tests stop at the first failure, and their processes, files and servers are removed.
"""

import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.mutants.mutations import Mutation
from tests.mutants.places import ROOT

_OURS = ("app", "lora_core", "worker", "migrations", "tests")
_LIBRARIES = (
    "torch",
    "transformers",
    "fastapi",
    "starlette.testclient",
    "sqlalchemy.orm",
    "celery",
    "alembic",
    "psycopg",
)
_NATIVE = "lora_core/fast/native/build"  # not in git
_BROKEN = 70  # exit status: a trial that says nothing
_EXIT_SECONDS = 10.0
_FLAGS = (
    *("-x", "-q", "--tb=no", "--hypothesis-seed=0", "-m", "not slow and not e2e"),
    *("-p", "no:randomly", "-p", "no:cacheprovider", "-p", "no:xdist"),
    *("-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning"),
)


def load_libraries() -> None:
    """Load what most tests need, once for all trials. None of it is mutated."""
    for name in _LIBRARIES:
        importlib.import_module(name)


class Copy:
    """A copy of the working tree in which one trial runs at a time."""

    def __init__(self, folder: Path) -> None:
        self.tree = folder / "tree"
        self.temporary = folder / "tmp"
        self._log = folder / "log"
        self._failed = folder / "failed"
        self._pid = 0
        self._deadline = 0.0
        self._times = 0
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).is_file():
                (self.tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.tree / name)
        if (ROOT / _NATIVE).exists():
            shutil.copytree(ROOT / _NATIVE, self.tree / _NATIVE)
        folder.chmod(0o755)  # PostgreSQL runs as another user

    def start(self, mutation: Mutation | None, tests: Sequence[str], *, seconds: float) -> None:
        """Start the tests on the mutated copy, or on one without a mutation."""
        self.temporary.mkdir(mode=0o755)
        self._failed.unlink(missing_ok=True)
        if mutation is not None:
            self._times += 1
            file = self.tree / mutation.path
            file.write_bytes(mutation.apply(file.read_bytes()))
            # A time of its own, or a compiled file of the last mutation might pass for its own.
            os.utime(file, (self._times, self._times))
        self._deadline = time.monotonic() + seconds
        self._pid = os.fork()
        if self._pid == 0:
            try:
                self._run(tests)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(_BROKEN)

    def poll(self) -> int | None:
        """Return the exit status of the tests, -SIGKILL if their time is over, None if they run."""
        pid, status = os.waitpid(self._pid, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() < self._deadline:
            return None
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        return -signal.SIGKILL

    def clean_up(self, mutation: Mutation | None) -> str:
        """End what the tests left, undo the mutation and return the first failed test."""
        with suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)
        if mutation is not None:
            shutil.copy2(ROOT / mutation.path, self.tree / mutation.path)
        deadline = time.monotonic() + _EXIT_SECONDS
        while self.temporary.exists() and time.monotonic() < deadline:  # servers may still write
            shutil.rmtree(self.temporary, ignore_errors=True)
        return self._failed.read_text() if self._failed.exists() else ""

    def output(self) -> str:
        """Return the output of the last trial."""
        return self._log.read_text(errors="replace")

    def _run(self, tests: Sequence[str]) -> None:
        os.setsid()
        with self._log.open("wb") as log:
            for number in (1, 2):
                os.dup2(log.fileno(), number)
        os.chdir(self.tree)
        # Twice: for what the tests import, and for the processes that they start.
        sys.path = [str(self.tree), *(each for each in sys.path if Path(each) != ROOT)]
        os.environ |= {"PYTHONPATH": str(self.tree), "TMPDIR": str(self.temporary)}
        os.environ |= {"OMP_NUM_THREADS": "1"}
        tempfile.tempdir = None
        for name in [each for each in sys.modules if each.partition(".")[0] in _OURS]:
            del sys.modules[name]
        status = pytest.main([*_FLAGS, *tests], plugins=[_FirstFailure(self._failed)])
        sys.stdout.flush()
        os._exit(status if _all_below(self.tree) else _BROKEN)


class _FirstFailure:
    """Writes the name of the first test that fails."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self._file.write_text(report.nodeid)


def _all_below(tree: Path) -> bool:
    """Whether every module of ours was loaded from the copy."""
    files = [
        file
        for name, module in sys.modules.items()
        if name.partition(".")[0] in _OURS and (file := getattr(module, "__file__", None))
    ]
    return all(Path(file).is_relative_to(tree) for file in files)
