"""The objective of a sweep, and the states of sweeps and of their trials.

    running ──► paused | stopped ──► running ──► finished
                                       ▲             │
                                       └─────────────┘  retry, extend

The job of a trial goes through the same states as any other job (`app.queue.enums`).
"""

from enum import StrEnum
from typing import Literal

# Which of them a sweep may have depends on its task: `lora_core.tasks.metric_info`.
Objective = Literal[
    "accuracy",
    "macro_f1",
    "balanced_accuracy",
    "loss",
    "micro_f1",
    "map",
    "hamming_loss",
    "kappa",
    "mae",
    "rmse",
    "r2",
    "spearman",
    "skill",
]


class SweepState(StrEnum):
    """Whether trials get jobs."""

    RUNNING = "running"
    PAUSED = "paused"  # no new jobs; running jobs continue to their end
    STOPPED = "stopped"  # no new jobs; running jobs were cancelled and keep their checkpoints
    FINISHED = "finished"  # no trial is left


ACTIVE_STATES = (SweepState.RUNNING, SweepState.PAUSED)  # need their jobs, count for the quota


class TrialState(StrEnum):
    """State of a trial's job; a trial without a job is waiting."""

    WAITING = "waiting"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
