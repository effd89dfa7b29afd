"""The JSON of API responses, as far as the command line reads it."""

from typing import Any, Literal, NotRequired, TypedDict

Json = dict[str, Any]
State = Literal["queued", "running", "succeeded", "failed", "cancelled"]


class ParameterCountsJson(TypedDict):
    trainable: int
    total: int


class JobPlanJson(TypedDict):
    """The response to a dry run of a job."""

    parameters: ParameterCountsJson
    estimated_seconds: float | None
    queue_position: int
    spec: Json


class FailureJson(TypedDict):
    code: str
    message: str


class JobListItemJson(TypedDict):
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
    waiting: FailureJson | None
    parameters: ParameterCountsJson | None
    estimated_seconds: float | None
    created_at: str
    started_at: str | None
    finished_at: str | None
    accuracy: float | None
    error: FailureJson | None
    artifact_id: str | None
    model_version: str | None


class JobJson(JobListItemJson):
    """One job, with its result."""

    notes: str | None
    summary: Json | None


class MetricPointJson(TypedDict):
    """One point of a curve."""

    attempt: int
    split: str
    name: str
    step: int
    value: float | None
    at: str


class JobEventJson(TypedDict):
    """An event of a job."""

    kind: str
    message: str
    at: str


class DatasetProfileJson(TypedDict):
    duplicates: int
    conflicting_duplicates: int
    leaked: int
    encoding: NotRequired[str | None]  # uploads of older versions lack these three
    separator: NotRequired[str | None]
    sheet: NotRequired[str | None]
    similar_labels: NotRequired[list[list[str]]]  # uploads of older versions lack it


class QuotedRowJson(TypedDict):
    row: int
    text: str
    label: str | None
    split: str | None


class FindingExampleJson(TypedDict):
    rows: list[QuotedRowJson]
    similarity: float | None


class FindingJson(TypedDict):
    code: str
    level: Literal["error", "warning", "info"]
    count: int
    message: str
    advice: str
    examples: list[FindingExampleJson]


class LabelFrequencyJson(TypedDict):
    count: int
    share: float
    splits: dict[str, int]


class LabelBalanceJson(TypedDict):
    labels: dict[str, LabelFrequencyJson]
    majority: str
    baseline: float


class TokenStatisticsJson(TypedDict):
    tokenizer: str
    texts: int
    percentiles: dict[str, int]
    truncated: dict[str, float]
    unknown: float


class DiagnosisJson(TypedDict):
    rows: int
    compared: int
    balance: LabelBalanceJson | None
    tokens: TokenStatisticsJson | None
    findings: list[FindingJson]
    more_labels: Json | None


class DatasetListItemJson(TypedDict):
    """A dataset in a list, with its most frequent labels."""

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


class DatasetJson(DatasetListItemJson):
    """One dataset, with all of its labels."""

    profile: DatasetProfileJson
    diagnosis: DiagnosisJson | None


class ModelVersionJson(TypedDict):
    number: int
    ref: str
    artifact_id: str
    job_id: str | None
    base: str | None
    method: str
    metrics: Json


class ModelListItemJson(TypedDict):
    """A model in a list."""

    name: str
    created_at: str
    aliases: dict[str, int]
    version_count: int


class ModelJson(TypedDict):
    name: str
    created_at: str
    aliases: dict[str, int]
    versions: list[ModelVersionJson]


class PredictionRunJson(TypedDict):
    """A prediction run."""

    id: str
    name: str | None
    state: State
    model: str
    dataset: str
    rows_done: int
    rows: int
    queue_position: int | None
    waiting: FailureJson | None
    created_at: str
    started_at: str | None
    finished_at: str | None
    summary: Json | None
    error: FailureJson | None


class LabelScoreJson(TypedDict):
    label: str
    score: float


SweepState = Literal["running", "paused", "stopped", "finished"]
Objective = Literal["accuracy", "macro_f1", "balanced_accuracy", "loss"]


class RungJson(TypedDict):
    share: float
    cells: int


class SweepPlanJson(TypedDict):
    """The response to a dry run of a sweep."""

    cells: int
    known: int
    rungs: list[RungJson]
    workers: int
    estimated_seconds: int
    trainable_parameters: list[int]  # of the smallest and the largest trial


class AccuracyScoreJson(TypedDict):
    """An accuracy with its 95% confidence interval."""

    accuracy: float
    low: float
    high: float
    texts: int
    objective: float | None


class PairedDifferenceJson(TypedDict):
    """The winner's accuracy minus that of the cheapest trial."""

    difference: float
    low: float
    high: float
    p: float
    texts: int


class RankedTrialJson(TypedDict):
    """A trial that the verdict names."""

    number: int
    settings: Json
    job_id: str | None
    trainable_parameters: int
    validation: AccuracyScoreJson | None
    test: AccuracyScoreJson | None


class SweepVerdictJson(TypedDict):
    winner: RankedTrialJson
    cheapest: RankedTrialJson
    near: list[int]  # trials within noise of the winner, including it
    compared: int
    validation: PairedDifferenceJson | None
    test: PairedDifferenceJson | None


class SweepListItemJson(TypedDict):
    """A sweep in a list."""

    id: str
    name: str | None
    state: SweepState
    strategy: Json
    objective: Objective
    cells: int
    counts: dict[str, int]  # by state of a trial
    created_at: str
    finished_at: str | None


class SweepJson(SweepListItemJson):
    """One sweep, with its best trial so far."""

    job: Json
    space: Json
    verdict: SweepVerdictJson | None


class TrialJson(TypedDict):
    """A trial at its last rung."""

    number: int
    settings: Json
    state: str
    share: float
    trainable_parameters: int
    seconds: float | None
    figures: dict[str, dict[str, float]]  # split, then metric
    reused: bool
    job_id: str | None
    error: str | None
