"""Checks before the service starts: settings, port, data directory lock, first admin key."""

import errno
import fcntl
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from app.cli.errors import UsageError
from lora_core.specs.validation_problems import first_problem_location_and_message

if TYPE_CHECKING:
    from app.settings import Settings

LISTEN_BACKLOG = 2048


def load_settings_and_configure_process(overrides: Mapping[str, Any]) -> "Settings":
    """Return the settings of the environment with `overrides` applied. Raises `UsageError`.

    Also send log lines to standard error and make new files private to their owner, because the
    caller runs a part of the service.
    """
    from app import logging
    from app.settings import Settings
    from app.storage.data_dir import make_process_private

    options = {name: value for name, value in overrides.items() if value is not None}
    try:
        settings = Settings(**options)
    except ValidationError as error:
        field, problem = first_problem_location_and_message(error, Settings)
        variable = f"LORAWORKS_{field.split('.')[0].upper()}: " if field else ""
        raise UsageError(
            variable + problem.removeprefix("Value error, "), "invalid_setting"
        ) from error
    logging.configure(settings.log_level)
    make_process_private()
    _log_unknown_variables()
    return settings


def _log_unknown_variables() -> None:
    """Log variables that look like settings. They are no error, since others may set them."""
    import difflib

    import structlog

    from app.settings import ENV_PREFIX, OTHER_VARIABLES, Settings

    log = structlog.get_logger(__name__)
    known = [*(name.upper() for name in Settings.model_fields), *OTHER_VARIABLES]
    for variable in sorted(os.environ):
        name = variable.upper().removeprefix(ENV_PREFIX)  # the case of settings does not matter
        if name != variable.upper() and name not in known:
            similar = [ENV_PREFIX + each for each in difflib.get_close_matches(name, known, n=1)]
            log.warning("unknown_setting", variable=variable, similar=similar)


def load_settings_requiring_database(data_dir: Path | None) -> "Settings":
    """Load settings, but raise `UsageError` if there is no service data yet.

    This avoids creating a mistyped data directory.
    """
    settings = load_settings_and_configure_process({"data_dir": data_dir})
    if settings.database_url is None and not settings.default_sqlite_path.exists():
        raise UsageError(
            f"{settings.data_dir} contains no service data; set the directory with --data-dir",
            "no_data",
        )
    return settings


def open_listener(host: str, port: int) -> socket.socket:
    """Return a listening socket, to report early that there can be none. Raises `UsageError`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With its protocol variable, or asyncio would not send small answers at once: 40 ms each.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(LISTEN_BACKLOG)
    except OSError as error:
        listener.close()
        problem = f"cannot listen on {host}, port {port}: {error.strerror}"
        if error.errno == errno.EADDRINUSE:
            advice = "stop the program that uses it, or choose another port (--port 0: a free one)"
            raise UsageError(f"{problem}; {advice}", "port_in_use") from error
        advice = "--host must be an address of this machine, and a port below 1024 may need root"
        raise UsageError(f"{problem}; {advice}", "cannot_listen") from error
    return listener


@contextmanager
def data_dir_lock(settings: "Settings") -> Iterator[None]:
    """Lock the data directory against a second `loraworks up`.

    The lock ends with the process. Raises `UsageError`, `DataDirectoryUnusable`.
    """
    from app.resources import convert_data_dir_errors

    with convert_data_dir_errors(settings):
        settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (settings.data_dir / "up.lock").open("a+", encoding="utf-8")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise UsageError(
                f"`loraworks up` is already running on {settings.data_dir}, at {lock.read()}; stop "
                "it, choose another --data-dir, or add a worker with `loraworks worker`",
                "already_up",
            ) from error
        lock.truncate(0)
        lock.write(settings.local_service_url)
        lock.flush()
        yield


def export_address_and_data_dir(settings: "Settings") -> None:
    """Export the settings to the environment, where the application and the worker read them."""
    os.environ["LORAWORKS_HOST"] = settings.host
    os.environ["LORAWORKS_PORT"] = str(settings.port)
    os.environ["LORAWORKS_DATA_DIR"] = str(settings.data_dir)


def create_first_admin_key(settings: "Settings") -> str | None:
    """Create an admin key and return its text, if authentication is on and no key is usable."""
    from app.auth.secrets import load_or_create_pepper
    from app.auth.service import create_first_key
    from app.database.engines import open_database

    if settings.auth == "off":
        return None
    database = open_database(settings)
    try:
        with database.write() as session:
            created_key = create_first_key(session, pepper=load_or_create_pepper(settings))
    finally:
        database.close()
    return created_key.text if created_key else None
