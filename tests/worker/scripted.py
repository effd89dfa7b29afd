"""Training processes that run a script of actions."""

import sys
from pathlib import Path

from worker import fork_server_supervisor, spawn

SCRIPT = Path(__file__).with_name("scripted_child.py")
SERVER = "tests.worker.scripted_fork_server"


def scripted(*actions: str) -> None:
    """Make trainings run `actions` in order, forked or not; see `scripted_child.py`."""
    spawn.LORA_CORE_COMMAND = (sys.executable, str(SCRIPT), *actions)
    fork_server_supervisor.FORK_SERVER_COMMAND = (sys.executable, "-m", SERVER, *actions)
