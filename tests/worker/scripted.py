"""Training processes that run a script of actions."""

import sys
from pathlib import Path

from worker import spawn

SCRIPT = Path(__file__).with_name("scripted_child.py")


def scripted(*actions: str) -> None:
    """Make trainings run `actions` in order; see `scripted_child.py`."""
    spawn.LORA_CORE_COMMAND = (sys.executable, str(SCRIPT), *actions)
