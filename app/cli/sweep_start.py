"""What `loraworks sweep start` sends: a file or a preset, with the options of the command over it.

The base job is described by the options of `loraworks train`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import typer

from app.cli.client import Client
from app.cli.errors import Misuse
from app.cli.options import AsJson, connected, supplied
from app.cli.output import as_json as print_json
from app.cli.output import duration, facts, percent, say
from app.cli.responses import Json, Objective, Sweep, SweepPlan
from app.cli.spec_flags import check_finite, option_names, overlaid, read_object, signature
from app.cli.sweep_options import Over, read_space
from app.cli.sweep_results import counts
from app.cli.sweep_watch import check, conclude, interruptible
from app.sweeps.presets import PRESETS, PresetName

SWEEP = "Sweep"


def _option(kind: Any, name: str, text: str, **more: Any) -> Any:
    return Annotated[kind | None, typer.Option(name, help=text, rich_help_panel=SWEEP, **more)]


# field of the strategy → option
SEARCH: dict[str, Any] = {
    "cells": _option(int, "--cells", "Cells in all. random, tpe; halving: drawn, not the grid."),
    "seed": _option(int, "--search-seed", "Of what is drawn. random, halving, tpe."),
    "eta": _option(int, "--eta", "halving: one in so many goes on. Default: 3."),
    "first_share": _option(
        float, "--first-share", "halving: share of the steps that all cells run. Default: 1/9."
    ),
    "keep": _option(int, "--keep", "halving: cells that run to the end at least. Default: 3."),
    "validation_texts": _option(
        int, "--validation-texts", "halving: judge the parts of runs by so many."
    ),
    "batch": _option(int, "--batch", "tpe: cells that are proposed at a time. Default: 4."),
}
# field of the sweep → option
ABOUT: dict[str, Any] = {
    "objective": _option(Objective, "--objective", "Decides, on validation. Default: accuracy."),
    "parallel": _option(
        int, "--parallel", "Jobs at a time. Default: as many as there are devices."
    ),
    "name": _option(str, "--name", "Name of the sweep."),
    "priority": _option(int, "--priority", "Of its jobs: -100 to 100, higher goes first."),
}
StrategyName = Literal["grid", "random", "halving", "tpe"]
Strategy = _option(StrategyName, "--strategy", "Which cells are run. Default: grid.")
OPTIONS = {"over": Over, "strategy": Strategy, **SEARCH, **ABOUT}

SweepFile = Annotated[
    Path | None,
    typer.Option(
        "--file",
        help="A whole body as JSON, - for standard input. Options override it.",
        rich_help_panel=SWEEP,
    ),
]
JobFile = Annotated[
    Path | None,
    typer.Option("--spec", help="A JSON body of a job to begin with. Options override it."),
]
PresetArgument = Annotated[PresetName, typer.Argument(metavar="PRESET", help="seed-grid.")]


@contextmanager
def from_file(file: Path | None, spec: Path | None, **values: Any) -> Iterator[Json]:
    """The body made from a sweep's file or a job's, and the options. Raises `Misuse`."""
    if file and spec:
        raise Misuse("--file has a job already, so no --spec", "wrong_options")
    body = read_object(file) if file else {"job": read_object(spec)} if spec else {}
    yield _over(body, values)


@contextmanager
def from_preset(which: PresetName, **values: Any) -> Iterator[Json]:
    """The body made from a preset and the options. Raises `Misuse`."""
    yield _over(deepcopy(dict(PRESETS[which])), values)


from_file.__signature__ = signature(  # type: ignore[attr-defined]
    **OPTIONS, file=SweepFile, spec=JobFile
)
from_preset.__signature__ = signature(  # type: ignore[attr-defined]
    **OPTIONS, which=PresetArgument
)


def _over(body: Json, values: Mapping[str, Any]) -> Json:
    for part in ("job", "space", "strategy"):
        if not isinstance(body.get(part, {}), dict):
            raise Misuse(f"{part!r} in the file is no JSON object", "malformed_json")
    body["job"] = overlaid(body.get("job", {}), values)
    body["job"].setdefault("method", {}).setdefault("type", "lora")
    if space := read_space(values["over"] or ()):
        body["space"] = body.get("space", {}) | space
    if not body.get("space"):
        raise Misuse("nothing varies; say what with --over, such as --over r=2,4,8", "wrong_space")
    if strategy := _strategy(body.get("strategy", {}), values):
        body["strategy"] = strategy
    body |= {name: values[name] for name in ABOUT if values[name] is not None}
    check_finite(body)
    return body


def _strategy(said: Json, values: Mapping[str, Any]) -> Json:
    """That of the file with the options in it; another kind begins anew. Raises `Misuse`."""
    from app.sweeps.strategies import Strategy  # not needed by any other command

    kinds = {kind.model_fields["type"].default: kind for kind in get_args(get_args(Strategy)[0])}
    wanted = values["strategy"]
    found = said if wanted in (None, said.get("type")) else {"type": wanted}
    kind = found.get("type", "grid")
    for name in SEARCH:
        if values[name] is None:
            continue
        if kind in kinds and name not in kinds[kind].model_fields:
            option = option_names(SEARCH[name])[0]
            others = ", ".join(each for each, its in kinds.items() if name in its.model_fields)
            raise Misuse(f"{option} goes with --strategy {others}, not {kind}", "wrong_options")
        found = {**found, name: values[name]}
    return found


# MERGED app.cli.sweep_start
# `loraworks sweep start` and `sweep preset`: plan a sweep, start it, follow it.

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
