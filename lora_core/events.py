"""The events that a run reports, one JSON object per line.

Non-finite numbers are written as `null`, since JSON cannot represent them.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from lora_core.results import CandidateResult
from lora_core.specs.data import Split
from lora_core.specs.method import SingleMethod

# What the tables of the service can store: a run is not trusted, so its parent checks it.
_Step = Annotated[int, Field(ge=0, lt=2**31)]
_Name = Annotated[str, Field(max_length=64)]


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")


class Phase(StrEnum):
    """The current activity of a run."""

    LOADING = "loading"
    TOKENIZING = "tokenizing"
    FEATURES = "features"
    SELECTING = "selecting"
    LINEAR_MODEL = "linear_model"
    LEARNING_CURVE = "learning_curve"
    TRAINING = "training"
    EVALUATING = "evaluating"
    VERDICT = "verdict"
    SAVING = "saving"
    PREDICTING = "predicting"


class ProgressReported(_Event):
    """A progress report, at every change of phase and otherwise at most once a second."""

    event: Literal["tick"] = "tick"
    phase: Phase
    step: _Step = 0


class NoteLogged(_Event):
    """A note or warning for the user, such as the share of texts that were truncated."""

    event: Literal["noted"] = "noted"
    level: Literal["info", "warning"] = "info"
    code: str
    message: str


class Started(_Event):
    """Data and model are loaded; training begins."""

    event: Literal["started"] = "started"
    total_steps: _Step
    trainable_parameters: int
    total_parameters: int
    examples: dict[Split, int]
    labels: list[str]
    device: str
    precision: str
    threads: int
    learning_rate: float | None  # None if the method has none


class StepLogged(_Event):
    """Means over the steps since the last such event."""

    event: Literal["step"] = "step"
    step: _Step
    epoch: float
    loss: float | None
    learning_rate: float
    grad_norm: float | None
    reviews_per_second: float
    tokens_per_second: float
    peak_memory_mb: float


class Evaluated(_Event):
    """Metrics on one split, such as `loss`: those in `Task.curve_metrics`."""

    event: Literal["evaluated"] = "evaluated"
    step: _Step
    split: Split
    metrics: dict[_Name, float | None]
    best: bool = False  # on validation: whether it is the best so far


class Resumed(_Event):
    """The run continues after `step` from a checkpoint. Precedes `started`.

    `exact`: no known difference affects the numbers. `differences`: those that do, such as
    "threads 2 → 1".
    """

    event: Literal["resumed"] = "resumed"
    step: _Step
    exact: bool
    differences: list[str] = []


class CheckpointSaved(_Event):
    """A checkpoint was saved at `step`. A resumed run does not repeat the events before it.

    The reader moves the directory away.
    """

    event: Literal["checkpoint"] = "checkpoint"
    step: _Step
    directory: str  # name, relative to the directory of checkpoints


class LinearModelFitted(_Event):
    """The linear model of TF-IDF features was evaluated on the same splits."""

    event: Literal["linear_model"] = "linear_model"
    validation: dict[str, float]  # empty if it was trained on those texts
    test: dict[str, float]
    train_texts: int
    seconds: float
    cached: bool

    @property
    def held_out(self) -> tuple[Literal["validation", "test"], dict[str, float]]:
        """The split to tell of, and the metrics on it."""
        return ("validation", self.validation) if self.validation else ("test", self.test)

    @property
    def estimator(self) -> str:
        return "ridge regression" if "rmse" in self.test else "logistic regression"


class CandidateEvaluated(_Event):
    """A candidate method was cross-validated."""

    event: Literal["candidate"] = "candidate"
    number: int  # from 1, in the order of evaluation
    of: int
    result: CandidateResult


class MethodSelected(_Event):
    """A candidate was selected, to be trained on all texts."""

    event: Literal["selected"] = "selected"
    number: int  # from 1, in the order of preference
    method: SingleMethod = Field(discriminator="type")
    texts: int  # that it will be trained on


class Finished(_Event):
    """The run is complete. `summary` is the `metrics` of the manifest, if there is an artifact."""

    event: Literal["finished"] = "finished"
    summary: dict[str, Any]


class Failed(_Event):
    """The run ended with an error; `code` is stable."""

    event: Literal["failed"] = "failed"
    code: _Name
    message: str
    detail: dict[str, Any] = {}


Event = Annotated[
    ProgressReported
    | NoteLogged
    | Resumed
    | Started
    | StepLogged
    | CheckpointSaved
    | Evaluated
    | LinearModelFitted
    | CandidateEvaluated
    | MethodSelected
    | Finished
    | Failed,
    Field(discriminator="event"),
]

_EVENT_ADAPTER: TypeAdapter[Event] = TypeAdapter(Event)


def parse_event(line: str | bytes) -> Event:
    """Parse one line. Raises `pydantic.ValidationError` if it is not an event.

    NUL, which PostgreSQL cannot store, becomes U+FFFD.
    """
    encoded = line.encode() if isinstance(line, str) else line
    return _EVENT_ADAPTER.validate_json(encoded.replace(rb"\u0000", rb"\ufffd"))


class Observer(Protocol):
    """Receives the events of a run."""

    def on_event(self, event: Event) -> None: ...


class NullObserver:
    """An observer that ignores all events."""

    def on_event(self, event: Event) -> None:
        pass


class StopSignal(Protocol):
    """A request to stop, polled between two steps."""

    def requested(self) -> bool: ...


def replace_nonfinite_with_none(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Return the metrics with `None` in place of non-finite values."""
    return {name: value if abs(value) < float("inf") else None for name, value in metrics.items()}
