"""Processes of an installation, forked from one that has imported everything.

A run takes a fraction of a second then, most of which a fresh interpreter would spend on imports.
"""

import faulthandler
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any, NoReturn

from app.sandbox import runner
from lora_core import fork_server
from lora_core.__main__ import main_and_exit
from lora_core.data import learning_curve
from lora_core.data.data_report import DataReport
from lora_core.data.file_inspection import FileContents
from lora_core.process_settings import die_with_parent
from tests.crash_points.probe import Probe
from tests.in_process_sandbox import run_in_process

LONGEST_SECONDS = 300.0  # of one process
_HIGHEST_FD = 4096
_original_parameters = signature(subprocess.Popen._execute_child)  # type: ignore[attr-defined]


def call_in_fork(function: Callable[[], object], *, log: Path) -> int:
    """Call `function` in a forked process that leads a session of its own; return its exit status,
    or minus the signal. After `LONGEST_SECONDS` it is killed.
    """
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:
        raise RuntimeError(f"cannot fork a process with {threads} threads")
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        die_with_parent(parent)
        with log.open("ab") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        faulthandler.enable()  # shows where it hangs
        _exit_after(function)
    deadline = time.monotonic() + LONGEST_SECONDS
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.killpg(pid, signal.SIGABRT)
            deadline = float("inf")
        time.sleep(0.005)


def fork_trainings(probe: Probe) -> None:
    """Let this process fork its trainings and its fork server, and read uploads itself: it starts
    no interpreter.

    Uploads are read without a learning curve, which takes a second.
    """
    runner.run_lora_core_sandboxed = run_in_process
    learning_curve.add_learning_curve_to_report = _add_nothing
    fork_server.confine_process = _do_not_confine  # type: ignore[attr-defined, assignment]
    ForkingPopen.probe = probe
    subprocess.Popen = ForkingPopen  # type: ignore[misc, assignment]


def _add_nothing(report: DataReport, contents: FileContents) -> DataReport:
    return report


def _do_not_confine(confinement: object) -> None:
    """Leave a training the right to write the log of its probe."""


class ForkingPopen(subprocess.Popen[bytes]):
    """Runs `python -m lora_core …`, and its fork server, in a fork of this process."""

    probe: Probe

    def _execute_child(self, *args: Any) -> None:
        values = _original_parameters.bind(self, *args).arguments
        command = [str(each) for each in values["args"]]
        serves = "lora_core.fork_server" in command
        if "lora_core" not in command and not serves:
            super()._execute_child(*args)  # type: ignore[misc]
            return
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            die_with_parent(parent)
            for stream, name in enumerate(("p2cread", "c2pwrite", "errwrite")):
                if values[name] >= 0:
                    os.dup2(values[name], stream)
            os.closerange(3, _HIGHEST_FD)
            os.chdir(values["cwd"] or os.getcwd())
            os.environ.clear()
            os.environ.update(values["env"])
            tempfile.tempdir = None
            self.probe.job_state = lambda _: "running"  # it has no access to the database
            if serves:
                _exit_after(fork_server.main)
            arguments = command[command.index("lora_core") + 1 :]
            _exit_after(lambda: main_and_exit(arguments))
        self._child_created = True
        for theirs, ours in (("p2cread", "p2cwrite"), ("c2pwrite", "c2pread")):
            if values[ours] >= 0:  # a pipe, not the socket of a fork server
                os.close(values[theirs])


def _exit_after(function: Callable[[], object]) -> NoReturn:
    try:
        function()
        status = 0
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
