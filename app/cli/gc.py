"""`loraworks gc`: garbage collection on the database and the store of this machine's settings."""

from typing import Annotated

import typer

from app.cli.options import AsJson, ExistingDataDir
from app.cli.output import format_duration, print_json, print_line, print_table
from app.cli.preflight import load_existing_settings

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only list what would be removed.")]


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

    resources = open_resources(load_existing_settings(data_dir))
    try:
        migrations.check(resources.database)
        result = collect_garbage(resources, dry_run=dry_run, any_age=after_restore)
        usage = disk_use(resources)
    finally:
        resources.close()
    freed_bytes = sum(removal.bytes for removal in result.removals)
    if as_json:
        removals = [
            {
                "kind": removal.kind,
                "key": removal.key,
                "bytes": removal.bytes,
                "age_seconds": round(removal.age_seconds),
                "why": removal.reason,
            }
            for removal in result.removals
        ]
        print_json(
            {
                "dry_run": dry_run,
                "removed": removals,
                "freed_bytes": freed_bytes,
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
            for each in result.removals
        ],
        empty="Nothing to remove.",
    )
    if result.too_young:
        limit = f"{resources.settings.orphan_seconds:g} s (LORAWORKS_ORPHAN_SECONDS)"
        print_line(f"Kept {result.too_young} unreferenced files that are younger than {limit}.")
    verb = "Would free" if dry_run else "Freed"
    print_line(f"{verb} {freed_bytes:,} bytes and {result.expired_responses:,} stored responses.")
    print_table(["disk usage", ">bytes"], usage.items(), empty="Nothing.")
