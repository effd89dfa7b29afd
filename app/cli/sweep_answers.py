"""What the service answers about sweeps, as far as the command line reads it."""

from typing import Literal, TypedDict

from app.cli.answers import Json

SweepState = Literal["running", "paused", "stopped", "finished"]
Objective = Literal["accuracy", "macro_f1", "balanced_accuracy", "loss"]


class Rung(TypedDict):
    share: float
    cells: int


class SweepPlan(TypedDict):
    """The answer to a dry run."""

    cells: int
    known: int
    rungs: list[Rung]
    workers: int
    estimated_seconds: int
    trainable_parameters: list[int]  # of the smallest cell, of the largest


class Score(TypedDict):
    """An accuracy with its 95 % interval."""

    accuracy: float
    low: float
    high: float
    texts: int
    objective: float | None


class Comparison(TypedDict):
    """The winner less the cheapest."""

    difference: float
    low: float
    high: float
    p: float
    texts: int


class Standing(TypedDict):
    """A cell that the verdict names."""

    number: int
    settings: Json
    job_id: str | None
    trainable_parameters: int
    validation: Score | None
    test: Score | None


class Verdict(TypedDict):
    winner: Standing
    cheapest: Standing
    near: list[int]  # cells within noise of the winner, it among them
    compared: int
    validation: Comparison | None
    test: Comparison | None


class SweepListItem(TypedDict):
    """A sweep in a list."""

    id: str
    name: str | None
    state: SweepState
    strategy: Json
    objective: Objective
    cells: int
    counts: dict[str, int]  # by state of a cell
    created_at: str
    finished_at: str | None


class Sweep(SweepListItem):
    """One sweep, and who leads."""

    job: Json
    space: Json
    verdict: Verdict | None


class Cell(TypedDict):
    """A cell at its last rung."""

    number: int
    settings: Json
    state: str
    share: float
    trainable_parameters: int
    seconds: float | None
    figures: dict[str, dict[str, float]]  # part, then figure
    reused: bool
    job_id: str | None
    error: str | None
