"""`loraworks gc`: garbage collection on the database and the store of this machine's settings."""

from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.options import AsJson, ExistingDataDir
from app.cli.output import (
    Json,
    format_duration,
    print_json,
    print_line,
    print_table,
    print_warning,
)
from app.cli.preflight import load_settings_requiring_database

if TYPE_CHECKING:
    from app.database.engines import Database
    from app.retention.service import GarbageCollectionResult

MAX_LISTED = 100  # removals; --json lists all

DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only list what would be removed; change nothing.")
]
AfterRestore = Annotated[
    bool,
    typer.Option(
        "--after-restore",
        help="Remove unreferenced files of any age. Stop all services first!",
    ),
]


def gc(
    data_dir: ExistingDataDir = None,
    dry_run: DryRun = False,
    after_restore: AfterRestore = False,
    as_json: AsJson = False,
) -> None:
    """Remove unused data and show disk usage.

    Workers do the same every hour. The settings define what is removed, and after how long.
    """
    from app.database import migrations
    from app.resources import open_resources
    from app.retention.service import collect_garbage, disk_use

    resources = open_resources(load_settings_requiring_database(data_dir))
    try:
        migrations.check_schema_revision(resources.database)
        result = collect_garbage(resources, dry_run=dry_run, any_age=after_restore)
        database_bytes = result.database_bytes
        if not dry_run:
            database_bytes += _rebuild(resources.database)
        usage = disk_use(resources)
    finally:
        resources.close()
    freed_bytes = result.freed_bytes()
    if as_json:
        print_json(
            {
                "dry_run": dry_run,
                "totals": result.totals(),
                "removed": _removals_json(result),
                "freed_bytes": freed_bytes,
                "database_bytes": database_bytes,
                "young": result.too_young,
                "answers": result.expired_responses,
                "disk_use": usage,
            }
        )
        return
    print_table(
        ["kind", "key", ">bytes", ">age", "why"],
        [
            (each.kind, each.key, each.bytes, format_duration(each.age_seconds), each.reason)
            for each in result.removals[:MAX_LISTED]
        ],
        empty="Nothing to remove.",
    )
    if (more := len(result.removals) - MAX_LISTED) > 0:
        print_line(f"And {more:,} more, which --json lists.")
    if totals := result.totals():
        rows = [(total.kind, total.count, total.bytes) for total in totals]
        print_table(["would remove" if dry_run else "removed", ">number", ">bytes"], rows, empty="")
    if result.too_young:
        limit = f"{resources.settings.orphan_seconds:g} s (LORAWORKS_ORPHAN_SECONDS)"
        print_line(f"Kept {result.too_young} unreferenced files that are younger than {limit}.")
    verb = "Would free" if dry_run else "Freed"
    print_line(f"{verb} {freed_bytes:,} bytes and {result.expired_responses:,} stored responses.")
    if database_bytes:
        verb = "has" if dry_run else "gave back"
        print_line(f"The database {verb} {database_bytes:,} bytes of free space.")
    print_table(["disk usage", ">bytes"], usage.items(), empty="Nothing.")


def _rebuild(database: "Database") -> int:
    """Rebuild the database if it cannot give space back; return the bytes."""
    from app.database.errors import NotEnoughMemoryToRebuild

    try:
        return database.ensure_auto_vacuum()
    except NotEnoughMemoryToRebuild as error:  # the rest is done
        print_warning(str(error))
        return 0


def _removals_json(result: "GarbageCollectionResult") -> list[Json]:
    return [
        {
            "kind": removal.kind,
            "key": removal.key,
            "bytes": removal.bytes,
            "age_seconds": round(removal.age_seconds),
            "why": removal.reason,
        }
        for removal in result.removals
    ]
