"""What is known of a cell already, from whichever sweep or caller it comes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.database.base import JsonObject
from app.errors import AppError
from app.jobs.base_models import Base
from app.jobs.resolve import Draft, Drafter
from app.queue.states import JobState, Lane
from app.queue.tables import Checkpoint, Job
from app.sweeps.errors import InvalidCells, UnknownField
from app.sweeps.search_space import Settings, Space, applied, ends, named
from app.sweeps.strategies import Halving, Strategy, shares
from lora_core.errors import LoraCoreError
from lora_core.specs.data import DataSpec
from lora_core.specs.train import TrainSpec, TrialSpec
from lora_core.specs.validation import faults, first_fault

LIVE = (JobState.QUEUED, JobState.RUNNING)


@dataclass(frozen=True)
class Entry:
    """A job that has the figures, or will have them."""

    job_id: UUID
    ended: bool


@dataclass(frozen=True)
class Unknown:
    """The cell has to be run. `continues`: a job that got part of the way.

    `later`: one is just being stopped, whose checkpoint is worth waiting for.
    """

    continues: UUID | None = None
    later: bool = False


def find(session: Session, cell_sha256: str, draft: JsonObject) -> Entry | Unknown:
    """Look for the figures of a cell with these columns of a job.

    Whoever waits for the job of somebody else must be sure of its end: it must be for a device that
    would do for the cell, or run already, and have no limit of its own.
    """
    spec, lanes = draft["spec"], (draft["lane"], Lane.ANY)
    jobs = _jobs(session, cell_sha256)
    same = [job for job in jobs if _serves(job, spec)]
    if ended := next((job for job in same if job.state == JobState.SUCCEEDED), None):
        return Entry(ended.id, ended=True)
    live = [
        job
        for job in same
        if job.time_limit_seconds is None
        if job.state == JobState.RUNNING or (job.state == JobState.QUEUED and job.lane in lanes)
    ]
    if coming := next((job for job in live if job.cancel_requested_at is None), None):
        return Entry(coming.id, ended=False)
    return Unknown(continues=_furthest(session, jobs, spec), later=bool(live))


def known(session: Session, cell_sha256: str, draft: JsonObject) -> bool:
    """Whether its figures are there."""
    found = find(session, cell_sha256, draft)
    return isinstance(found, Entry) and found.ended


def _jobs(session: Session, cell_sha256: str) -> Sequence[Job]:
    """Every run of it and every trial, the oldest first. No other kind of job has this hash."""
    return session.scalars(select(Job).where(Job.cell_sha256 == cell_sha256).order_by(Job.id)).all()


def _serves(job: Job, spec: JsonObject) -> bool:
    """Whether its figures are those that the description asks for."""
    if _trial(job.spec) != _trial(spec):
        return False
    asked, gives = spec["result"]["train_figures"], job.spec.get("result", {})
    return bool(not asked or gives.get("train_figures"))


def _furthest(session: Session, jobs: Sequence[Job], spec: JsonObject) -> UUID | None:
    """Whose checkpoint is the furthest that lies on the way."""
    upto = _share(spec)
    on_the_way = [job.id for job in jobs if _share(job.spec) <= upto and job.state not in LIVE]
    if not on_the_way:
        return None
    good = (Checkpoint.job_id.in_(on_the_way), Checkpoint.bad.is_(False))
    furthest = (
        select(Checkpoint.job_id, func.max(Checkpoint.step).label("step"))
        .where(*good)
        .group_by(Checkpoint.job_id)
        .order_by(func.max(Checkpoint.step).desc(), Checkpoint.job_id)
    )
    row = session.execute(furthest.limit(1)).first()
    return row.job_id if row else None


def _trial(spec: JsonObject) -> JsonObject | None:
    trial: JsonObject | None = spec.get("trial")
    return trial


def _share(spec: JsonObject) -> float:
    trial = _trial(spec)
    return 1.0 if trial is None else float(trial["share"])


# MERGED app.sweeps.trials
# From the settings of a cell to the columns of its job; what fits nothing is told as a problem.

SHOWN = 10  # cells that are named when some could never run
LONGEST = 64  # characters of a value, or of a field's name, that is named
OWN = {"spec_version", "preset", "trial", "result"}  # fields that a sweep decides on

REFUSALS = (AppError, LoraCoreError)  # of a description that could never run
Find = Callable[[str | None, str | None], Base | None]


@dataclass
class Pinned:
    """What names meant when the sweep was made, so that they mean it to its end."""

    bases: dict[str, Base] = field(default_factory=dict)
    sources: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, kept: JsonObject) -> "Pinned":
        bases = {name: Base(**facts) for name, facts in kept["bases"].items()}
        return cls(bases, dict(kept["sources"]))

    def as_json(self) -> JsonObject:
        bases = {name: asdict(base) for name, base in self.bases.items()}
        return {"bases": bases, "sources": self.sources}

    def base(self, spec: TrainSpec) -> Base | None:
        return self.bases[base_name(spec)] if spec.base else None

    def look_up(self, specs: Iterable[TrainSpec], find: Find) -> dict[str, Exception]:
        """Find the bases that are not known yet; by name, why one cannot be had.

        Called outside of a transaction: `find` may ask the hub.
        """
        missing: dict[str, Exception] = {}
        for spec in specs:
            name = base_name(spec)
            if name in self.bases or name in missing:
                continue
            try:
                if (base := find(spec.base, spec.base_revision)) is not None:
                    self.bases[name] = base
            except REFUSALS as error:
                missing[name] = error
        return missing

    def draft(self, drafter: Drafter, asked: TrainSpec, *, since: float = 0.0) -> Draft:
        """Raises what `Drafter.draft` raises."""
        source = named(asked.data.model_dump(mode="json")["source"])
        if source in self.sources:
            said = asked.data.model_dump(exclude_unset=True)
            pinned = DataSpec.model_validate({**said, "source": self.sources[source]})
            asked = asked.model_copy(update={"data": pinned})
        made = drafter.draft(asked, self.base(asked), since=since)
        self.sources[source] = made.spec.data.model_dump(mode="json")["source"]
        return made


def check_fields(job: TrainSpec, space: Space) -> None:
    """Raises `UnknownField`."""
    description = job.model_dump(mode="json", exclude_unset=True)
    first = next(ends(space))
    for name in space.fields:
        told = name[:LONGEST]
        if name.partition(".")[0] in OWN:
            raise UnknownField(field=told, reason="a sweep decides on that itself", at="space")
        if not all(part.isidentifier() for part in name.split(".")):
            raise UnknownField(field=told, reason="a field looks like `method.r`", at="space")
        try:
            TrainSpec.model_validate(applied(description, {name: first[name]}))
        except ValidationError as error:
            for fault in faults(error.errors(include_url=False), TrainSpec):
                inside = name.startswith(f"{fault.at}.")  # of what is no object
                if inside or (fault.at == name and fault.code == "extra_forbidden"):
                    raise UnknownField(field=told, reason=fault.message, at="space") from error


def specs(job: TrainSpec, cells: Sequence[Settings]) -> list[TrainSpec | Exception]:
    """The description of each cell, whole runs that keep no model, or what is wrong with it."""
    description = job.model_dump(mode="json", exclude_unset=True)
    result = job.result.model_copy(update={"model": False})
    found: list[TrainSpec | Exception] = []
    for settings in cells:
        try:
            spec = TrainSpec.model_validate(applied(description, settings))
            found.append(spec.model_copy(update={"result": result}))
        except ValidationError as error:
            found.append(error)
    return found


def at_rung(spec: TrainSpec, strategy: Strategy, rung: int) -> TrainSpec:
    """The same run up to the end of a rung."""
    share = shares(strategy)[rung]
    texts = strategy.validation_texts if isinstance(strategy, Halving) else None
    trial = None if share == 1.0 else TrialSpec(share=share, validation_texts=texts)
    return spec.model_copy(update={"trial": trial})  # which tells what was said from defaults


def refuse(cells: Sequence[Settings], outcomes: Sequence[object]) -> None:
    """Raises `InvalidCells` if some outcomes are errors; where all are the same one, that."""
    wrong = [
        (number, settings, outcome)
        for number, (settings, outcome) in enumerate(zip(cells, outcomes, strict=True), start=1)
        if isinstance(outcome, Exception)
    ]
    if not wrong:
        return
    first = wrong[0][2]
    same = {(type(error), str(error)) for _, _, error in wrong}
    if len(wrong) == len(cells) and len(same) == 1 and not isinstance(first, ValidationError):
        raise first
    raise InvalidCells(
        count=len(wrong),
        total=len(cells),
        at="space",
        cells=[
            {"number": number, "settings": shown(settings), "reason": reason(error).rstrip(".")}
            for number, settings, error in wrong[:SHOWN]
        ],
    )


def reason(error: Exception) -> str:
    """Why a cell cannot run, in a sentence."""
    if isinstance(error, ValidationError):
        place, fault = first_fault(error, TrainSpec)
        return f"{place}: {fault}."
    return str(error)


def base_name(spec: TrainSpec) -> str:
    """What a base is kept under."""
    name = spec.base or ""
    return name if spec.base_revision is None else f"{name}@{spec.base_revision}"


def shown(settings: Mapping[str, Any]) -> str:
    """`method.r=8, method.targets=query+value`."""
    return ", ".join(f"{name}={_short(value)}" for name, value in settings.items())


def _short(value: Any) -> str:
    if isinstance(value, list):
        text = "+".join(str(each) for each in value)
    else:
        text = value if isinstance(value, str) else named(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
