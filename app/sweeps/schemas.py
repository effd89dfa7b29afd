"""Bodies of the sweep routes."""

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from app.http.fields import Metadata, Slug, Text, Timestamp, View
from app.jobs.schemas import Queued
from app.sweeps.search_space import MOST_CELLS, Dimensions, Space
from app.sweeps.states import SweepState
from app.sweeps.strategies import Grid, Strategy
from lora_core.specs.frozen import Frozen, Int
from lora_core.specs.train import TrainSpec

Objective = Literal["accuracy", "macro_f1", "balanced_accuracy", "loss"]


class SweepCreate(Frozen):
    """One job in many settings: `space` says which of its fields vary, such as `method.r`."""

    job: TrainSpec
    space: Dimensions
    strategy: Strategy = Grid()
    objective: Objective = Field(default="accuracy", description="On validation; decides.")
    name: Annotated[str, Text(200)] | None = None
    metadata: Metadata = Field(default_factory=dict)
    parallel: Int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="Jobs at a time. Default: as many as the workers have devices.",
    )
    priority: Int = Field(default=0, ge=-100, le=100, description="Higher is sooner.")

    @model_validator(mode="after")
    def _decides_itself(self) -> "SweepCreate":
        if self.job.trial is not None:
            raise PydanticCustomError("own_trials", "a sweep makes trials by its strategy alone")
        return self

    @property
    def over(self) -> Space:
        return Space(dimensions=self.space)


class SweepExtend(Frozen):
    """More of a sweep: values for its fields, or cells of a strategy that draws them."""

    space: Dimensions | None = None
    cells: Int | None = Field(default=None, ge=1, le=MOST_CELLS, description="In all.")


class SweepPromote(Frozen):
    """Which cell becomes a version of which model."""

    model: Slug
    cell: Int | None = Field(default=None, ge=1, description="Its number. Default: the winner.")
    alias: Slug | None = Field(
        default="production", description="Moved to the version; null: it is only registered."
    )


class RungPlan(View):
    """How many cells run up to which share of their steps."""

    share: float
    cells: int


class SweepPlan(View):
    """What would happen."""

    cells: int
    known: int = Field(description="Cells whose figures are there: they are not run again.")
    rungs: list[RungPlan]
    workers: int = Field(description="Jobs that the workers of this moment run at a time.")
    estimated_seconds: int = Field(description="With these workers, without other jobs.")
    trainable_parameters: tuple[int, int] = Field(description="Of the smallest, the largest cell.")


class Counts(View):
    """Cells by state, each at its last rung."""

    waiting: int = 0
    queued: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0


class ScoreView(View):
    """How a cell did on one part."""

    accuracy: float
    low: float = Field(description="Of the 95 % interval of the accuracy.")
    high: float
    texts: int
    objective: float | None


class ComparisonView(View):
    """Two cells on the same texts: the winner less the cheapest."""

    difference: float = Field(description="Of the accuracies.")
    low: float = Field(description="Of its 95 % interval.")
    high: float
    p: float = Field(description="Of the exact McNemar test.")
    texts: int


class Standing(View):
    """A cell that the verdict names."""

    number: int
    settings: dict[str, Any]
    job_id: UUID | None
    trainable_parameters: int
    validation: ScoreView | None
    test: ScoreView | None


class VerdictView(View):
    """Who won on validation, and who cannot be told from it."""

    winner: Standing
    cheapest: Standing = Field(
        description="Within noise of the winner, with the fewest parameters to train."
    )
    near: list[int] = Field(
        description="Cells within noise of the winner, it among them: McNemar, p >= 0.05."
    )
    compared: int = Field(description="Cells that answered the winner's validation texts.")
    validation: ComparisonView | None
    test: ComparisonView | None


class SweepListItem(Queued):
    """A sweep, as lists show it."""

    prefix = "/v1/sweeps"

    name: str | None
    metadata: dict[str, str]
    state: SweepState
    strategy: dict[str, Any]
    objective: str
    parallel: int | None
    priority: int
    cells: int
    counts: Counts
    created_at: Timestamp
    finished_at: Timestamp | None


class SweepView(SweepListItem):
    """A sweep."""

    job: dict[str, Any]
    space: dict[str, Any]
    verdict: VerdictView | None


class CellView(View):
    """A cell at its last rung."""

    number: int
    settings: dict[str, Any]
    state: str
    share: float = Field(description="Of its steps, that its job runs.")
    trainable_parameters: int
    seconds: float | None = Field(description="On a device, of all its jobs.")
    figures: dict[str, dict[str, float]]
    reused: bool = Field(description="Its figures were there already.")
    job_id: UUID | None
    error: str | None
