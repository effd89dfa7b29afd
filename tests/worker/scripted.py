"""Launchers of the scripted child."""

import sys
from pathlib import Path

from worker.launch import ProcessLauncher

SCRIPT = Path(__file__).with_name("scripted_child.py")


def scripted(*actions: str) -> ProcessLauncher:
    """Starts processes that do `actions` one after the other; see `scripted_child.py`."""
    return ProcessLauncher((sys.executable, str(SCRIPT), *actions))
