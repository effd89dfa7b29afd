"""A child of the same user learns nothing of its parent's environment."""

import json
import os
import subprocess
import sys

PROGRAM = """
import ctypes, json, os, subprocess
from app.storage.permissions import PR_SET_DUMPABLE, keep_private

if os.getuid() == 0:  # who may read everything
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)  # as a program of that user begins

def read(of, name):
    command = ["cat", f"/proc/{of}/{name}"]
    return subprocess.run(command, env={"MINE": "1"}, capture_output=True).stdout.decode("latin-1")

before = read(os.getpid(), "environ")
keep_private()
after = [read(os.getpid(), name) for name in ("environ", "maps")]
own = read("self", "environ")
print(json.dumps([before, after, own, len(os.listdir("/proc/self/fd"))]))
"""


def test_a_child_of_the_same_user_cannot_read_the_environment_of_the_service() -> None:
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={"PATH": os.defpath, "LORAWORKS_PEPPER": "canary"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    before, after, of_child, files = json.loads(told.stdout)
    assert "canary" in before  # so that the test would see it
    assert after == ["", ""]
    assert "MINE=1" in of_child  # what it starts has the usual rights
    assert files >= 3  # and it still sees its own files, as `subprocess` must
