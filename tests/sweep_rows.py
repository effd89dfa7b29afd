"""Start and change sweeps as the API does, for tests without an HTTP client."""

from typing import Any
from uuid import UUID

from app.auth.tables import LOCAL_KEY_ID
from app.idempotency.service import IdempotentRequest
from app.jobs.pretrained_bases import build_base_resolver
from app.resources import Resources
from app.sweeps import planning, repository, results, service
from app.sweeps.schemas import SweepCreate, SweepExtend
from app.sweeps.snapshot import SweepSnapshot
from app.sweeps.states import SweepState

CALL = IdempotentRequest(LOCAL_KEY_ID, "POST /v1/sweeps", None, None, 1.0)


def start(resources: Resources, **fields: Any) -> UUID:
    """Start a sweep; `fields` are those of the request body."""
    body = SweepCreate.model_validate(fields)
    settings, database = resources.settings, resources.database
    find_base = build_base_resolver(database, resources.store, settings)
    plan = planning.plan_trials(body, find_base)
    return service.create_sweep(
        database, body=body, plan=plan, settings=settings, notifier=resources.notifier, call=CALL
    ).id


def extend(resources: Resources, sweep_id: UUID, **fields: Any) -> None:
    """Extend a sweep; `fields` are those of the request body."""
    settings, database = resources.settings, resources.database
    plan = service.plan_sweep_extension(
        database,
        sweep_id=sweep_id,
        body=SweepExtend.model_validate(fields),
        find_base=build_base_resolver(database, resources.store, settings),
    )
    service.extend_sweep(
        database, sweep_id=sweep_id, plan=plan, settings=settings, notifier=resources.notifier
    )


def stop(resources: Resources, sweep_id: UUID) -> None:
    with resources.database.write() as session:
        service.stop_sweep(session, sweep_id=sweep_id)


def resume(resources: Resources, sweep_id: UUID) -> None:
    service.resume_sweep(
        resources.database,
        sweep_id=sweep_id,
        settings=resources.settings,
        notifier=resources.notifier,
    )


def sweep_state(resources: Resources, sweep_id: UUID) -> SweepState:
    with resources.database.read() as session:
        return SweepState(repository.get_sweep(session, sweep_id).state)


def read_snapshot(resources: Resources, sweep_id: UUID) -> SweepSnapshot:
    with resources.database.read() as session:
        return results.read_cached_snapshot(session, repository.get_sweep(session, sweep_id))
