"""What an error of the database means to a caller."""

from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from app.database.errors import OUTAGE, DatabaseUnavailable
from app.errors import AppError, ChangedMeanwhile, StorageFull

# Primary result codes of SQLite
SQLITE_ERROR, SQLITE_FULL = 1, 13
# States of PostgreSQL: no room; two transactions that cannot both go on
DISK_FULL, RIVALRY = "53100", ("40001", "40P01")
RETRY_SECONDS = 1


def cause(error: SQLAlchemyError) -> AppError | None:
    """The error to tell; None: a mistake of ours, such as wrong SQL."""
    driver = getattr(error, "orig", None)
    code = getattr(driver, "sqlite_errorcode", -1) & 0xFF
    state = getattr(driver, "sqlstate", None)
    if code == SQLITE_FULL or state == DISK_FULL:
        return StorageFull()
    if isinstance(error, IntegrityError) or state in RIVALRY:
        return ChangedMeanwhile(retry_after=RETRY_SECONDS)
    if isinstance(error, OUTAGE) and code != SQLITE_ERROR:
        return DatabaseUnavailable()
    return None
