"""Planning of sweeps: which trials run and what they cost, before anything is stored."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import fmean
from typing import Any

from sqlalchemy.orm import Session

from app.database.base import JsonObject
from app.jobs import estimate
from app.jobs.pretrained_bases import FindBase
from app.jobs.resolve import JobResolver, ResolvedJob
from app.queue import heartbeats
from app.settings import Settings
from app.sweeps import search_space, strategies, trials
from app.sweeps.errors import (
    FieldNotVariable,
    NothingToExtend,
    ObjectiveUnsupported,
    TooManyTrialsInSweep,
)
from app.sweeps.schemas import RungPlan, SweepCreate, SweepExtend, SweepPlan
from app.sweeps.search_space import SearchSpace, TrialSettings
from app.sweeps.states import Objective
from app.sweeps.strategies import GridSearch, Strategy, TpeSearch
from app.sweeps.trials import ResolvedInputs
from lora_core.specs.task import TaskType
from lora_core.specs.train import TrainSpec
from lora_core.tasks.metric_info import metric_names_of_spec

_MAX_PROBES = 1_000  # settings that are only validated
_WARM_START_SECONDS = 2.0  # between two trials in one process

ResolvedTrials = list[tuple[TrialSettings, ResolvedJob]]


@dataclass(frozen=True)
class SweepBeforeExtension:
    """A sweep as stored when its extension was planned."""

    space: list[Any]
    strategy: JsonObject
    trials: int
    task_type: TaskType


@dataclass(frozen=True)
class UnresolvedPlan:
    """The part of a plan that needs no transaction.

    `settings` and `specs` hold the `trial_count` trials to run, followed by probes: settings of a
    model-based search that are only validated.
    """

    space: SearchSpace
    strategy: Strategy
    settings: Sequence[TrialSettings]
    specs: Sequence[TrainSpec]
    inputs: ResolvedInputs
    trial_count: int
    extends: SweepBeforeExtension | None = None

    @property
    def total_trials(self) -> int:
        """How many trials the sweep will have: a model-based search proposes most of them later."""
        if isinstance(self.strategy, TpeSearch):
            return self.strategy.trials
        return self.trial_count + (self.extends.trials if self.extends else 0)


def plan_trials(body: SweepCreate, find_base: FindBase) -> UnresolvedPlan:
    """Plan the first trials of a sweep.

    Call this outside of a transaction, since `find_base` may query the Hugging Face Hub.

    Raises `FieldNotVariable`, the errors of a search space and of `strategies.initial_trials`, and
    `InvalidTrials`.
    """
    space, strategy = body.search_space, body.strategy
    _validate_space(body.job, space)
    first = strategies.initial_trials(strategy, space)
    settings = [*first, *_probes(body.job, strategy, space)]
    return _candidate_plan(
        body.job, space, strategy, settings, find_base, ResolvedInputs(), trial_count=len(first)
    )


def plan_extension(  # noqa: PLR0913 - a sweep, and its extension
    job: TrainSpec,
    *,
    space: SearchSpace,
    strategy: Strategy,
    inputs: ResolvedInputs,
    existing: Sequence[TrialSettings],
    body: SweepExtend,
    find_base: FindBase,
) -> UnresolvedPlan:
    """Plan more trials for a sweep that has the `existing` ones.

    Raises `NothingToExtend`, and what `plan_trials` raises.
    """
    new_space = search_space.extend_space(space, body.space or {})
    new_strategy = _with_trial_count(strategy, body.trials)
    _validate_space(job, new_space)
    added = _new_settings(new_strategy, new_space, existing)
    draws = not isinstance(new_strategy, GridSearch) and new_strategy.trials is not None
    if not added and new_strategy == strategy:
        raise NothingToExtend(
            reason="set `trials` to a higher number" if draws else "the sweep has all of them"
        )
    settings = [*added, *_probes(job, new_strategy, new_space)]
    return _candidate_plan(
        job, new_space, new_strategy, settings, find_base, inputs, trial_count=len(added)
    )


def resolve_trial_jobs(plan: UnresolvedPlan, resolver: JobResolver) -> ResolvedTrials:
    """Resolve the jobs of all trials and probes.

    Raises `InvalidTrials`, `FieldNotVariable` if they have different tasks, and what
    `JobResolver.resolve` raises.
    """
    outcomes: list[ResolvedJob | Exception] = []
    for spec in plan.specs:
        try:
            first_rung = trials.spec_at_rung(spec, plan.strategy, 0)
            outcomes.append(plan.inputs.resolve_job(resolver, first_rung))
        except trials.RESOLVE_ERRORS as error:
            outcomes.append(error)
    trials.raise_if_invalid_trials(plan.settings, outcomes)
    resolved = [outcome for outcome in outcomes if isinstance(outcome, ResolvedJob)]
    tasks = {job.spec.task.type for job in resolved}  # perhaps those of the datasets
    if plan.extends is not None:
        tasks.add(plan.extends.task_type)
    if len(tasks) > 1:
        raise FieldNotVariable(field="data.source", reason=trials.DIFFERENT_TASKS, at="space")
    return list(zip(plan.settings, resolved, strict=True))


def resolve_objective(objective: Objective | None, resolved: ResolvedTrials) -> str:
    """Return the metric that ranks the trials, by default the main metric of their task.

    Raises `ObjectiveUnsupported`.
    """
    task = resolved[0][1].spec.task  # the same for all trials; perhaps that of the dataset
    names = metric_names_of_spec({"task": task.model_dump(mode="json")})
    if objective is None:
        return names[0]
    if objective not in names:
        raise ObjectiveUnsupported(
            objective=objective, task=task.type, available=", ".join(names), at="objective"
        )
    return objective


def preview_sweep(
    session: Session, *, body: SweepCreate, plan: UnresolvedPlan, settings: Settings
) -> SweepPlan:
    """Return what starting the sweep would do.

    Raises what `resolve_trial_jobs` and `resolve_objective` raise.
    """
    resolver, strategy = JobResolver(session, settings), plan.strategy
    resolved = resolve_trial_jobs(plan, resolver)
    resolve_objective(body.objective, resolved)
    total = plan.total_trials
    counts = strategies.trials_per_rung(strategy, total)
    reused = sum(
        trials.has_succeeded_job(session, job.trial_sha256, job.columns())
        for _, job in resolved[: plan.trial_count]
    )
    workers = heartbeats.count_worker_slots(session, lease_seconds=settings.lease_seconds)
    parallel = min(body.max_parallel_jobs or workers, workers) or 1
    to_run = [counts[0] - reused, *counts[1:]]
    seconds = _estimated_seconds(plan, resolver, resolved, to_run)
    sizes = [job.parameters.trainable for _, job in resolved]
    return SweepPlan(
        trials=total,
        reused=reused,
        rungs=[
            RungPlan(budget=budget, trials=count)
            for budget, count in zip(strategies.rung_budgets(strategy), counts, strict=True)
        ],
        workers=workers,
        estimated_seconds=round(seconds / parallel + (estimate.STARTUP_SECONDS if seconds else 0)),
        trainable_parameters=(min(sizes), max(sizes)),
    )


def _probes(job: TrainSpec, strategy: Strategy, space: SearchSpace) -> list[TrialSettings]:
    """Return settings to validate for a model-based search, whose later trials are unknown.

    Among them is each base in each revision: no base can be looked up once the search runs.
    """
    if not isinstance(strategy, TpeSearch):
        return []
    probes = list(islice(search_space.one_at_a_time_settings(space), _MAX_PROBES))
    base_fields = {
        name: values
        for name, values in space.dimensions.items()
        if name in ("base", "base_revision")
    }
    if not base_fields:
        return probes
    bases = search_space.iterate_grid_settings(SearchSpace(dimensions=base_fields))
    specs = trials.build_trial_specs_or_errors(job, probes)
    for settings, spec in zip(probes, specs, strict=True):
        if isinstance(spec, TrainSpec) and spec.base is not None:  # the method is not linear
            return probes + [{**settings, **base} for base in bases]
    return probes


def _validate_space(job: TrainSpec, space: SearchSpace) -> None:
    search_space.validate_ranges(space)
    trials.check_fields_can_vary(job, space)


def _candidate_plan(  # noqa: PLR0913 - the fields of a `UnresolvedPlan`
    job: TrainSpec,
    space: SearchSpace,
    strategy: Strategy,
    settings: Sequence[TrialSettings],
    find_base: FindBase,
    inputs: ResolvedInputs,
    *,
    trial_count: int,
) -> UnresolvedPlan:
    outcomes = trials.build_trial_specs_or_errors(job, settings)
    trials.raise_if_invalid_trials(settings, outcomes)
    specs = [outcome for outcome in outcomes if isinstance(outcome, TrainSpec)]
    base_errors = inputs.resolve_missing_bases(specs, find_base)
    trials.raise_if_invalid_trials(
        settings, [base_errors.get(trials.format_base_ref(spec), spec) for spec in specs]
    )
    return UnresolvedPlan(space, strategy, settings, specs, inputs, trial_count)


def _estimated_seconds(
    plan: UnresolvedPlan, resolver: JobResolver, resolved: ResolvedTrials, counts: Sequence[int]
) -> float:
    """Return the seconds for `counts` trials at each rung, one after the other in warm processes.

    `resolved` are the trials of the first rung.
    """
    total, since = 0.0, 0.0
    for rung, budget in enumerate(strategies.rung_budgets(plan.strategy)):
        if rung == 0:
            costs = [_warm_seconds(job) for _, job in resolved]
        else:
            specs = (trials.spec_at_rung(spec, plan.strategy, rung) for spec in plan.specs)
            jobs = (plan.inputs.resolve_job(resolver, spec, since=since) for spec in specs)
            costs = [_warm_seconds(job) for job in jobs]
        total += counts[rung] * fmean(costs)
        since = budget
    return total


def _warm_seconds(job: ResolvedJob) -> float:
    """Return the seconds of a trial in a process that has imported its libraries."""
    return job.cost.seconds - job.cost.startup_seconds + _WARM_START_SECONDS


def _with_trial_count(strategy: Strategy, count: int | None) -> Strategy:
    """Return the strategy with a higher number of trials to draw."""
    if count is None:
        return strategy
    if isinstance(strategy, GridSearch) or strategy.trials is None:
        raise NothingToExtend(reason="a grid is extended by values of its fields, not by `trials`")
    if count <= strategy.trials:
        raise NothingToExtend(
            reason=f"`trials` is the new total and must be more than {strategy.trials}"
        )
    return strategy.model_copy(update={"trials": count})


def _new_settings(
    strategy: Strategy, space: SearchSpace, existing: Sequence[TrialSettings]
) -> list[TrialSettings]:
    """Return the settings to add; none for a model-based search, which proposes its own later."""
    if isinstance(strategy, TpeSearch):
        return []
    if not isinstance(strategy, GridSearch) and strategy.trials is not None:
        count = max(0, strategy.trials - len(existing))
        return search_space.sample_settings(space, count, seed=strategy.seed, exclude=existing)
    seen = {search_space.canonical_json(settings) for settings in existing}
    added = [
        settings
        for settings in search_space.iterate_grid_settings(space)
        if search_space.canonical_json(settings) not in seen
    ]
    total = len(existing) + len(added)
    if total > search_space.MAX_TRIALS:
        raise TooManyTrialsInSweep(trials=total, limit=search_space.MAX_TRIALS, at="space")
    return added
