"""Queries of retraining rules and runs."""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, String, cast, delete, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from app.database.base import now
from app.database.engines import acquire_transaction_lock
from app.datasets.tables import Dataset
from app.label_review import repository as label_review
from app.label_review.tables import DatasetCorrection
from app.queue.tables import Job
from app.registry.tables import PRODUCTION, ModelAlias, ModelVersion, RegisteredModel
from app.retraining.errors import RetrainingRuleNotFound, RetrainingRunNotFound
from app.retraining.states import ACTIVE_STATES, NotPromotedReason, RetrainingState
from app.retraining.tables import RetrainingRule, RetrainingRun
from app.settings import Settings

MIN_CLAIM_SECONDS = 600.0
_DAY_SECONDS = 86_400.0
_NO_SYNC = {"synchronize_session": False}
_COMPARED = (RetrainingState.PROMOTED, RetrainingState.SHADOWED)


def lock_model_retraining(session: Session, model_id: UUID) -> None:
    """Acquire the lock of all that changes a model's rule and runs, until the transaction ends."""
    acquire_transaction_lock(session, f"retraining {model_id}")


def get_rule(session: Session, model: RegisteredModel) -> RetrainingRule:
    """Raises `RetrainingRuleNotFound`."""
    rule = session.get(RetrainingRule, model.id)
    if rule is None:
        raise RetrainingRuleNotFound(name=model.name)
    return rule


def list_enabled_rules(session: Session) -> list[tuple[RetrainingRule, RegisteredModel]]:
    """Return the enabled rules of models that have a version in production."""
    statement = (
        select(RetrainingRule, RegisteredModel)
        .join(RegisteredModel, RegisteredModel.id == RetrainingRule.model_id)
        .join(
            ModelAlias,
            (ModelAlias.model_id == RegisteredModel.id) & (ModelAlias.alias == PRODUCTION),
        )
        .where(RetrainingRule.enabled)
        .order_by(RegisteredModel.id)
    )
    return [(rule, model) for rule, model in session.execute(statement)]


def get_run(session: Session, model: RegisteredModel, run_id: UUID) -> RetrainingRun:
    """Raises `RetrainingRunNotFound`."""
    run = session.get(RetrainingRun, run_id)
    if run is None or run.model_id != model.id:
        raise RetrainingRunNotFound(name=model.name, run_id=run_id)
    return run


def list_runs(
    session: Session, model_id: UUID, *, after: UUID | None, limit: int
) -> Sequence[RetrainingRun]:
    """Return the runs of a model, the newest first."""
    statement = select(RetrainingRun).where(RetrainingRun.model_id == model_id)
    if after is not None:
        statement = statement.where(RetrainingRun.id < after)
    return session.scalars(statement.order_by(RetrainingRun.id.desc()).limit(limit)).all()


def find_last_run(session: Session, model_id: UUID) -> RetrainingRun | None:
    """Return the newest run of a model, whatever became of it."""
    runs = list_runs(session, model_id, after=None, limit=1)
    return runs[0] if runs else None


def find_run_by_training_dataset(session: Session, dataset_id: UUID) -> RetrainingRun | None:
    """Return the run that made a dataset to train on, or the one it was corrected from.

    Corrections keep the numbers of all rows.
    """
    origin: UUID | None = dataset_id
    while origin is not None:
        statement = select(RetrainingRun).where(RetrainingRun.dataset_id == origin)
        if (run := session.scalars(statement.limit(1)).first()) is not None:
            return run
        correction = label_review.find_dataset_correction(session, origin)
        origin = None if correction is None else correction.corrected_from
    return None


class RetrainingStepClaim(NamedTuple):
    """A claim of a long step."""

    number: int  # fences writes
    crashes: int  # earlier claims that ended neither the step nor by a cause that passes


class ActiveRun(NamedTuple):
    """A run that has not ended."""

    id: UUID
    state: RetrainingState


def list_active_runs(session: Session) -> list[ActiveRun]:
    """Return the runs that have not ended, the oldest first."""
    statement = (
        select(RetrainingRun.id, RetrainingRun.state)
        .where(RetrainingRun.state.in_(ACTIVE_STATES))
        .order_by(RetrainingRun.id)
    )
    return [ActiveRun(row.id, RetrainingState(row.state)) for row in session.execute(statement)]


def count_compared_versions(session: Session, model_id: UUID) -> int:
    """Return how many versions of a model the test has compared with the one in production."""
    too_few_texts = cast(RetrainingRun.reasons, String).contains(
        NotPromotedReason.TOO_FEW_TEXTS.value
    )
    statement = select(func.count()).where(
        RetrainingRun.model_id == model_id, RetrainingRun.state.in_(_COMPARED), ~too_few_texts
    )
    return session.scalars(statement).one()


def claim_seconds(settings: Settings) -> float:
    """Return how long a step may take before another worker may try it.

    The longest one inspects three files, each for as long as the settings allow, and stores two.
    """
    return max(MIN_CLAIM_SECONDS, 5 * settings.inspect_seconds)


def claim_step(
    session: Session, run_id: UUID, state: RetrainingState, *, seconds: float
) -> RetrainingStepClaim | None:
    """Claim a long step for some seconds.

    None: somebody works on it, or the run is in another state.
    """
    statement = (
        update(RetrainingRun)
        .where(
            RetrainingRun.id == run_id,
            RetrainingRun.state == state,
            or_(RetrainingRun.claimed_until.is_(None), RetrainingRun.claimed_until < now()),
        )
        .values(claims=RetrainingRun.claims + 1, claimed_until=now() + seconds)
        .returning(RetrainingRun.claims, RetrainingRun.excused)
    )
    row = session.execute(statement, execution_options=_NO_SYNC).one_or_none()
    return None if row is None else RetrainingStepClaim(row.claims, row.claims - 1 - row.excused)


def release_step(session: Session, run_id: UUID, claim: int, *, excused: bool = False) -> None:
    """Let the next worker try a step again at once. `excused`: this try was no crash."""
    session.execute(
        update(RetrainingRun)
        .where(RetrainingRun.id == run_id, RetrainingRun.claims == claim)
        .values(claimed_until=None, excused=RetrainingRun.excused + int(excused)),
        execution_options=_NO_SYNC,
    )


def exclude_claim_from_crashes(session: Session, run_id: UUID, claim: int) -> None:
    """Let the next worker try a step again when the claim has expired, as if this one had not."""
    session.execute(
        update(RetrainingRun)
        .where(RetrainingRun.id == run_id, RetrainingRun.claims == claim)
        .values(excused=RetrainingRun.excused + 1),
        execution_options=_NO_SYNC,
    )


def release_claims_after_clock_step(session: Session, settings: Settings) -> None:
    """Release the claims that end later than any would: after a clock step, hours later."""
    session.execute(
        update(RetrainingRun)
        .where(RetrainingRun.claimed_until > now() + claim_seconds(settings))
        .values(claimed_until=None),
        execution_options=_NO_SYNC,
    )


def lock_run_in_state(
    session: Session, run_id: UUID, state: RetrainingState
) -> RetrainingRun | None:
    """Return a run, locked with its model until the transaction ends; None if it is in another
    state."""
    model_id = session.scalars(
        select(RetrainingRun.model_id).where(RetrainingRun.id == run_id)
    ).one_or_none()
    if model_id is None:
        return None
    lock_model_retraining(session, model_id)
    run = session.get(RetrainingRun, run_id, populate_existing=True)
    return run if run is not None and run.state == state else None


def list_runs_with_unreferenced_evaluation_dataset(session: Session) -> list[tuple[UUID, UUID]]:
    """Return ended runs with evaluation texts that no stored result has: (run, dataset).

    While a result has them, the dataset stays: by it, forgetting finds the result.
    """
    has_result = (
        select(Job.id)
        .where(
            Job.id.in_((RetrainingRun.current_run_id, RetrainingRun.new_run_id)),
            Job.artifact_id.is_not(None),
        )
        .exists()
    )
    statement = select(RetrainingRun.id, RetrainingRun.evaluation_dataset_id).where(
        RetrainingRun.evaluation_dataset_id.is_not(None),
        RetrainingRun.state.not_in(ACTIVE_STATES),
        ~has_result,
    )
    return [(run_id, dataset_id) for run_id, dataset_id in session.execute(statement) if dataset_id]


def list_runs_with_unused_training_dataset(session: Session) -> list[tuple[UUID, UUID]]:
    """Return ended runs whose texts neither a version nor a correction is made of: (run,
    dataset)."""
    statement = select(RetrainingRun.id, RetrainingRun.dataset_id).where(
        RetrainingRun.state.not_in(ACTIVE_STATES),
        ~_version_exists(),
        _dataset_is_stored(),
    )
    return [
        (run_id, dataset_id)
        for run_id, dataset_id in session.execute(statement)
        if dataset_id
        and not _has_version(session, dataset_id)
        and not _has_stored_correction(session, dataset_id)
    ]


def _has_version(session: Session, dataset_id: UUID) -> bool:
    """Return whether a version of any model was trained on a dataset, such as by a job of its
    own."""
    statement = (
        select(ModelVersion.id)
        .join(Job, Job.id == ModelVersion.job_id)
        .where(cast(Job.dataset_ids, String).contains(str(dataset_id)))
    )
    return session.scalars(statement.limit(1)).first() is not None


def _has_stored_correction(session: Session, dataset_id: UUID) -> bool:
    """Return whether a correction of a dataset, or of one of its corrections, is stored.

    Which rows of it are live is known by the run of this dataset alone.
    """
    origins = [dataset_id]
    while origins:
        statement = (
            select(Dataset.id, Dataset.deleted_at)
            .join(DatasetCorrection, DatasetCorrection.dataset_id == Dataset.id)
            .where(DatasetCorrection.corrected_from.in_(origins))
        )
        corrections = session.execute(statement).all()
        if any(deleted_at is None for _, deleted_at in corrections):
            return True
        origins = [id_ for id_, _ in corrections]
    return False


def delete_old_runs(session: Session, *, days: float, limit: int) -> int:
    """Delete ended runs of this age on which nothing depends. Return how many."""
    statement = select(RetrainingRun.id).where(*_is_old(days)).limit(limit)
    deleted = session.execute(
        delete(RetrainingRun).where(RetrainingRun.id.in_(statement)).returning(RetrainingRun.id),
        execution_options=_NO_SYNC,
    )
    return len(deleted.all())


def _is_old(days: float) -> tuple[ColumnElement[bool], ...]:
    """Kept are runs that later ones read: the newest of a model says which feedback is new, a
    comparison is one of the tries, and the run of a dataset says which of its rows are live."""
    newer = aliased(RetrainingRun)
    newer_exists = (
        select(newer.id)
        .where(newer.model_id == RetrainingRun.model_id, newer.id > RetrainingRun.id)
        .exists()
    )
    return (
        RetrainingRun.created_at < now() - days * _DAY_SECONDS,
        RetrainingRun.state.not_in((*ACTIVE_STATES, *_COMPARED)),
        RetrainingRun.evaluation_dataset_id.is_(None),
        newer_exists,
        ~_version_exists(),
        ~_dataset_is_stored(),
        ~_dataset_was_corrected(),
    )


def _version_exists() -> ColumnElement[bool]:
    return (
        select(ModelVersion.id)
        .where(
            ModelVersion.model_id == RetrainingRun.model_id,
            ModelVersion.number == RetrainingRun.new_number,
        )
        .exists()
    )


def _dataset_was_corrected() -> ColumnElement[bool]:
    return (
        select(DatasetCorrection.dataset_id)
        .where(DatasetCorrection.corrected_from == RetrainingRun.dataset_id)
        .exists()
    )


def _dataset_is_stored() -> ColumnElement[bool]:
    return (
        select(Dataset.id)
        .where(Dataset.id == RetrainingRun.dataset_id, Dataset.deleted_at.is_(None))
        .exists()
    )
