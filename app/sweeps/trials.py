"""Trials of a sweep: reuse of existing results, and from settings to the columns of a job."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.database.base import JsonObject
from app.errors import AppError
from app.jobs.pretrained_bases import FindBase, ResolvedBase
from app.jobs.repository import ACTIVE_STATES
from app.jobs.resolve import JobResolver, ResolvedJob
from app.queue.enums import DeviceClass, JobState
from app.queue.tables import Checkpoint, Job
from app.sweeps.errors import FieldNotVariable, InvalidTrials
from app.sweeps.search_space import (
    SearchSpace,
    TrialSettings,
    apply_settings,
    canonical_json,
    one_at_a_time_settings,
)
from app.sweeps.strategies import Strategy, SuccessiveHalving, rung_budgets
from lora_core.errors import LoraCoreError
from lora_core.errors.base_model import BaseNotFound
from lora_core.specs.data import DataSpec
from lora_core.specs.train import PartialRunSpec, TrainSpec
from lora_core.specs.validation_problems import field_problems, first_problem_location_and_message

# Reuse of results. Jobs of the same trial have the same `trial_sha256`, whichever sweep or caller
# created them.


@dataclass(frozen=True)
class ExistingJob:
    """A job that has the results of a trial (`finished`), or will have them."""

    job_id: UUID
    finished: bool


@dataclass(frozen=True)
class NewJobNeeded:
    """The trial needs a job of its own.

    `resume_from` is a job whose checkpoint is on the way to the trial's budget. `wait`: a job of
    this trial is being cancelled, and its checkpoint is worth waiting for.
    """

    resume_from: Job | None = None
    wait: bool = False


def find_existing_job(
    session: Session, trial_sha256: str, job_columns: JsonObject
) -> ExistingJob | NewJobNeeded:
    """Look for a job with the results of a trial whose job would have these columns.

    A job that has not ended is shared only if it is certain to end: it must run already or be
    queued for a device class that suits the trial, must have no time limit, and must not be paused.
    """
    spec = job_columns["spec"]
    jobs = _jobs_of_trial(session, trial_sha256)
    matching = [job for job in jobs if _has_wanted_metrics(job, spec)]
    succeeded = [job for job in matching if job.state == JobState.SUCCEEDED]
    if succeeded:
        return ExistingJob(succeeded[0].id, finished=True)
    device_class = job_columns["device_class"]
    resume_from = _furthest_checkpoint_job(session, jobs, spec, device_class)
    kept_class = continuing_job_columns(job_columns, resume_from)["device_class"]
    device_classes = (device_class, kept_class, DeviceClass.ANY)
    unfinished = [
        job
        for job in matching
        if job.time_limit_seconds is None and job.pause_requested_at is None
        if job.state == JobState.RUNNING
        or (job.state == JobState.QUEUED and job.device_class in device_classes)
    ]
    for job in unfinished:
        if job.cancel_requested_at is None:
            return ExistingJob(job.id, finished=False)
    return NewJobNeeded(resume_from=resume_from, wait=bool(unfinished))


def has_succeeded_job(session: Session, trial_sha256: str, job_columns: JsonObject) -> bool:
    """Return whether the results of the trial exist already."""
    found = find_existing_job(session, trial_sha256, job_columns)
    return isinstance(found, ExistingJob) and found.finished


def continuing_job_columns(job_columns: JsonObject, continued: Job | None) -> JsonObject:
    """Return the columns of a trial's job that starts from the last checkpoint of another one.

    It stays with the device class of that one, because another one gives different numbers.
    """
    if continued is None:
        return job_columns
    columns = {**job_columns, "continues": continued.id}
    if columns["device_class"] == DeviceClass.ANY:
        columns["device_class"] = continued.device_class
    return columns


def _jobs_of_trial(session: Session, trial_sha256: str) -> Sequence[Job]:
    """Return all jobs of the trial, with any budget, the oldest first.

    Only training jobs have this hash.
    """
    statement = select(Job).where(Job.trial_sha256 == trial_sha256).order_by(Job.id)
    return session.scalars(statement).all()


def _has_wanted_metrics(job: Job, spec: JsonObject) -> bool:
    """Return whether a job has the same budget and all metrics that the description asks for."""
    if _trial_spec(job.spec) != _trial_spec(spec):
        return False
    wanted, measured = spec["result"]["train_metrics"], job.spec.get("result", {})
    return bool(not wanted or measured.get("train_metrics"))


def _furthest_checkpoint_job(
    session: Session, jobs: Sequence[Job], spec: JsonObject, device_class: DeviceClass
) -> Job | None:
    """Return the ended job of this device class with the furthest checkpoint within the budget."""
    budget = budget_of(spec)
    candidates = [
        job.id
        for job in jobs
        if budget_of(job.spec) <= budget and job.state not in ACTIVE_STATES
        if DeviceClass.ANY in (device_class, job.device_class) or job.device_class == device_class
    ]
    if not candidates:
        return None
    usable = (Checkpoint.job_id.in_(candidates), Checkpoint.bad.is_(False))
    furthest = (
        select(Checkpoint.job_id, func.max(Checkpoint.step).label("step"))
        .where(*usable)
        .group_by(Checkpoint.job_id)
        .order_by(func.max(Checkpoint.step).desc(), Checkpoint.job_id)
    )
    row = session.execute(furthest.limit(1)).first()
    return session.get_one(Job, row.job_id) if row else None


def _trial_spec(spec: JsonObject) -> JsonObject | None:
    trial: JsonObject | None = spec.get("trial")
    return trial


def budget_of(spec: JsonObject) -> float:
    """Return the share of all training steps that the job runs, 0 to 1."""
    trial = _trial_spec(spec)
    return 1.0 if trial is None else float(trial["budget"])


# Job descriptions of trials. Invalid ones are collected first and reported together.

MAX_REPORTED_TRIALS = 10  # invalid trials that an error lists
MAX_SHOWN_CHARACTERS = 64  # of a value or field name in an error
DIFFERENT_TASKS = "trials of different tasks cannot be compared"
RESERVED_FIELDS = {"spec_version", "preset", "trial", "result"}  # set by the sweep itself

RESOLVE_ERRORS = (AppError, LoraCoreError)  # why a valid description still could never run


@dataclass
class ResolvedInputs:
    """Bases and data sources as resolved at the start of a sweep.

    A name keeps its meaning to the end of the sweep, even if a new version appears.
    """

    bases: dict[str, ResolvedBase] = field(default_factory=dict)
    sources: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, stored: JsonObject) -> "ResolvedInputs":
        bases = {name: ResolvedBase(**fields) for name, fields in stored["bases"].items()}
        return cls(bases, dict(stored["sources"]))

    def to_json(self) -> JsonObject:
        bases = {name: asdict(base) for name, base in self.bases.items()}
        return {"bases": bases, "sources": self.sources}

    def base_of(self, spec: TrainSpec) -> ResolvedBase | None:
        """Return the base of a trial, if it has one.

        Raises `BaseNotFound`: a search may propose a base that was not looked up.
        """
        if spec.base is None:
            return None
        if (base := self.bases.get(format_base_ref(spec))) is None:
            reason = "it was not looked up when the sweep was planned"
            raise BaseNotFound(base=spec.base, reason=reason)
        return base

    def resolve_missing_bases(
        self, specs: Iterable[TrainSpec], find_base: FindBase
    ) -> dict[str, Exception]:
        """Resolve the bases that are still unknown; return the errors by base name.

        Call this outside of a transaction: `find_base` may query the Hugging Face Hub.
        """
        errors: dict[str, Exception] = {}
        for spec in specs:
            name = format_base_ref(spec)
            if spec.base is None or name in self.bases or name in errors:
                continue
            try:
                self.bases[name] = find_base(spec.base, spec.base_revision)
            except RESOLVE_ERRORS as error:
                errors[name] = error
        return errors

    def resolve_job(
        self, resolver: JobResolver, spec: TrainSpec, *, since: float = 0.0
    ) -> ResolvedJob:
        """Resolve a job with these inputs.

        Raises what `base_of` and `JobResolver.resolve` raise.
        """
        source = canonical_json(spec.data.model_dump(mode="json")["source"])
        if source in self.sources:
            given = spec.data.model_dump(exclude_unset=True)
            data = DataSpec.model_validate({**given, "source": self.sources[source]})
            spec = spec.model_copy(update={"data": data})
        resolved = resolver.resolve(spec, self.base_of(spec), completed_share=since)
        self.sources[source] = resolved.spec.data.model_dump(mode="json")["source"]
        return resolved


def check_fields_can_vary(job: TrainSpec, space: SearchSpace) -> None:
    """Raise `FieldNotVariable` for the first field of the space that a job does not have."""
    description = job.model_dump(mode="json", exclude_unset=True)
    first = next(one_at_a_time_settings(space))
    for name in space.fields:
        shown = name[:MAX_SHOWN_CHARACTERS]
        if name.partition(".")[0] in RESERVED_FIELDS:
            raise FieldNotVariable(field=shown, reason="the sweep sets it itself", at="space")
        if name in {"task", "task.type"}:
            raise FieldNotVariable(field=shown, reason=DIFFERENT_TASKS, at="space")
        if not all(part.isidentifier() for part in name.split(".")):
            raise FieldNotVariable(field=shown, reason="a field looks like `method.r`", at="space")
        try:
            TrainSpec.model_validate(apply_settings(description, {name: first[name]}))
        except ValidationError as error:
            for problem in field_problems(error.errors(include_url=False), TrainSpec):
                in_scalar = name.startswith(f"{problem.at}.")  # the parent is not an object
                if in_scalar or (problem.at == name and problem.code == "extra_forbidden"):
                    raise FieldNotVariable(
                        field=shown, reason=problem.message, at="space"
                    ) from error


def build_trial_specs_or_errors(
    job: TrainSpec, trials: Sequence[TrialSettings]
) -> list[TrainSpec | Exception]:
    """Return the job description of each trial, or the error if it is invalid.

    The descriptions are those of full runs that keep no model.
    """
    description = job.model_dump(mode="json", exclude_unset=True)
    result = job.result.model_copy(update={"model": False})
    specs: list[TrainSpec | Exception] = []
    for settings in trials:
        try:
            spec = TrainSpec.model_validate(apply_settings(description, settings))
            specs.append(spec.model_copy(update={"result": result}))
        except ValidationError as error:
            specs.append(error)
    return specs


def spec_at_rung(spec: TrainSpec, strategy: Strategy, rung: int) -> TrainSpec:
    """Return the description of the same run with the budget of a rung."""
    budget = rung_budgets(strategy)[rung]
    texts = strategy.validation_texts if isinstance(strategy, SuccessiveHalving) else None
    trial = None if budget == 1.0 else PartialRunSpec(budget=budget, validation_texts=texts)
    # `model_copy` keeps the record of which fields were set and which are defaults.
    return spec.model_copy(update={"trial": trial})


def raise_if_invalid_trials(trials: Sequence[TrialSettings], outcomes: Sequence[object]) -> None:
    """Raise `InvalidTrials` if some outcomes are errors.

    If all trials have the same error, raise that one: it lies in the job, not in the space.
    """
    invalid = [
        (number, settings, outcome)
        for number, (settings, outcome) in enumerate(zip(trials, outcomes, strict=True), start=1)
        if isinstance(outcome, Exception)
    ]
    if not invalid:
        return
    first = invalid[0][2]
    distinct = {(type(error), str(error)) for _, _, error in invalid}
    all_alike = len(invalid) == len(trials) and len(distinct) == 1
    if all_alike and not isinstance(first, ValidationError):
        raise first
    raise InvalidTrials(
        count=len(invalid),
        total=len(trials),
        at="space",
        trials=[
            {
                "number": number,
                "settings": format_settings(settings),
                "reason": error_reason(error).rstrip("."),
            }
            for number, settings, error in invalid[:MAX_REPORTED_TRIALS]
        ],
    )


def error_reason(error: Exception) -> str:
    """Return in one sentence why a trial cannot run."""
    if isinstance(error, ValidationError):
        place, message = first_problem_location_and_message(error, TrainSpec)
        return f"{place}: {message}."
    return str(error)


def format_base_ref(spec: TrainSpec) -> str:
    """Return the key of the spec's base in `ResolvedInputs.bases`: `name` or `name@revision`."""
    name = spec.base or ""
    return name if spec.base_revision is None else f"{name}@{spec.base_revision}"


def format_settings(settings: Mapping[str, Any]) -> str:
    """Format settings as `method.r=8, method.targets=query+value`."""
    return ", ".join(f"{name}={_shorten_value(value)}" for name, value in settings.items())


def _shorten_value(value: Any) -> str:
    if isinstance(value, list):
        text = "+".join(str(item) for item in value)
    else:
        text = value if isinstance(value, str) else canonical_json(value)
    if len(text) <= MAX_SHOWN_CHARACTERS:
        return text
    return f"{text[: MAX_SHOWN_CHARACTERS - 1]}…"
