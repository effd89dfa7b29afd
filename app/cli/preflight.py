"""What must hold before the service starts: settings, the port, an admin key."""

import fcntl
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from app.cli.errors import Misuse
from lora_core.specs.validation import first_fault

if TYPE_CHECKING:
    from app.settings import Settings

BACKLOG = 2048
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - named, not bound


def load_settings(chosen: Mapping[str, Any]) -> "Settings":
    """Settings of the environment under what was chosen on the command line. Raises `Misuse`.

    Whoever has them runs parts of the service: its log lines belong to standard error, and what it
    writes to its user.
    """
    from app import logging
    from app.settings import Settings
    from app.storage.permissions import keep_private

    given = {name: value for name, value in chosen.items() if value is not None}
    try:
        settings = Settings(**given)
    except ValidationError as error:
        place, fault = first_fault(error, Settings)
        named = f"LORAWORKS_{place.split('.')[0].upper()}: " if place else ""
        raise Misuse(named + fault.removeprefix("Value error, "), "invalid_setting") from error
    logging.configure(settings.log_level)
    keep_private()
    return settings


def settings_of_a_service(data_dir: Path | None) -> "Settings":
    """Those of a service that was here before: a folder named by mistake is not made.

    Raises `Misuse`.
    """
    settings = load_settings({"data_dir": data_dir})
    if settings.database_url is None and not settings.sqlite_path.exists():
        raise Misuse(
            f"no service has kept anything in {settings.data_dir}; name its folder with --data-dir",
            "no_data",
        )
    return settings


def listen(host: str, port: int) -> socket.socket:
    """A listening socket, so that a taken port is known before anything else. Raises `Misuse`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With its protocol named, or asyncio would not send small answers at once: 40 ms each.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise Misuse(
            f"cannot listen on {host}, port {port}: {error.strerror}; stop what uses it, or give "
            "another port (--port 0 takes a free one)",
            "port_in_use",
        ) from error
    return listener


@contextmanager
def alone(settings: "Settings") -> Iterator[None]:
    """Hold the data folder against a second `up` that was started by mistake.

    The lock goes with the process, however it ends. Raises `Misuse`, `DataFolderUnusable`.
    """
    from app.resources import using_data_folder

    with using_data_folder(settings):
        settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (settings.data_dir / "up.lock").open("a+", encoding="utf-8")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise Misuse(
                f"`loraworks up` serves {settings.data_dir} already, at {lock.read()}; stop it, "
                "name another --data-dir, or start one more worker with `loraworks worker`",
                "already_up",
            ) from error
        lock.truncate(0)
        lock.write(address(settings.host, settings.port))
        lock.flush()
        yield


def hand_on(settings: "Settings") -> None:
    """Put what was chosen where the application and the worker read it: into the environment."""
    os.environ["LORAWORKS_HOST"] = settings.host
    os.environ["LORAWORKS_PORT"] = str(settings.port)
    os.environ["LORAWORKS_DATA_DIR"] = str(settings.data_dir)


def address(host: str, port: int) -> str:
    """The URL under which this machine reaches the service."""
    host = EVERYWHERE.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def new_admin_key(settings: "Settings") -> str | None:
    """The text of an admin key, if keys are on and there was none yet."""
    from app.auth.secrets import load_pepper
    from app.auth.service import ensure_admin_key
    from app.database.engines import open_database

    if settings.auth == "off":
        return None
    database = open_database(settings)
    try:
        with database.write() as session:
            made = ensure_admin_key(session, pepper=load_pepper(settings))
    finally:
        database.close()
    return made.text if made else None
