"""`loraworks migrate`: the schema of the database, before anything of a new version starts."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from app.cli.options import AsJson, DataDir
from app.cli.output import json_line, say, warn
from app.cli.preflight import load_settings

if TYPE_CHECKING:
    from app.database.migrations import Move
    from app.settings import Settings

POLL_SECONDS = 1.0

CheckOnly = Annotated[
    bool, typer.Option("--check", help="Change nothing; exit 4 unless the schema is up to date.")
]
Wait = Annotated[
    float, typer.Option("--wait", min=0, help="How long to wait for the database, in seconds.")
]
Answer = TypeVar("Answer")


def migrate(
    check_only: CheckOnly = False,
    wait: Wait = 60,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Bring the schema of the database up to date. Several at once take turns.

    With --json one line with the revisions `before` and `after` is printed.
    """
    from app.database.engines import address
    from app.database.migrations import upgrade

    settings = load_settings({"data_dir": data_dir})
    before, after = _patient(wait, lambda: (_current if check_only else upgrade)(settings))
    if as_json:
        json_line({"before": before, "after": after})
    elif before == after:
        say(f"The schema of {address(settings)} is up to date: {after}")
    else:
        say(f"The schema of {address(settings)} went from {before or 'none'} to {after}")


def _current(settings: "Settings") -> "Move":
    from app.database.engines import open_database
    from app.database.migrations import Move, check

    database = open_database(settings)
    try:
        revision = check(database)
    finally:
        database.close()
    return Move(revision, revision)


def _patient(seconds: float, step: Callable[[], Answer]) -> Answer:
    """Repeat the step until the database answers. Raises its last error when the time is up."""
    from app.database.errors import DatabaseUnavailable, DatabaseUnreachable

    deadline = time.monotonic() + seconds
    told = False
    while True:
        try:
            return step()
        except (DatabaseUnavailable, DatabaseUnreachable) as error:
            if time.monotonic() > deadline:
                raise
            if not told:
                warn(f"{error} Waiting for it, at most {seconds:g} s (--wait).")
                told = True
        time.sleep(POLL_SECONDS)
