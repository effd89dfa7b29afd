"""Operations on retraining rules and runs: set, delete, start, cancel."""

from contextlib import suppress
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from app import logging
from app.database.base import now
from app.database.engines import call_after_commit
from app.idempotency import service as idempotency
from app.idempotency.service import IdempotentRequest
from app.jobs import repository as jobs
from app.jobs.pretrained_bases import build_base_resolver
from app.queue.tables import Job
from app.registry import repository as registry
from app.resources import Resources
from app.retraining import repository, scheduler, transitions
from app.retraining.errors import NoFeedbackToTrainOn, RetrainingAlreadyEnded, RetrainingInProgress
from app.retraining.production_version import read_production_version
from app.retraining.schemas import (
    HyperparameterSearch,
    RetrainingRuleUpdate,
    RetrainingRuleView,
    RetrainingRunView,
)
from app.retraining.states import RetrainingState, Trigger
from app.retraining.tables import RetrainingRule
from app.retraining.views import rule_view, run_view
from app.sweeps import planning
from app.sweeps import service as sweep_service
from app.sweeps.errors import InvalidSweepTransition
from app.sweeps.tables import Sweep


def validate_hyperparameter_search(
    resources: Resources, *, name: str, search: HyperparameterSearch
) -> None:
    """Try a search on the settings of production's job, outside of a transaction.

    Raises the errors in a search, and what `read_production_version` raises.
    """
    with resources.database.read() as session:
        registry.get_model(session, name)
        production = read_production_version(session, name)
    body = scheduler.build_sweep_request(production.spec, search, model=name)
    planning.plan_trials(
        body, build_base_resolver(resources.database, resources.store, resources.settings)
    )


def create_or_replace_rule(
    session: Session, *, name: str, body: RetrainingRuleUpdate, caller_id: UUID
) -> RetrainingRuleView:
    """Set the rule of a model, in place of its earlier one. Raises `ModelNotFound`."""
    model = registry.get_model(session, name)
    repository.lock_model_retraining(session, model.id)
    values: dict[str, Any] = body.model_dump(mode="json")
    rule = session.get(RetrainingRule, model.id)
    if rule is None:
        rule = RetrainingRule(model_id=model.id, created_by=caller_id, **values)
        session.add(rule)
    else:
        for field, value in values.items():
            setattr(rule, field, value)
        rule.created_by, rule.updated_at = caller_id, now()
    session.flush()
    session.refresh(rule)
    fields = {field: values[field] for field in ("enabled", "new_labels", "every_days")}
    audit = partial(
        logging.write_audit_line, "retraining_rule_set", model=name, test_level=rule.level
    )
    call_after_commit(session, partial(audit, **fields))
    return get_rule(session, name=name)


def get_rule(session: Session, *, name: str) -> RetrainingRuleView:
    """Return the rule of a model. Raises `ModelNotFound`, `RetrainingRuleNotFound`."""
    model = registry.get_model(session, name)
    rule = repository.get_rule(session, model)
    last = repository.find_last_run(session, model.id)
    return rule_view(
        rule,
        name,
        waiting_labels=scheduler.count_feedback_texts_since_run(session, name, last),
        due_at=scheduler.compute_due_time(rule, last),
        tries=repository.count_compared_versions(session, model.id),
    )


def delete_rule(session: Session, *, name: str) -> None:
    """Delete the rule of a model. A run in progress continues.

    Raises `ModelNotFound`, `RetrainingRuleNotFound`.
    """
    model = registry.get_model(session, name)
    repository.lock_model_retraining(session, model.id)
    session.delete(repository.get_rule(session, model))
    call_after_commit(
        session, partial(logging.write_audit_line, "retraining_rule_deleted", model=name)
    )


def create_run(session: Session, *, name: str, call: IdempotentRequest) -> RetrainingRunView:
    """Start a run by the rule of a model, whether it is due or not.

    Raises `ModelNotFound`, `RetrainingRuleNotFound`, `RetrainingInProgress`, `NoFeedbackToTrainOn`,
    and what `read_production_version` and `idempotency.reserve` raise.
    """
    idempotency.reserve(session, call)
    model = registry.get_model(session, name)
    repository.lock_model_retraining(session, model.id)
    rule = repository.get_rule(session, model)
    last = repository.find_last_run(session, model.id)
    if last is not None and not RetrainingState(last.state).final:
        raise RetrainingInProgress(run_id=last.id, name=name, state=last.state)
    read_production_version(session, name)
    if not scheduler.count_feedback_texts_since_run(session, name, None):
        raise NoFeedbackToTrainOn(name=name)
    run = scheduler.add_run(session, rule, model, Trigger.REQUEST, created_by=call.caller_id)
    view = run_view(run, name)
    idempotency.save_response(session, call, status=202, body=view, location=view.location)
    return view


def cancel_run(session: Session, *, name: str, run_id: UUID) -> RetrainingRunView:
    """Cancel a run with its jobs. Its datasets are deleted later, unless a version was made.

    Raises `ModelNotFound`, `RetrainingRunNotFound`, `RetrainingAlreadyEnded`.
    """
    model = registry.get_model(session, name)
    repository.lock_model_retraining(session, model.id)
    run = repository.get_run(session, model, run_id)
    session.refresh(run)
    if RetrainingState(run.state).final:
        raise RetrainingAlreadyEnded(run_id=run_id, state=run.state)
    if run.sweep_id is not None and session.get(Sweep, run.sweep_id) is not None:
        with suppress(InvalidSweepTransition):  # it ended
            sweep_service.stop_sweep(session, sweep_id=run.sweep_id)
    for job_id in (run.job_id, run.current_run_id, run.new_run_id):
        if job_id is not None and session.get(Job, job_id) is not None:
            jobs.request_cancel(session, job_id)
    transitions.end_run_and_publish(session, run, RetrainingState.CANCELLED)
    return run_view(run, name)
