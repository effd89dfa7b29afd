"""The services of docker-compose.yml as processes of this machine: no container, but each command,
each variable and each health check as they are written there.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import redis

from tests import compose
from tests.servers import HOST, PASSWORD, PostgresServer, ValkeyServer, free_port

STAND_IN = """#!{python}
# The wheel that brings the server brings no valkey-cli.
import sys, redis
assert sys.argv[1:] == ["ping"], sys.argv
try:
    print("PONG" if redis.Redis("{host}", {port}).ping() else "")
except redis.AuthenticationError:
    print("NOAUTH Authentication required.")
"""
QUICK = {
    "LORAWORKS_HEARTBEAT_SECONDS": "0.5",
    "LORAWORKS_LEASE_SECONDS": "4",
    "LORAWORKS_RECONCILE_SECONDS": "0.5",
    "LORAWORKS_RETRY_SECONDS": "0.1",
    "LORAWORKS_CHECKPOINT_SECONDS": "0.5",
    "LORAWORKS_MIN_FREE_BYTES": "0",
    "OMP_NUM_THREADS": "1",
}


class ComposedValkey(ValkeyServer):
    """Valkey with the command of its service."""

    def __init__(self, service: compose.Service, password: str) -> None:
        super().__init__()
        self._words = compose.words(service["command"])
        self._password = password

    def command(self) -> list[str]:
        program = super().command()[0]
        assert self._words[0] == "valkey-server"
        return [program, *self._words[1:], "--bind", HOST, "--port", str(self.port)]

    def client(self) -> redis.Redis:
        return redis.Redis(
            HOST, self.port, username="loraworks", password=self._password, socket_timeout=5
        )


class Composed:
    """Starts services by their names."""

    def __init__(self, folder: Path, postgres: PostgresServer, **variables: str) -> None:
        secrets = {"VALKEY_PASSWORD": "v" * 32, "LORAWORKS_PEPPER": "x" * 32}
        self._variables = compose.example() | secrets | {"POSTGRES_PASSWORD": PASSWORD}
        self._services = compose.services(self._variables)
        self._more = QUICK | variables
        self._database = postgres.empty_database()
        self._postgres = postgres
        self._folder = folder
        self._port = free_port()
        self._programs = folder / "bin"
        self._log = folder / "processes.log"
        self._processes: list[subprocess.Popen[str]] = []
        self.url = f"http://{HOST}:{self._port}"
        self.valkey = ComposedValkey(self._services["valkey"], secrets["VALKEY_PASSWORD"])
        self.valkey.start()
        self._install_programs()

    def start(self, name: str, *command: str) -> subprocess.Popen[str]:
        """Its command, or another in its place as after `docker compose run`."""
        words = [*entrypoint(), *(command or compose.words(self._services[name]["command"]))]
        with self._log.open("a") as log:
            process = subprocess.Popen(
                words,
                env=self.environment(name),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=self._folder,
                executable=str(Path(sys.executable).with_name(words[0])),
            )
        self._processes.append(process)
        return process

    def is_well(self, name: str) -> bool:
        """Run its health check."""
        kind, *words = self._services[name]["healthcheck"]["test"]
        done = subprocess.run(
            ["/bin/sh", "-c", *words] if kind == "CMD-SHELL" else words,
            env=self.environment(name),
            capture_output=True,
            timeout=30,
            check=False,
        )
        return done.returncode == 0

    def environment(self, name: str) -> dict[str, str]:
        """Of the image, of `.env`, of the service; places outside the container become ours."""
        service = self._services[name]
        given = image_environment() if "build" in service else {}
        given |= self._variables if "env_file" in service else {}
        # None: the variable of the shell, which is unset here.
        passed_on = service.get("environment", {}).items()
        given |= {key: self._here(value) for key, value in passed_on if value is not None}
        given |= {key: self._here(value) for key, value in given.items()}
        ports = {"LORAWORKS_PORT": str(self._port), "PGPORT": str(self._postgres.port)}
        cache = {"LORAWORKS_CACHE": os.environ["LORAWORKS_CACHE"]}
        return given | self._more | cache | ports | {"PATH": f"{self._programs}:/usr/bin:/bin"}

    def database_url(self) -> str:
        """Where the services find their database."""
        return self.environment("api")["LORAWORKS_DATABASE_URL"]

    def log(self) -> str:
        """The end of the processes' output."""
        return self._log.read_text(errors="replace")[-6000:]

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()
        self.valkey.remove()
        self._postgres.drop(self._database)

    def _here(self, value: str) -> str:
        database = self._database.rpartition("@")[2]
        value = value.replace("@postgres:5432/loraworks", f"@{database}")
        value = value.replace("@valkey:6379", f"@{HOST}:{self.valkey.port}")
        value = value.replace("0.0.0.0", HOST)  # noqa: S104 - taken out
        return re.sub("^/(data|tmp)", f"{self._folder}/\\1", value)

    def _install_programs(self) -> None:
        self._programs.mkdir()
        for name in entrypoint():
            (self._programs / name).symlink_to(Path(sys.executable).with_name(name))
        (self._programs / "pg_isready").symlink_to(self._postgres.program("pg_isready"))
        cli = self._programs / "valkey-cli"
        cli.write_text(STAND_IN.format(python=sys.executable, host=HOST, port=self.valkey.port))
        cli.chmod(0o755)


def entrypoint() -> list[str]:
    """What the image puts before every command."""
    words: list[str] = json.loads(_instructions("ENTRYPOINT")[0])
    return words


def image_environment() -> dict[str, str]:
    """The variables of the image."""
    pairs = (pair.split("=", 1) for line in _instructions("ENV") for pair in line.split())
    return {name: value for name, value in pairs if not name.startswith("PIP_")}


def _instructions(kind: str) -> list[str]:
    text = (compose.ROOT / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
    return re.findall(rf"^{kind} (.+)$", text, re.MULTILINE)
