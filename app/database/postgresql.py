"""Engines on a PostgreSQL server.

A server or a network that goes silent must not hold a thread for ever, nor a row that others wait
for. So every statement has a limit on the server, every answer one on this side, and a transaction
in which nothing happens is ended.
"""

import time
from collections.abc import Callable
from typing import Any, ClassVar

import psycopg
from sqlalchemy import URL, Dialect, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, OperationalError

from app.database.errors import DatabaseUnreachable, DatabaseUrlInvalid

DRIVER = "postgresql+psycopg"
NAMES = (DRIVER, "postgresql", "postgres")

START_SECONDS = 5.0  # a server that is started together with us gets so long to come up
CONNECT_SECONDS = 5
STATEMENT_SECONDS = 30
LOCK_SECONDS = 10
IDLE_SECONDS = 60  # inside a transaction
ANSWER_SECONDS = 40.0  # more than a statement may take on the server
SILENCE_SECONDS = 30  # of the network, after which a connection is given up
CONNECTIONS = 4  # kept open per engine
MORE_CONNECTIONS = 12  # opened for a burst
POOL_SECONDS = 10
# States of PostgreSQL: we were frozen inside a transaction; the server takes no writes
FROZE, READ_ONLY = "25P03", "25006"

_KEEPALIVE = {
    "keepalives": 1,
    "keepalives_idle": SILENCE_SECONDS // 3,
    "keepalives_interval": SILENCE_SECONDS // 6,
    "keepalives_count": 4,
    "tcp_user_timeout": SILENCE_SECONDS * 1000,
}
_DURABLE = {"synchronous_commit": "on"}  # whatever role or database have as their default
_LIMITED = {
    "statement_timeout": f"{STATEMENT_SECONDS}s",
    "lock_timeout": f"{LOCK_SECONDS}s",
    "idle_in_transaction_session_timeout": f"{IDLE_SECONDS}s",
}
_READ_ONLY = {"default_transaction_read_only": "on"}
_LIMITLESS = dict.fromkeys(_LIMITED, "0")


class _Connection(psycopg.Connection[Any]):
    """Gives up an answer that does not come, and keeps what callers sent out of errors."""

    outages: ClassVar[tuple[str, ...]] = (FROZE,)  # states that the driver takes for our mistakes

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        try:
            return super().wait(gen, interval, timeout=timeout or ANSWER_SECONDS)
        except psycopg.Error as error:
            if self.pgconn.transaction_status == psycopg.pq.TransactionStatus.ACTIVE:
                self.close()  # the answer may still come, and would be taken for that of the next
            error.args = (error.diag.message_primary or str(error),)  # the rest repeats values
            if error.sqlstate not in self.outages:
                raise
            self.close()  # the next one may lead to the server that took over
            raise psycopg.OperationalError(*error.args) from error


class _Writer(_Connection):
    """To it a server that takes no writes, as in a failover, is away.

    No reader is told so, unless by a mistake of ours.
    """

    outages = (FROZE, READ_ONLY)


def engines(url: URL) -> tuple[Engine, Engine]:
    """To write, and to read one moment. Raises `DatabaseUrlInvalid`, `DatabaseUnreachable`."""
    write = _engine(url, _DURABLE | _LIMITED, isolation_level="READ COMMITTED")
    read = _engine(url, _READ_ONLY | _LIMITED, isolation_level="REPEATABLE READ")
    for engine, kind in ((write, _Writer), (read, _Connection)):
        event.listen(engine, "do_connect", _connecting(kind))
    _await(write)
    return write, read


def migration_engine(url: URL) -> Engine:
    """Without limits. Raises `DatabaseUrlInvalid`, `DatabaseUnreachable`."""
    engine = _engine(url, _DURABLE | _LIMITLESS, isolation_level="READ COMMITTED")
    _await(engine)
    return engine


def _engine(url: URL, parameters: dict[str, str], *, isolation_level: Any) -> Engine:
    options = " ".join(f"-c {name}={value}" for name, value in parameters.items())
    return create_engine(
        url,
        connect_args={
            "options": f"{url.query.get('options', '')} {options}".strip(),
            "connect_timeout": CONNECT_SECONDS,
            "fallback_application_name": "loraworks",
            # Prepared statements outlive a migration badly, and a connection pooler not at all.
            "prepare_threshold": None,
            **_KEEPALIVE,
        },
        isolation_level=isolation_level,
        pool_size=CONNECTIONS,
        max_overflow=MORE_CONNECTIONS,
        pool_timeout=POOL_SECONDS,
        pool_pre_ping=True,
        hide_parameters=True,  # errors are logged, and rows hold what callers sent
    )


def _connecting(kind: type[_Connection]) -> Callable[..., _Connection]:
    def connect(_dialect: Dialect, _record: Any, arguments: Any, parameters: Any) -> _Connection:
        return kind.connect(*arguments, **parameters)

    return connect


def _await(engine: Engine) -> None:
    """Return once the server answers."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with engine.connect():
                return
        except OperationalError as error:
            if time.monotonic() > deadline:
                engine.dispose()
                raise _unreachable(engine.url, error) from error
        except DBAPIError as error:
            raise DatabaseUrlInvalid(problem=_reason(error)) from error
        time.sleep(0.2)


def _unreachable(url: URL, error: DBAPIError) -> DatabaseUnreachable:
    host = f"{url.host or 'the local socket'}{f':{url.port}' if url.port else ''}"
    return DatabaseUnreachable(host=host, database=url.database or "", reason=_reason(error))


def _reason(error: DBAPIError) -> str:
    """The cause, which stands at the end of the first line."""
    first = str(error.orig).strip().splitlines()[0]
    return first.rpartition("failed: ")[2].removeprefix("connection is bad: ")
