"""A child process of the same user cannot read its parent's environment."""

import json
import os
import subprocess
import sys

PROGRAM = """
import json, os, subprocess
from app.storage.data_dir import make_process_private
from lora_core.process_settings import set_dumpable

if os.getuid() == 0:  # root may read everything
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    set_dumpable(True)  # like a program started by that user

def read(of, name):
    command = ["cat", f"/proc/{of}/{name}"]
    return subprocess.run(command, env={"MINE": "1"}, capture_output=True).stdout.decode("latin-1")

before = read(os.getpid(), "environ")
make_process_private()
after = [read(os.getpid(), name) for name in ("environ", "maps")]
own = read("self", "environ")
print(json.dumps([before, after, own, len(os.listdir("/proc/self/fd"))]))
"""


def test_child_process_cannot_read_the_environment_of_the_service() -> None:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={"PATH": os.defpath, "LORAWORKS_PEPPER": "canary"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    before, after, of_child, files = json.loads(result.stdout)
    assert "canary" in before  # otherwise the test proves nothing
    assert after == ["", ""]
    assert "MINE=1" in of_child  # programs that it starts are not affected
    assert files >= 3  # it still lists its own file descriptors, which `subprocess` needs
