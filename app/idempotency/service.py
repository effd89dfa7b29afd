"""Creating at most once under one key: the answer is kept in the transaction that creates.

    recall(session, call)    before any costly work: was this very call answered?
    begin(session, call)     first in the transaction that creates
    keep(session, call, …)   last, before the commit

Nothing of this happens without a key. A call that fails is undone with all of its transaction, and
its key is free again.
"""

import json

from sqlalchemy.orm import Session

from app.fields import View
from app.idempotency import repository
from app.idempotency.calls import Call, Replayed
from app.idempotency.errors import IdempotencyKeyReused
from app.idempotency.tables import IdempotencyKey


def recall(session: Session, call: Call) -> None:
    """Raises `Replayed` when this call was answered before, `IdempotencyKeyReused`."""
    if call.key is not None and (saved := repository.find(session, call)):
        raise _replayed(saved, call)


def begin(session: Session, call: Call) -> None:
    """Reserve the key. Whoever comes second waits here until the first one commits or fails.

    Raises `Replayed`, `IdempotencyKeyReused`, `IdempotencyInFlight`; nothing may be created then.
    """
    if call.key is not None and (saved := repository.take(session, call)):
        raise _replayed(saved, call)


def keep(
    session: Session, call: Call, *, status: int, body: View, location: str | None = None
) -> None:
    """Store the answer, as it goes out, under the key that `begin` reserved."""
    if call.key is None:
        return
    row = session.get_one(IdempotencyKey, (call.caller_id, call.route, call.key))
    row.status, row.location = status, location
    row.answer = json.loads(body.model_dump_json())
    session.flush()


def _replayed(saved: IdempotencyKey, call: Call) -> Exception:
    if saved.body_sha256 != call.body_sha256:
        return IdempotencyKeyReused()
    return Replayed(saved.status, saved.answer, saved.location)
