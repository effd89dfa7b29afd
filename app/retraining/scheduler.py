"""The steps of retraining runs, and the start of those that are due.

All state is in the database, so any worker continues where another one stopped. Every step ends in
one transaction, under the lock of the model, which checks that the step is still open. The long
steps, which read files, are claimed before: so two workers do not do the same work.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from uuid import UUID

import structlog
from sqlalchemy.orm import Session

from app import logging
from app.database.base import read_clock
from app.database.engines import call_after_commit
from app.database.errors import OUTAGE_ERRORS
from app.datasets import files
from app.datasets import repository as datasets
from app.datasets.errors import DatasetNotFound
from app.datasets.tables import Dataset
from app.errors import AppError, InsufficientStorage, ServiceUnavailable
from app.feedback import repository as feedback
from app.idempotency.service import IdempotentRequest
from app.jobs import service as jobs
from app.jobs.errors import TooManyJobs
from app.jobs.pretrained_bases import build_base_resolver
from app.predictions import service as predictions
from app.queue.enums import JobState
from app.queue.tables import Job
from app.registry import repository as registry
from app.registry import service as registry_service
from app.registry.errors import ModelNotFound
from app.registry.refs import ModelRef
from app.registry.tables import PRODUCTION, SHADOW, ModelAlias, ModelVersion, RegisteredModel
from app.resources import Resources
from app.retraining import collect_training_texts, repository, transitions
from app.retraining.decision import compare_results, find_reasons_against_promotion
from app.retraining.errors import (
    EvaluationRunDeleted,
    NoWinner,
    RetrainingInterrupted,
    TrainingJobDeleted,
)
from app.retraining.feedback_labels import TaskIOSchema
from app.retraining.production_version import read_production_version
from app.retraining.schemas import HyperparameterSearch, RetrainingErrorView
from app.retraining.states import NotPromotedReason, RetrainingState, Trigger
from app.retraining.tables import RetrainingRule, RetrainingRun
from app.sweeps import planning
from app.sweeps import repository as sweeps
from app.sweeps import service as sweep_service
from app.sweeps.errors import NothingToPromote
from app.sweeps.schemas import SweepCreate, SweepPromote
from app.sweeps.states import SweepState
from lora_core.errors import LoraCoreError
from lora_core.failpoints import failpoint
from lora_core.specs.predict import RESULTS_FILE
from lora_core.specs.train import TrainSpec

MAX_CRASHES = 5  # of a step
_PASSING_ERRORS = (
    *OUTAGE_ERRORS,
    ServiceUnavailable,
    InsufficientStorage,
    TooManyJobs,
    OSError,
)
_DAY_SECONDS = 86_400.0
_SWEEP_ROUTE = "retraining"  # of calls without an idempotency key

log = structlog.get_logger(__name__)


def start_and_advance_runs(resources: Resources) -> None:
    """Start what is due, and take the next step of every run. Raises one of `OUTAGE_ERRORS`."""
    start_due_runs(resources)
    with resources.database.read() as session:
        active = repository.list_active_runs(session)
    for run in active:
        _advance_safely(resources, run.id, run.state)
    _delete_unused_data(resources)


def _advance_safely(resources: Resources, run_id: UUID, state: RetrainingState) -> None:
    """Take the next step of a run. One that fails does not hold up the others."""
    try:
        _STEPS[state](resources, run_id)
    except OUTAGE_ERRORS:
        raise
    except _PASSING_ERRORS as error:
        log.warning("the retraining waits", run_id=str(run_id), state=state, error=str(error))
    except (AppError, LoraCoreError) as error:
        _fail(resources, run_id, state, error)
    except Exception:
        log.exception("advancing the retraining failed", run_id=str(run_id), state=state)


def _fail(
    resources: Resources,
    run_id: UUID,
    state: RetrainingState,
    error: AppError | LoraCoreError,
    *,
    claim: int | None = None,
) -> None:
    """End a run with an error, unless it is in another state or the claim was lost."""
    view = RetrainingErrorView(code=error.code, message=str(error))
    with resources.database.write() as session:
        if claim is None:
            run = repository.lock_run_in_state(session, run_id, state)
        else:
            run = transitions.lock_claimed_run(session, run_id, state, claim)
        if run is not None:
            transitions.end_run_and_publish(session, run, RetrainingState.FAILED, error=view)


# -- Start ----------------------------------------------------------------------------------------


def start_due_runs(resources: Resources) -> None:
    """Start the runs of the rules that are due."""
    with resources.database.read() as session:
        due = [
            model.id
            for rule, model in repository.list_enabled_rules(session)
            if find_due_trigger(session, rule, model) is not None
        ]
    for model_id in due:
        with resources.database.write() as session:
            repository.lock_model_retraining(session, model_id)
            rule = session.get(RetrainingRule, model_id)
            model = session.get_one(RegisteredModel, model_id)
            if rule is not None and (trigger := find_due_trigger(session, rule, model)) is not None:
                add_run(session, rule, model, trigger, created_by=rule.created_by)
        failpoint("retraining_started")


def find_due_trigger(
    session: Session, rule: RetrainingRule, model: RegisteredModel
) -> Trigger | None:
    """Return what makes a run due now; None: nothing, or one is in progress."""
    last = repository.find_last_run(session, model.id)
    if not rule.enabled or (last is not None and not RetrainingState(last.state).final):
        return None
    count = count_feedback_texts_since_run(session, model.name, last)
    if rule.new_labels is not None and count >= rule.new_labels:
        return Trigger.NEW_LABELS
    due_at = compute_due_time(rule, last)
    if due_at is not None and count and read_clock(session) >= due_at:
        return Trigger.TIME
    return None


def count_feedback_texts_since_run(session: Session, name: str, last: RetrainingRun | None) -> int:
    """Return how many texts have feedback that is newer than the last run."""
    return feedback.count_texts_with_new_feedback(
        session, model=name, since=0.0 if last is None else last.labels_until
    )


def compute_due_time(rule: RetrainingRule, last: RetrainingRun | None) -> float | None:
    """Return when the days of a rule are over, in Unix time."""
    if rule.every_days is None:
        return None
    since = rule.created_at if last is None else last.created_at
    return since + rule.every_days * _DAY_SECONDS


def add_run(
    session: Session,
    rule: RetrainingRule,
    model: RegisteredModel,
    trigger: Trigger,
    *,
    created_by: UUID,
) -> RetrainingRun:
    """Start a run. The caller holds the lock of the model, and no other run is active.

    Raises `NoModelPromoted`.
    """
    version = registry.get_version(session, ModelRef(model.name, alias=PRODUCTION))
    last = repository.find_last_run(session, model.id)
    run = RetrainingRun(
        model_id=model.id,
        created_by=created_by,
        trigger=trigger,
        state=RetrainingState.COLLECTING,
        level=rule.level,
        search=rule.search,
        new_labels=count_feedback_texts_since_run(session, model.name, last),
        labels_until=read_clock(session),
        current_number=version.number,
    )
    session.add(run)
    session.flush()
    fields = {"model": model.name, "run": str(run.id), "trigger": trigger.value}
    call_after_commit(session, partial(logging.write_audit_line, "retraining_started", **fields))
    return run


# -- Steps ----------------------------------------------------------------------------------------


def _run_claimed(
    state: RetrainingState,
    work: Callable[[Resources, UUID, int], None],
    resources: Resources,
    run_id: UUID,
) -> None:
    """Do the work of a long step, unless somebody else does. An error of the work ends the run.

    If it fails for a cause that may pass, it is tried again when the claim has expired.
    """
    with resources.database.write() as session:
        seconds = repository.claim_seconds(resources.settings)
        claim = repository.claim_step(session, run_id, state, seconds=seconds)
    if claim is None:
        return
    try:
        if claim.crashes >= MAX_CRASHES:
            raise RetrainingInterrupted(state=state.value, claims=MAX_CRASHES)
        work(resources, run_id, claim.number)
    except _PASSING_ERRORS:
        with suppress(*OUTAGE_ERRORS), resources.database.write() as session:
            repository.exclude_claim_from_crashes(session, run_id, claim.number)
        raise
    except (AppError, LoraCoreError) as error:
        _fail(resources, run_id, state, error, claim=claim.number)
    except BaseException:
        with resources.database.write() as session:
            repository.release_step(session, run_id, claim.number)
        raise


def _search(resources: Resources, run_id: UUID) -> None:
    """Start the sweep of a run, or the job that makes the model of its best trial."""
    with resources.database.read() as session:
        run = session.get_one(RetrainingRun, run_id)
        sweep = None if run.sweep_id is None else sweeps.get_sweep(session, run.sweep_id)
    if sweep is None:
        _run_claimed(RetrainingState.SEARCHING, _start_sweep, resources, run_id)
        return
    if sweep.state not in (SweepState.FINISHED, SweepState.STOPPED):
        return
    with resources.database.write() as session:
        locked = repository.lock_run_in_state(session, run_id, RetrainingState.SEARCHING)
        if locked is None:
            return
        if sweep.state == SweepState.STOPPED:
            transitions.end_run_and_publish(session, locked, RetrainingState.CANCELLED)
            return
        model = session.get_one(RegisteredModel, locked.model_id).name
        call = IdempotentRequest(locked.created_by, _SWEEP_ROUTE, None, None, 0.0)
        try:
            job = sweep_service.enqueue_trial_registration(
                session,
                sweep_id=sweep.id,
                body=SweepPromote(model=model, alias=None),
                settings=resources.settings,
                notifier=resources.notifier,
                call=call,
            )
        except NothingToPromote as error:
            raise NoWinner(sweep_id=sweep.id) from error
        locked.job_id = job.id
        transitions.advance_run(session, locked, RetrainingState.TRAINING)


class _ClaimLost(Exception):
    """The run was cancelled, or another worker starts its sweep."""


def _start_sweep(resources: Resources, run_id: UUID, claim: int) -> None:
    """Start the sweep of a run. One transaction makes it visible and notes it in the run."""
    with resources.database.read() as session:
        run = session.get_one(RetrainingRun, run_id)
        model = session.get_one(RegisteredModel, run.model_id).name
        dataset = datasets.get_dataset(session, run.dataset_id) if run.dataset_id else None
        production = read_production_version(session, model)
    if production.number != run.current_number:
        with resources.database.write() as session:
            claimed = transitions.lock_claimed_run(
                session, run_id, RetrainingState.SEARCHING, claim
            )
            if claimed is not None:
                reasons = [NotPromotedReason.PRODUCTION_CHANGED]
                transitions.end_run_and_publish(
                    session, claimed, RetrainingState.SKIPPED, reasons=reasons
                )
        return
    if dataset is None or run.search is None:
        raise DatasetNotFound(ref=run.dataset_id)
    spec = collect_training_texts.training_spec(production, f"{dataset.name}:{dataset.version}")
    body = build_sweep_request(spec, HyperparameterSearch.model_validate(run.search), model=model)
    plan = planning.plan_trials(
        body, build_base_resolver(resources.database, resources.store, resources.settings)
    )

    def link(session: Session, sweep_id: UUID) -> None:
        claimed = transitions.lock_claimed_run(session, run_id, RetrainingState.SEARCHING, claim)
        if claimed is None:
            raise _ClaimLost
        claimed.sweep_id = sweep_id
        session.flush()

    with suppress(_ClaimLost):
        sweep_service.create_sweep(
            resources.database,
            body=body,
            plan=plan,
            settings=resources.settings,
            notifier=resources.notifier,
            call=IdempotentRequest(run.created_by, _SWEEP_ROUTE, None, None, 0.0),
            link=link,
        )
    failpoint("retraining_sweep_started")


def build_sweep_request(
    spec: TrainSpec, search: HyperparameterSearch, *, model: str
) -> SweepCreate:
    """Return the sweep of a search around the settings of a run."""
    return SweepCreate(
        job=spec, space=search.space, strategy=search.strategy, name=f"{model}: retraining"
    )


def _evaluate_after_training(resources: Resources, run_id: UUID) -> None:
    """Once the job has ended, let both versions predict the evaluation texts."""
    with resources.database.write() as session:
        run = repository.lock_run_in_state(session, run_id, RetrainingState.TRAINING)
        if run is None:
            return
        model = session.get_one(RegisteredModel, run.model_id).name
        job = session.get(Job, run.job_id)
        if job is None:
            raise TrainingJobDeleted(version=f"the new version of {model}")
        if not _succeeded(session, run, job):
            return
        new = registry.get_first_version_ref_of_job(session, job.id, ref=f"of job {job.id}")
        if new.name != model or new.number is None:
            raise ModelNotFound(ref=f"{model}, made by job {job.id},")
        run.new_number = new.number
        dataset = _lock_dataset(session, run.evaluation_dataset_id)
        for number, field in (
            (run.current_number, "current_run_id"),
            (run.new_number, "new_run_id"),
        ):
            ref = f"{model}:{number}"
            prediction = predictions.build_prediction_run(
                ref, dataset, name=f"{model}: retraining, {ref}"
            )
            jobs.insert_and_enqueue(
                session, prediction, created_by=run.created_by, notifier=resources.notifier
            )
            setattr(run, field, prediction.id)
        transitions.advance_run(session, run, RetrainingState.EVALUATING)
    failpoint("retraining_trained")


def _lock_dataset(session: Session, dataset_id: UUID | None) -> Dataset:
    """Raises `DatasetNotFound`."""
    if dataset_id is None or not datasets.lock_against_deletion(session, dataset_id):
        raise DatasetNotFound(ref=dataset_id)
    return datasets.get_dataset(session, dataset_id)


def _succeeded(session: Session, run: RetrainingRun, job: Job) -> bool:
    """Return whether a job of a run has succeeded. If it ended in another way, so does the run."""
    match job.state:
        case JobState.SUCCEEDED:
            return True
        case JobState.CANCELLED:
            transitions.end_run_and_publish(session, run, RetrainingState.CANCELLED)
        case JobState.FAILED:
            code, message = job.error_code or "job_failed", job.error_message or "The job failed."
            error = RetrainingErrorView(code=code, message=message)
            transitions.end_run_and_publish(session, run, RetrainingState.FAILED, error=error)
    return False


def _decide_after_evaluation(resources: Resources, run_id: UUID) -> None:
    """Once both prediction runs have ended, compare them and decide."""
    with resources.database.read() as session:
        run = session.get_one(RetrainingRun, run_id)
        ids = (run.current_run_id, run.new_run_id)
        evaluations = [session.get(Job, each) for each in ids]
    if all(each is not None and each.state == JobState.SUCCEEDED for each in evaluations):
        _run_claimed(RetrainingState.EVALUATING, _decide, resources, run_id)
        return
    with resources.database.write() as session:
        locked = repository.lock_run_in_state(session, run_id, RetrainingState.EVALUATING)
        if locked is None:
            return
        for each in ids:
            job = session.get(Job, each)
            if job is None:
                raise EvaluationRunDeleted(run_id=each)
            if job.state != JobState.SUCCEEDED and not _succeeded(session, locked, job):
                return


def _decide(resources: Resources, run_id: UUID, claim: int) -> None:
    """Compare both versions, and move an alias to the new one.

    The result, the alias, its event and the end of the run are one transaction.
    """
    with resources.database.read() as session:
        run = session.get_one(RetrainingRun, run_id)
        form = _text_form(session, run)
        earlier_tries = repository.count_compared_versions(session, run.model_id)
    current, new = (
        predictions.get_verified_results(resources.database, resources.store, run_id=each)
        for each in (run.current_run_id, run.new_run_id)
        if each is not None
    )
    result = compare_results(
        current.directory / RESULTS_FILE,
        new.directory / RESULTS_FILE,
        form,
        earlier_tries=earlier_tries,
    )
    reasons = find_reasons_against_promotion(result, run.level)
    with resources.database.write() as session:
        locked = transitions.lock_claimed_run(session, run_id, RetrainingState.EVALUATING, claim)
        if locked is None:
            return
        in_production = _lock_production_alias(session, locked.model_id)
        if in_production == locked.new_number:  # somebody has promoted it
            state = RetrainingState.PROMOTED
        else:
            if in_production != locked.current_number:
                reasons.append(NotPromotedReason.PRODUCTION_CHANGED)
            model = session.get_one(RegisteredModel, locked.model_id).name
            version = registry.get_version(session, ModelRef(model, number=locked.new_number))
            alias = SHADOW if reasons else PRODUCTION
            registry_service.point_alias_and_publish(session, version, alias=alias, run=str(run_id))
            state = RetrainingState.SHADOWED if reasons else RetrainingState.PROMOTED
        if result is not None:
            locked.result = result.model_dump(mode="json")
        transitions.end_run_and_publish(session, locked, state, reasons=reasons)
        failpoint("retraining_deciding")
    failpoint("retraining_decided")


def _text_form(session: Session, run: RetrainingRun) -> TaskIOSchema:
    """Return what both versions read and predict: the job of the new one has the same task."""
    job = session.get(Job, run.job_id)
    if job is None:
        raise TrainingJobDeleted(version="the new version")
    spec = TrainSpec.model_validate(job.spec)
    return TaskIOSchema.of_task(spec.task, pairs=spec.data.text_pair_column is not None)


def _lock_production_alias(session: Session, model_id: UUID) -> int | None:
    """Return the number of the version in production, if any.

    The alias is locked, so that it stays there until the end of the transaction.
    """
    alias = session.get(ModelAlias, (model_id, PRODUCTION), with_for_update=True)
    if alias is None:
        return None
    return session.get_one(ModelVersion, alias.version_id).number


def _delete_unused_data(resources: Resources) -> None:
    """Delete the datasets of ended runs that nothing needs any more."""
    for field, list_unused in (
        ("evaluation_dataset_id", repository.list_runs_with_unreferenced_evaluation_dataset),
        ("dataset_id", repository.list_runs_with_unused_training_dataset),
    ):
        with resources.database.read() as session:
            unused = list_unused(session)
        for run_id, dataset_id in unused:
            _delete_dataset(resources, run_id, field, dataset_id, list_unused)


def _delete_dataset(
    resources: Resources,
    run_id: UUID,
    field: str,
    dataset_id: UUID,
    list_unused: Callable[[Session], list[tuple[UUID, UUID]]],
) -> None:
    """Delete a dataset of a run, unless it is read, or came into use since it was listed."""
    with resources.database.write() as session:
        run = session.get_one(RetrainingRun, run_id)
        try:
            dataset = datasets.get_dataset(session, dataset_id, for_update=True)
        except DatasetNotFound:
            setattr(run, field, None)
            return
        if datasets.count_active_jobs(session, dataset_id):
            return
        # In this order: a job that has ended since has left its version or its result.
        if (run_id, dataset_id) not in list_unused(session):
            return
        datasets.soft_delete_dataset(session, dataset)
        setattr(run, field, None)
        delete = partial(files.delete_file, resources.settings, resources.store, dataset)
        call_after_commit(session, delete)


_Step = Callable[[Resources, UUID], None]

_STEPS: Mapping[RetrainingState, _Step] = {
    RetrainingState.COLLECTING: partial(
        _run_claimed, RetrainingState.COLLECTING, collect_training_texts.collect_and_start_training
    ),
    RetrainingState.SEARCHING: _search,
    RetrainingState.TRAINING: _evaluate_after_training,
    RetrainingState.EVALUATING: _decide_after_evaluation,
}
