"""The life of a sweep.

    running ──► paused | stopped ──► running ──► finished
                                       ▲             │
                                       └─────────────┘  retry, extend

A job of a cell lives as any other does (`app.queue.states`).
"""

from enum import StrEnum


class SweepState(StrEnum):
    """Whether cells are given out."""

    RUNNING = "running"
    PAUSED = "paused"  # none; those that run go on to their ends
    STOPPED = "stopped"  # none; those that ran were asked to stop, and keep their checkpoints
    FINISHED = "finished"  # none is left


class CellState(StrEnum):
    """Where a cell is: without a job it waits."""

    WAITING = "waiting"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
