"""Engines on a PostgreSQL server.

A server or network that stops responding must not block a thread forever, nor hold a row lock that
others wait for. So every statement has a timeout on the server, every response has one on the
client, and the server ends idle transactions.
"""

import time
from collections.abc import Callable
from typing import Any, ClassVar

import psycopg
from sqlalchemy import URL, Dialect, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, OperationalError

from app.database.errors import DatabaseUnreachable, DatabaseUrlInvalid

DRIVER = "postgresql+psycopg"
URL_SCHEMES = (DRIVER, "postgresql", "postgres")

STARTUP_TIMEOUT_SECONDS = 5.0  # for a server that starts at the same time
CONNECT_TIMEOUT_SECONDS = 5
STATEMENT_TIMEOUT_SECONDS = 30
LOCK_TIMEOUT_SECONDS = 10
IDLE_TRANSACTION_TIMEOUT_SECONDS = 60  # inside a transaction
CLIENT_TIMEOUT_SECONDS = 40.0  # longer than the server's statement timeout
KEEPALIVE_TIMEOUT_SECONDS = 30  # a connection is closed after the network is silent this long
POOL_SIZE = 4  # connections kept open per engine
MAX_OVERFLOW = 12  # additional connections during a burst
POOL_TIMEOUT_SECONDS = 10

# SQLSTATE codes: an idle transaction timed out, e.g. because this process was frozen; the server
# does not accept writes.
IDLE_TRANSACTION_TIMEOUT_STATE = "25P03"
READ_ONLY_TRANSACTION_STATE = "25006"

_KEEPALIVE_OPTIONS = {
    "keepalives": 1,
    "keepalives_idle": KEEPALIVE_TIMEOUT_SECONDS // 3,
    "keepalives_interval": KEEPALIVE_TIMEOUT_SECONDS // 6,
    "keepalives_count": 4,
    "tcp_user_timeout": KEEPALIVE_TIMEOUT_SECONDS * 1000,
}
_DURABLE_PARAMETERS = {"synchronous_commit": "on"}  # overrides defaults of role and database
_TIMEOUT_PARAMETERS = {
    "statement_timeout": f"{STATEMENT_TIMEOUT_SECONDS}s",
    "lock_timeout": f"{LOCK_TIMEOUT_SECONDS}s",
    "idle_in_transaction_session_timeout": f"{IDLE_TRANSACTION_TIMEOUT_SECONDS}s",
}
_PLANNER_PARAMETERS = {"jit": "off"}  # compiling a query takes 0.2 s, longer than any of ours runs
_READ_ONLY_PARAMETERS = {"default_transaction_read_only": "on"}
_NO_TIMEOUT_PARAMETERS = dict.fromkeys(_TIMEOUT_PARAMETERS, "0")


class _ReadConnection(psycopg.Connection[Any]):
    """Times out when no response arrives, and keeps the callers' values out of error messages."""

    # SQLSTATE codes of outages that the driver does not report as an `OperationalError`
    outage_states: ClassVar[tuple[str, ...]] = (IDLE_TRANSACTION_TIMEOUT_STATE,)

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        try:
            return super().wait(gen, interval, timeout=timeout or CLIENT_TIMEOUT_SECONDS)
        except psycopg.Error as error:
            if self.pgconn.transaction_status == psycopg.pq.TransactionStatus.ACTIVE:
                self.close()  # a late response would be read as that of the next statement
            error.args = (error.diag.message_primary or str(error),)  # the rest repeats values
            if error.sqlstate not in self.outage_states:
                raise
            self.close()  # a new connection may lead to the server that took over
            raise psycopg.OperationalError(*error.args) from error


class _WriteConnection(_ReadConnection):
    """Treats a server that accepts no writes, as during a failover, as an outage.

    A reader gets this error only through a bug in this service.
    """

    outage_states = (IDLE_TRANSACTION_TIMEOUT_STATE, READ_ONLY_TRANSACTION_STATE)


def create_engines(url: URL) -> tuple[Engine, Engine]:
    """Create the engines for writing, and for reading a consistent snapshot.

    Raises `DatabaseUrlInvalid`, `DatabaseUnreachable`.
    """
    parameters = _TIMEOUT_PARAMETERS | _PLANNER_PARAMETERS
    write_parameters = _DURABLE_PARAMETERS | parameters
    read_parameters = _READ_ONLY_PARAMETERS | parameters
    write = _create_engine(url, write_parameters, isolation_level="READ COMMITTED")
    read = _create_engine(url, read_parameters, isolation_level="REPEATABLE READ")
    for engine, connection_class in ((write, _WriteConnection), (read, _ReadConnection)):
        event.listen(engine, "do_connect", _connector(connection_class))
    _wait_until_reachable(write)
    return write, read


def create_migration_engine(url: URL) -> Engine:
    """Create an engine without timeouts. Raises `DatabaseUrlInvalid`, `DatabaseUnreachable`."""
    parameters = _DURABLE_PARAMETERS | _NO_TIMEOUT_PARAMETERS
    engine = _create_engine(url, parameters, isolation_level="READ COMMITTED")
    _wait_until_reachable(engine)
    return engine


def _create_engine(url: URL, parameters: dict[str, str], *, isolation_level: Any) -> Engine:
    options = " ".join(f"-c {name}={value}" for name, value in parameters.items())
    return create_engine(
        url,
        connect_args={
            "options": f"{url.query.get('options', '')} {options}".strip(),
            "connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "fallback_application_name": "loraworks",
            # Prepared statements break after migrations, and behind connection poolers.
            "prepare_threshold": None,
            **_KEEPALIVE_OPTIONS,
        },
        isolation_level=isolation_level,
        pool_size=POOL_SIZE,
        max_overflow=MAX_OVERFLOW,
        pool_timeout=POOL_TIMEOUT_SECONDS,
        pool_pre_ping=True,
        hide_parameters=True,  # errors are logged, and parameters contain the callers' data
    )


def _connector(connection_class: type[_ReadConnection]) -> Callable[..., _ReadConnection]:
    def connect(_dialect: Dialect, _record: Any, args: Any, parameters: Any) -> _ReadConnection:
        return connection_class.connect(*args, **parameters)

    return connect


def _wait_until_reachable(engine: Engine) -> None:
    """Return once the server accepts connections."""
    deadline = time.monotonic() + STARTUP_TIMEOUT_SECONDS
    while True:
        try:
            with engine.connect():
                return
        except OperationalError as error:
            if time.monotonic() > deadline:
                engine.dispose()
                raise _unreachable_error(engine.url, error) from error
        except DBAPIError as error:
            raise DatabaseUrlInvalid(problem=_reason(error)) from error
        time.sleep(0.2)


def _unreachable_error(url: URL, error: DBAPIError) -> DatabaseUnreachable:
    host = f"{url.host or 'the local socket'}{f':{url.port}' if url.port else ''}"
    return DatabaseUnreachable(host=host, database=url.database or "", reason=_reason(error))


def _reason(error: DBAPIError) -> str:
    """Return the cause, which is at the end of the first line."""
    first_line = str(error.orig).strip().splitlines()[0]
    return first_line.rpartition("failed: ")[2].removeprefix("connection is bad: ")
