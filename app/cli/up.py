"""`loraworks up` and `loraworks api`: run the API in this process, and a worker below it."""

import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.options import AsJson, DataDir, Host, Port
from app.cli.output import Json, print_fields, print_json_line, print_line
from app.cli.preflight import (
    create_first_admin_key,
    data_dir_lock,
    load_settings_and_configure_process,
    open_listener,
)

if TYPE_CHECKING:
    from app.settings import Settings


# Retention settings, with what they keep and the unit of their values.
RETENTION_SETTINGS = {
    "keep_checkpoint_days": ("checkpoints", "days"),
    "keep_prediction_days": ("prediction results", "days"),
    "keep_delivery_days": ("webhook deliveries", "days"),
    "keep_feedback_days": ("feedback", "days"),
    "keep_artifact_days": ("unregistered models", "days"),
    "keep_job_days": ("other jobs", "days"),
    "keep_curve_points": ("curves of ended jobs", "points"),
}


def build_ready_callback(
    settings: "Settings", *, admin_key: str | None = None, as_json: bool = False
) -> Callable[[], None]:
    """Return a function that prints the service's URLs, for people or as one line of JSON.

    A new admin key is printed on a terminal only. Other output may be stored, such as the log of a
    container, so there the key is written to a file. Both happen at once, because the key is lost
    if the start fails before. Raises `DataDirectoryUnusable`.
    """
    file = None
    if admin_key and sys.stdout.isatty() and not as_json:
        print_line(f"Admin key (shown only once): {admin_key}", style="bold")
    elif admin_key:
        file = _write_admin_key(settings, admin_key)
    url = settings.local_service_url
    service_info: Json = {"url": url, "docs": f"{url}/docs", "data_dir": str(settings.data_dir)}

    def announce() -> None:
        if as_json:
            retention = {name: getattr(settings, name) for name in RETENTION_SETTINGS}
            key_file = str(file) if file else None
            print_json_line({**service_info, "admin_key_file": key_file, "retention": retention})
            return
        print_fields(
            [
                ("API", url),
                ("docs", service_info["docs"]),
                ("data", service_info["data_dir"]),
                ("kept", _describe_retention(settings)),
                ("samples", _describe_missing_samples()),
            ]
        )
        if file:
            print_line(f"The admin key is in {file}. Save the key and delete the file.")
        print_line("Ready. Press Ctrl-C to stop.")

    return announce


def _describe_retention(settings: "Settings") -> str:
    """Return the retention limits in one line."""
    limits = []
    for name, (what, unit) in RETENTION_SETTINGS.items():
        limit = getattr(settings, name)
        limits.append(f"{what} forever" if limit is None else f"{what} {limit:g} {unit}")
    return f"{', '.join(limits)} (LORAWORKS_KEEP_…, see `loraworks gc --dry-run`)"


def _describe_missing_samples() -> str | None:
    """Return what to type if the samples are missing; None if they are there."""
    from lora_core.samples import minilm, reviews

    if minilm.is_available() and reviews.is_available():
        return None
    return "not on this host: run `loraworks samples fetch` for the sample base and reviews"


def _write_admin_key(settings: "Settings", admin_key: str) -> Path:
    from app.resources import convert_data_dir_errors

    file = settings.data_dir.absolute() / "admin-key"
    with convert_data_dir_errors(settings):
        file.unlink(missing_ok=True)  # of a key that was revoked
        mode = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with open(os.open(file, mode, 0o600), "w", encoding="utf-8") as opened:
            opened.write(admin_key + "\n")
    return file


NoWorker = Annotated[bool, typer.Option("--no-worker", help="Start only the API.")]


def up(
    host: Host = None,
    port: Port = None,
    data_dir: DataDir = None,
    no_worker: NoWorker = False,
    as_json: AsJson = False,
) -> None:
    """Start the service: the API and one worker. Ctrl-C stops both.

    Once ready, --json prints one line with url, docs, data_dir, admin_key_file and retention.
    """
    from app.cli.serve import run_service
    from app.database.migrations import upgrade

    settings = load_settings_and_configure_process(
        {"host": host, "port": port, "data_dir": data_dir}
    )
    with open_listener(settings.host, settings.port) as listener:
        settings = settings.model_copy(update={"port": listener.getsockname()[1]})
        # Several APIs can share a database server, but not an embedded database.
        embedded = settings.database_url is None
        with nullcontext() if no_worker and not embedded else data_dir_lock(settings):
            upgrade(settings)
            announce = build_ready_callback(
                settings, admin_key=create_first_admin_key(settings), as_json=as_json
            )
            # This worker does not listen to a broker, so it must poll often.
            os.environ["LORAWORKS_POLL_SECONDS"] = str(settings.poll_seconds or 1)
            run_service(settings, listener, announce, with_worker=not no_worker)


PROBE_SECONDS = 5.0

CheckOnly = Annotated[
    bool, typer.Option("--check", help="Do not start the API; exit with 4 unless it is ready.")
]


def api(
    host: Host = None,
    port: Port = None,
    data_dir: DataDir = None,
    check_only: CheckOnly = False,
    as_json: AsJson = False,
) -> None:
    """Start the API without a worker. Run `loraworks migrate` first.

    Once ready, --json prints one line with url, docs, data_dir, admin_key_file and retention.
    """
    settings = load_settings_and_configure_process(
        {"host": host, "port": port, "data_dir": data_dir}
    )
    if check_only:
        _check_ready(settings.local_service_url, as_json=as_json)
        return

    from app.cli.serve import run_service  # slow to import, and not needed for --check

    with open_listener(settings.host, settings.port) as listener:
        settings = settings.model_copy(update={"port": listener.getsockname()[1]})
        run_service(
            settings, listener, build_ready_callback(settings, as_json=as_json), with_worker=False
        )


def _check_ready(url: str, *, as_json: bool) -> None:
    """Raise an error with the reason if the API is not ready."""
    from app.cli.client import Client

    with Client(url) as client:
        ready = client.request_json("GET", "/readyz", timeout=PROBE_SECONDS)
    print_json_line(ready) if as_json else print_line("The API is ready.")
