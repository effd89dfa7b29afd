"""`loraworks sweep start` and `sweep preset`: plan a sweep, start it, follow it."""

from typing import Annotated

import typer

from app.cli.answers import Json
from app.cli.client import Client
from app.cli.options import AsJson, connected, supplied
from app.cli.output import as_json as print_json
from app.cli.output import duration, facts, percent, say
from app.cli.sweep_answers import Sweep, SweepPlan
from app.cli.sweep_body import SWEEP, from_file, from_preset
from app.cli.sweep_verdict import counts
from app.cli.sweep_watch import check, conclude, interruptible

DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Check, count and estimate, start nothing.", rich_help_panel=SWEEP
    ),
]
Watch = Annotated[
    bool, typer.Option("--watch", help="Follow live to the end.", rich_help_panel=SWEEP)
]


@connected
@supplied("body", from_file)
def start(
    client: Client,
    body: Json,
    dry_run: DryRun = False,
    watch: Watch = False,
    as_json: AsJson = False,
) -> None:
    """Start a sweep: one job, by the options of `loraworks train`, in many settings (--over)."""
    _start(client, body, dry_run=dry_run, watch=watch, as_json=as_json)


@connected
@supplied("body", from_preset)
def preset(
    client: Client,
    body: Json,
    dry_run: DryRun = False,
    watch: Watch = False,
    as_json: AsJson = False,
) -> None:
    """Start a sweep that has a name.

    seed-grid: the 576 cells of the "LoRA from scratch" lessons: alpha, r, targets and head with
    the settings of the preset `seed`, on imdb unless --data says otherwise.
    """
    _start(client, body, dry_run=dry_run, watch=watch, as_json=as_json)


def _start(client: Client, body: Json, *, dry_run: bool, watch: bool, as_json: bool) -> None:
    if dry_run:
        plan = client.plan_sweep(body)
        print_json(plan) if as_json else _print_plan(plan)
        return
    sweep = client.start_sweep(body)
    if not watch:
        print_json(sweep) if as_json else _print_started(sweep)
        return
    sweep = interruptible(client, sweep["id"])
    if not as_json:
        conclude(sweep)
        return
    print_json(sweep)
    check(sweep)


def _print_plan(plan: SweepPlan) -> None:
    smallest, largest = plan["trainable_parameters"]
    rungs = [f"{each['cells']:,} to {percent(each['share'])}" for each in plan["rungs"]]
    facts(
        [
            ("cells", plan["cells"]),
            ("known already", plan["known"] or None),
            ("of their steps", ", ".join(rungs) if len(rungs) > 1 else None),
            ("trainable parameters", f"{smallest:,} to {largest:,}"),
            ("jobs at a time", plan["workers"] or "none: there is no worker"),
            ("estimated time", duration(plan["estimated_seconds"])),
        ]
    )


def _print_started(sweep: Sweep) -> None:
    facts([("sweep", sweep["id"]), ("state", sweep["state"]), ("cells", counts(sweep))])
    say(f"Follow it with `loraworks sweep watch {sweep['id']}`.")
