"""A creating call with the key that its caller gave it, and what comes of sending it again."""

from dataclasses import dataclass
from uuid import UUID

from app.database.base import JsonObject


@dataclass(frozen=True, slots=True)
class Call:
    """A creating call. Without a key, and so without a digest, it is like any other call."""

    caller_id: UUID
    route: str
    key: str | None
    body_sha256: str | None
    keep_seconds: float


class Replayed(Exception):
    """The call was answered before, and this is the answer.

    Raised like an error, since it ends the work wherever that has got to: nothing is to be created.
    """

    def __init__(self, status: int, answer: JsonObject, location: str | None) -> None:
        super().__init__(status)
        self.status = status
        self.answer = answer
        self.location = location
