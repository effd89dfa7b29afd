"""Checks the versions in production for drift. Any number of workers may do so."""

from threading import Event as Flag

from app.drift.schedule import run_next_due_check
from app.resources import Resources

POLL_SECONDS = 60.0  # between two looks for versions that are due


def run_due_drift_checks(resources: Resources, *, draining: Flag) -> None:
    """Make the checks that are due, one after the other, until the worker drains.

    A check that is under way then is made by another worker.
    """
    while not draining.is_set() and run_next_due_check(resources):
        pass
