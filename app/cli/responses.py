"""What the service answers, as far as the command line reads it."""

from typing import Any, Literal, NotRequired, TypedDict

Json = dict[str, Any]
State = Literal["queued", "running", "succeeded", "failed", "cancelled"]


class Parameters(TypedDict):
    trainable: int
    total: int


class Plan(TypedDict):
    """The answer to a dry run."""

    parameters: Parameters
    estimated_seconds: float | None
    queue_position: int
    spec: Json


class Failure(TypedDict):
    code: str
    message: str


class JobListItem(TypedDict):
    """A job in a list."""

    id: str
    name: str | None
    tags: list[str]
    state: State
    method: str
    base: str | None
    register_as: str | None
    spec: Json
    step: int
    total_steps: int | None
    queue_position: int | None
    waiting: Failure | None
    parameters: Parameters | None
    estimated_seconds: float | None
    created_at: str
    started_at: str | None
    finished_at: str | None
    accuracy: float | None
    error: Failure | None
    artifact_id: str | None
    model_version: str | None


class Job(JobListItem):
    """One job, with its result."""

    notes: str | None
    summary: Json | None


class Point(TypedDict):
    """One point of a curve."""

    attempt: int
    split: str
    name: str
    step: int
    value: float | None
    at: str


class Note(TypedDict):
    """Something that happened to a job."""

    kind: str
    message: str
    at: str


class Profile(TypedDict):
    duplicates: int
    conflicting_duplicates: int
    leaked: int
    encoding: NotRequired[str | None]  # these three not in uploads of a version before
    separator: NotRequired[str | None]
    sheet: NotRequired[str | None]
    similar_labels: NotRequired[list[list[str]]]  # not in uploads of a version before


class Cited(TypedDict):
    row: int
    text: str
    label: str | None
    split: str | None


class Example(TypedDict):
    rows: list[Cited]
    similarity: float | None


class Finding(TypedDict):
    code: str
    level: Literal["error", "warning", "info"]
    count: int
    message: str
    advice: str
    examples: list[Example]


class LabelShare(TypedDict):
    count: int
    share: float
    splits: dict[str, int]


class Balance(TypedDict):
    labels: dict[str, LabelShare]
    majority: str
    baseline: float


class TokenCounts(TypedDict):
    tokenizer: str
    texts: int
    percentiles: dict[str, int]
    truncated: dict[str, float]
    unknown: float


class Diagnosis(TypedDict):
    rows: int
    compared: int
    balance: Balance | None
    tokens: TokenCounts | None
    findings: list[Finding]
    more_labels: Json | None


class DatasetListItem(TypedDict):
    """A data set in a list: its most frequent labels."""

    id: str
    name: str
    title: str
    ref: str
    filename: str
    bytes: int
    rows: int
    text_column: str
    label_column: str | None
    split_column: str | None
    sheet: str | None
    labels: dict[str, int]
    label_count: int
    created_at: str


class Dataset(DatasetListItem):
    """One data set: all of its labels."""

    profile: Profile
    diagnosis: Diagnosis | None


class Version(TypedDict):
    number: int
    ref: str
    artifact_id: str
    job_id: str | None
    base: str | None
    method: str
    metrics: Json


class ModelListItem(TypedDict):
    """A model in a list."""

    name: str
    created_at: str
    aliases: dict[str, int]
    version_count: int


class Model(TypedDict):
    name: str
    created_at: str
    aliases: dict[str, int]
    versions: list[Version]


class Prediction(TypedDict):
    """A prediction run."""

    id: str
    name: str | None
    state: State
    model: str
    dataset: str
    rows_done: int
    rows: int
    queue_position: int | None
    waiting: Failure | None
    created_at: str
    started_at: str | None
    finished_at: str | None
    summary: Json | None
    error: Failure | None


class Label(TypedDict):
    label: str
    score: float


# MERGED app.cli.responses
# What the service answers about sweeps, as far as the command line reads it.

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
