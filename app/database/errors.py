"""What can be wrong with the database itself."""

from sqlalchemy.exc import InterfaceError, OperationalError, TimeoutError

from app.errors import AppError, Unavailable


class DatabaseUnavailable(Unavailable):
    """The database does not answer."""

    code = "database_unavailable"
    message = "The database does not answer at the moment. Try again shortly."


class DatabaseUnreachable(Unavailable):
    """The database server cannot be reached, or refuses us."""

    code = "database_unreachable"
    message = (
        "The database {database!r} on {host} cannot be used: {reason}. "
        "Start it, or correct LORAWORKS_DATABASE_URL."
    )


class DatabaseRefused(Unavailable):
    """The database answers, but refuses what has to be done."""

    code = "database_refused"
    message = (
        "The database refuses: {reason}. "
        "On PostgreSQL the role in LORAWORKS_DATABASE_URL should own the database."
    )


class DatabaseUrlInvalid(AppError):
    """The address of the database is none."""

    status = 500
    code = "database_url_invalid"
    message = (
        "LORAWORKS_DATABASE_URL is wrong: {problem}. Give postgresql://USER:PASSWORD@HOST/NAME, or "
        "leave it out for SQLite in the data folder."
    )


class SchemaOlder(Unavailable):
    """The database was made by an older version of loraworks."""

    code = "schema_older"
    message = (
        "The {database} has {found}; this version needs schema {expected}. `loraworks migrate` or "
        "`loraworks up` brings it up to date; for another one set LORAWORKS_DATABASE_URL."
    )


class SchemaNewer(Unavailable):
    """The database was made by a newer version of loraworks."""

    code = "schema_newer"
    message = (
        "The {database} has schema {found}, which this version does not know (it needs "
        "{expected}). Install the version of loraworks that made it, or use another database."
    )


class UnsupportedDatabase(AppError):
    """A kind of database that is not supported."""

    status = 500
    code = "unsupported_database"
    message = "LORAWORKS_DATABASE_URL names {dialect!r}. Supported: {supported}."


# MERGED app.database.errors
# What a database that is away looks like. Whoever holds a job then asks again later.

OUTAGE = (OperationalError, InterfaceError, TimeoutError)
