"""Errors of the database, and the translation of driver errors."""

from sqlalchemy.exc import (
    IntegrityError,
    InterfaceError,
    OperationalError,
    SQLAlchemyError,
    TimeoutError,
)

from app.errors import AppError, ConcurrentUpdate, InsufficientStorage, ServiceUnavailable


class DatabaseUnavailable(ServiceUnavailable):
    code = "database_unavailable"
    title = "The database is unavailable."
    message = "The database does not respond at the moment. Try again shortly."


class DatabaseUnreachable(ServiceUnavailable):
    code = "database_unreachable"
    title = "Cannot connect to the database server."
    message = (
        "Cannot connect to the database {database!r} on {host}: {reason}. "
        "Start the server, or correct LORAWORKS_DATABASE_URL."
    )


class DatabaseOperationRefused(ServiceUnavailable):
    code = "database_refused"
    title = "The database rejected an operation."
    message = (
        "The database rejected an operation: {reason}. "
        "On PostgreSQL, the role in LORAWORKS_DATABASE_URL should own the database."
    )


class NotEnoughMemoryToRebuild(AppError):
    status = 500
    code = "not_enough_memory_to_rebuild"
    title = "Not enough memory to rebuild the SQLite file."
    message = (
        "The SQLite file cannot become smaller until it is rebuilt once, which takes {needed_mb:,} "
        "MB of memory; {available_mb:,} MB are available. Run `loraworks gc` again when more is."
    )


class DatabaseUrlInvalid(AppError):
    status = 500
    code = "database_url_invalid"
    title = "Invalid database URL."
    message = (
        "LORAWORKS_DATABASE_URL is invalid: {problem}. Use postgresql://USER:PASSWORD@HOST/NAME, "
        "or leave it unset for SQLite in the data directory."
    )


class SchemaOutdated(ServiceUnavailable):
    code = "schema_older"
    title = "The database schema is older than this version of loraworks."
    message = (
        "The {database} has {found}; this version needs schema {expected}. Run `loraworks migrate` "
        "or `loraworks up` to upgrade it, or set LORAWORKS_DATABASE_URL to another database."
    )


class SchemaTooNew(ServiceUnavailable):
    code = "schema_newer"
    title = "The database schema is newer than this version of loraworks."
    message = (
        "The {database} has schema {found}, which this version does not support (it needs "
        "{expected}). Install the version of loraworks that created it, or use another database."
    )


class UnsupportedDatabase(AppError):
    status = 500
    code = "unsupported_database"
    title = "Unsupported database."
    message = "LORAWORKS_DATABASE_URL has the dialect {dialect!r}. Supported: {supported}."


# Raised while the database is unavailable. Workers retry after these.
OUTAGE_ERRORS = (OperationalError, InterfaceError, TimeoutError)

# SQLite primary result codes
SQLITE_ERROR, SQLITE_FULL = 1, 13
# PostgreSQL SQLSTATE codes
PG_DISK_FULL = "53100"
PG_CONFLICTS = ("40001", "40P01")  # serialization failure, deadlock
CONFLICT_RETRY_SECONDS = 1


def to_app_error(error: SQLAlchemyError) -> AppError | None:
    """Translate an error for the caller. None means a bug in this service, such as invalid SQL."""
    driver_error = getattr(error, "orig", None)
    code = getattr(driver_error, "sqlite_errorcode", -1) & 0xFF
    sqlstate = getattr(driver_error, "sqlstate", None)
    if code == SQLITE_FULL or sqlstate == PG_DISK_FULL:
        return InsufficientStorage()
    if isinstance(error, IntegrityError) or sqlstate in PG_CONFLICTS:
        return ConcurrentUpdate(retry_after=CONFLICT_RETRY_SECONDS)
    if isinstance(error, OUTAGE_ERRORS) and code != SQLITE_ERROR:
        return DatabaseUnavailable()
    return None
