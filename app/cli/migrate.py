"""`loraworks migrate`: upgrades the database schema before a new version starts."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from app.cli.options import AsJson, DataDir
from app.cli.output import print_json_line, print_line, print_warning
from app.cli.preflight import load_settings_and_configure_process

if TYPE_CHECKING:
    from app.database.migrations import RevisionChange
    from app.settings import Settings

POLL_SECONDS = 1.0

CheckOnly = Annotated[
    bool,
    typer.Option("--check", help="Change nothing; exit with 4 unless the schema is up to date."),
]
Wait = Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait for the database.")]
_StepResult = TypeVar("_StepResult")


def migrate(
    check_only: CheckOnly = False,
    wait: Wait = 60,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Upgrade the database schema. Concurrent runs wait for each other.

    --json prints one line with the revisions `before` and `after`.
    """
    from app.database.engines import display_url
    from app.database.migrations import upgrade

    settings = load_settings_and_configure_process({"data_dir": data_dir})
    before, after = _retry_until_reachable(
        wait, lambda: (_check_revision if check_only else upgrade)(settings)
    )
    if as_json:
        print_json_line({"before": before, "after": after})
    elif before == after:
        print_line(f"The schema of {display_url(settings)} is up to date: {after}")
    else:
        print_line(
            f"Upgraded the schema of {display_url(settings)} from {before or 'none'} to {after}"
        )


def _check_revision(settings: "Settings") -> "RevisionChange":
    from app.database.engines import open_database
    from app.database.migrations import RevisionChange, check_schema_revision

    database = open_database(settings)
    try:
        revision = check_schema_revision(database)
    finally:
        database.close()
    return RevisionChange(revision, revision)


def _retry_until_reachable(seconds: float, step: Callable[[], _StepResult]) -> _StepResult:
    """Retry the step until the database is reachable. Raises the last error at the deadline."""
    from app.database.errors import DatabaseUnavailable, DatabaseUnreachable

    deadline = time.monotonic() + seconds
    warned = False
    while True:
        try:
            return step()
        except (DatabaseUnavailable, DatabaseUnreachable) as error:
            if time.monotonic() > deadline:
                raise
            if not warned:
                print_warning(f"{error} Retrying for up to {seconds:g} s (--wait).")
                warned = True
        time.sleep(POLL_SECONDS)
