"""What a run tells while it goes on: one JSON object a line.

Numbers that are not finite are written as `null`, since JSON has no word for them.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from lora_core.model_selection import CandidateResult
from lora_core.specs.data import Split
from lora_core.specs.method import OneMethod


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")


class Phase(StrEnum):
    """What the run is busy with."""

    LOADING = "loading"
    TOKENISING = "tokenising"
    FEATURES = "features"
    SELECTING = "selecting"
    LINEAR_RIVAL = "linear_rival"
    LEARNING_CURVE = "learning_curve"
    TRAINING = "training"
    EVALUATING = "evaluating"
    JUDGING = "judging"
    SAVING = "saving"
    PREDICTING = "predicting"


class Tick(_Event):
    """A sign of life, at every change of phase and at most once a second within one."""

    event: Literal["tick"] = "tick"
    phase: Phase
    step: int = 0


class Noted(_Event):
    """Something a user should know, such as the share of texts that were cut."""

    event: Literal["noted"] = "noted"
    level: Literal["info", "warning"] = "info"
    code: str
    message: str


class Started(_Event):
    """Data and model are ready; training begins."""

    event: Literal["started"] = "started"
    total_steps: int
    trainable_parameters: int
    total_parameters: int
    examples: dict[Split, int]
    labels: list[str]
    device: str
    precision: str
    threads: int
    learning_rate: float | None  # None: the method has none


class StepLogged(_Event):
    """Means over the steps since the last one."""

    event: Literal["step"] = "step"
    step: int
    epoch: float
    loss: float | None
    learning_rate: float
    grad_norm: float | None
    reviews_per_second: float
    tokens_per_second: float
    peak_memory_mb: float


class Evaluated(_Event):
    """Figures on one part, such as `loss`: the `CURVES` of its task."""

    event: Literal["evaluated"] = "evaluated"
    step: int
    split: Split
    metrics: dict[str, float | None]
    best: bool = False  # on validation: the best so far


class Resumed(_Event):
    """The run goes on after `step` of an earlier one; comes before `started`.

    `exact`: nothing is known to differ that numbers depend on. `differences`: what does, such as
    "threads 2 → 1".
    """

    event: Literal["resumed"] = "resumed"
    step: int
    exact: bool
    differences: list[str] = []


class CheckpointSaved(_Event):
    """The run can go on after `step`; what was told before will not be told again.

    The reader takes the directory away.
    """

    event: Literal["checkpoint"] = "checkpoint"
    step: int
    directory: str  # its name below the directory of checkpoints


class RivalFitted(_Event):
    """The linear rival (TF-IDF and logistic regression) on the same parts."""

    event: Literal["rival"] = "rival"
    validation: dict[str, float]  # empty: it has learned from those texts
    test: dict[str, float]
    train_texts: int
    seconds: float
    cached: bool


class CandidateTried(_Event):
    """What a method reached in cross-validation."""

    event: Literal["candidate"] = "candidate"
    number: int  # from 1
    of: int
    result: CandidateResult


class Selected(_Event):
    """Which of the candidates is trained on all texts."""

    event: Literal["selected"] = "selected"
    number: int
    method: OneMethod = Field(discriminator="type")
    texts: int  # that it is trained on


class Finished(_Event):
    """The artifact is written and checked. `summary` is the `metrics` of its manifest."""

    event: Literal["finished"] = "finished"
    summary: dict[str, Any]


class Failed(_Event):
    """The run ended with an error; `code` is stable."""

    event: Literal["failed"] = "failed"
    code: str
    message: str
    detail: dict[str, Any] = {}


Event = Annotated[
    Tick
    | Noted
    | Resumed
    | Started
    | StepLogged
    | CheckpointSaved
    | Evaluated
    | RivalFitted
    | CandidateTried
    | Selected
    | Finished
    | Failed,
    Field(discriminator="event"),
]

_ADAPTER: TypeAdapter[Event] = TypeAdapter(Event)


def parse_event(line: str | bytes) -> Event:
    """One line back to its event. Raises `pydantic.ValidationError` for any other line."""
    return _ADAPTER.validate_json(line)


class Observer(Protocol):
    """Whoever wants to know."""

    def on_event(self, event: Event) -> None: ...


class Silence:
    """An observer that hears every event and does nothing."""

    def on_event(self, event: Event) -> None:
        pass


class StopSignal(Protocol):
    """Asked between two steps."""

    def requested(self) -> bool: ...


def finite(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """The same figures with `None` for those that are not finite."""
    return {name: value if abs(value) < float("inf") else None for name, value in metrics.items()}
