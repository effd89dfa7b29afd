"""Sweeps for tests that have a database and no web: as the API would start and change them."""

from functools import partial
from typing import Any
from uuid import UUID

from app.auth.tables import LOCAL_KEY_ID
from app.idempotency.service import Call
from app.jobs import base_models
from app.resources import Resources
from app.sweeps import planning, repository, results, service
from app.sweeps.schemas import SweepCreate
from app.sweeps.snapshot import Board
from app.sweeps.states import SweepState

CALL = Call(LOCAL_KEY_ID, "POST /v1/sweeps", None, None, 1.0)


def start(resources: Resources, **body: Any) -> UUID:
    """A running sweep."""
    sent = SweepCreate.model_validate(body)
    settings, database = resources.settings, resources.database
    find = partial(base_models.find, database=database, store=resources.store, settings=settings)
    laid = planning.lay_out(sent, find)
    return service.start(
        database, body=sent, laid=laid, settings=settings, queue=resources.queue, call=CALL
    ).id


def stop(resources: Resources, sweep_id: UUID) -> None:
    with resources.database.write() as session:
        service.stop(session, sweep_id=sweep_id)


def resume(resources: Resources, sweep_id: UUID) -> None:
    with resources.database.write() as session:
        service.resume(
            session, sweep_id=sweep_id, settings=resources.settings, queue=resources.queue
        )


def state(resources: Resources, sweep_id: UUID) -> SweepState:
    with resources.database.read() as session:
        return SweepState(repository.get(session, sweep_id).state)


def board(resources: Resources, sweep_id: UUID) -> Board:
    with resources.database.read() as session:
        return results.board(session, repository.get(session, sweep_id))
