"""`loraworks gc`: works on the database and the store of this machine's settings."""

from typing import Annotated

import typer

from app.cli.options import AsJson, ServiceDir
from app.cli.output import as_json as print_json
from app.cli.output import duration, say, table
from app.cli.preflight import settings_of_a_service

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would go.")]


AfterRestore = Annotated[
    bool,
    typer.Option(
        "--after-restore",
        help="Remove what no row knows whatever its age. With nothing running!",
    ),
]


def gc(
    data_dir: ServiceDir = None,
    dry_run: DryRun = False,
    after_restore: AfterRestore = False,
    as_json: AsJson = False,
) -> None:
    """Remove what nobody needs any more, and show what takes room.

    Workers do the same each hour. What goes, and after how long, is in the settings.
    """
    from app.database import migrations
    from app.resources import open_resources
    from app.retention.service import disk_use, sweep

    resources = open_resources(settings_of_a_service(data_dir))
    try:
        migrations.check(resources.database)
        swept = sweep(resources, dry_run=dry_run, any_age=after_restore)
        use = disk_use(resources)
    finally:
        resources.close()
    freed = sum(removal.bytes for removal in swept.removals)
    if as_json:
        removals = [
            {
                "kind": removal.kind,
                "key": removal.key,
                "bytes": removal.bytes,
                "age_seconds": round(removal.age_seconds),
                "why": removal.why,
            }
            for removal in swept.removals
        ]
        print_json(
            {
                "dry_run": dry_run,
                "removed": removals,
                "freed_bytes": freed,
                "young": swept.young,
                "answers": swept.answers,
                "disk_use": use,
            }
        )
        return
    table(
        ["kind", "key", ">bytes", ">age", "why"],
        [
            (each.kind, each.key, each.bytes, duration(each.age_seconds), each.why)
            for each in swept.removals
        ],
        empty="Nothing to remove.",
    )
    if swept.young:
        limit = f"{resources.settings.orphan_seconds:g} s (LORAWORKS_ORPHAN_SECONDS)"
        say(f"What no row knows goes at an age of {limit}; {swept.young} younger ones stay.")
    would = "would be " if dry_run else ""
    say(f"{freed:,} bytes {would}freed, {swept.answers:,} kept answers {would}dropped.")
    table(["what takes room", ">bytes"], use.items(), empty="Nothing.")
