"""Training processes that run a script of actions."""

import sys
import tempfile
from pathlib import Path

from worker import child_confinement, fork_server_supervisor, spawn

SCRIPT = Path(__file__).with_name("scripted_child.py")
SERVER = "tests.worker.scripted_fork_server"


def scripted(*actions: str) -> None:
    """Make trainings run `actions` in order, forked or not; see `scripted_child.py`.

    They may read the script, and write to the temporary directories of tests.
    """
    spawn.LORA_CORE_COMMAND = (sys.executable, str(SCRIPT), *actions)
    fork_server_supervisor.FORK_SERVER_COMMAND = (sys.executable, "-m", SERVER, *actions)
    child_confinement.READABLE += (str(SCRIPT),)
    child_confinement.WRITABLE += (tempfile.gettempdir(),)
