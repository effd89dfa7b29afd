"""One at a time through a read that decides what is written, such as the next number of a name."""

from sqlalchemy import text
from sqlalchemy.orm import Session


def take_turns(session: Session, what: str) -> None:
    """Wait until no other transaction holds `what`, and hold it to the end of this one.

    SQLite has one writer anyway.
    """
    if session.get_bind().dialect.name == "postgresql":
        statement = text("SELECT pg_advisory_xact_lock(hashtextextended(:what, 0))")
        session.execute(statement, {"what": what})
