"""Trainings that do as they are told."""

import sys
from pathlib import Path

from worker import spawn

SCRIPT = Path(__file__).with_name("scripted_child.py")


def scripted(*actions: str) -> None:
    """From now on trainings do `actions` one after the other; see `scripted_child.py`."""
    spawn.PROGRAM = (sys.executable, str(SCRIPT), *actions)
