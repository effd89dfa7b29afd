"""How a sweep stands, and who won, in words."""

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from app.charts.fields import OBJECTIVES, labels, score, text
from app.cli.client import Client
from app.cli.connection import Pieces
from app.cli.download import check_new, keep
from app.cli.errors import Misuse
from app.cli.options import AsJson, Limit, SweepId, connected
from app.cli.output import as_json as print_json
from app.cli.output import facts, json_text, moment, percent, say, table
from app.cli.output import file as print_file
from app.cli.responses import (
    Cell,
    Comparison,
    Job,
    Objective,
    Score,
    Standing,
    Sweep,
    SweepListItem,
    Verdict,
)
from app.cli.watch import ended, interruptible

STATES = ("succeeded", "failed", "cancelled", "running", "queued", "waiting")
ENDED = ("succeeded", "failed", "cancelled")


def print_sweep(sweep: Sweep) -> None:
    """What there is to know of it: the best cell, how many are as good, the cheapest of them."""
    verdict = sweep["verdict"]
    facts(
        [
            ("sweep", sweep["id"]),
            ("name", sweep["name"]),
            ("state", sweep["state"]),
            ("strategy", sweep["strategy"]["type"]),
            ("judged by", f"validation {OBJECTIVES[sweep['objective']]}"),
            ("cells", counts(sweep)),
            ("created", moment(sweep["created_at"])),
            ("finished", sweep["finished_at"] and moment(sweep["finished_at"])),
            *(_best(sweep, verdict["winner"]) if verdict else ()),
        ]
    )
    if verdict is None:
        say("No cell has run to its end yet, so there is nothing to compare.")
        return
    say(as_good(verdict))
    if verdict["cheapest"]["number"] != verdict["winner"]["number"]:
        say(_saved(verdict))
    elif len(verdict["near"]) > 1:
        say("None of them has fewer trainable parameters.")


def counts(sweep: Sweep) -> str:
    """`36: 34 succeeded, 2 failed`."""
    told = [f"{n:,} {state}" for state in STATES if (n := sweep["counts"].get(state, 0))]
    return f"{sweep['cells']:,}: {', '.join(told)}"


def ended_cells(sweep: SweepListItem) -> int:
    """How many cells have ended."""
    return sum(sweep["counts"].get(state, 0) for state in ENDED)


def leader(sweep: Sweep) -> str | None:
    """Who is ahead; None while nobody is."""
    if sweep["verdict"] is None:
        return None
    best = sweep["verdict"]["winner"]
    known = best["validation"] and best["validation"]["objective"]
    name = OBJECTIVES[sweep["objective"]]
    by = "" if known is None else f" with validation {name} {score(sweep['objective'], known)}"
    return f"{_named(best)} leads{by}"


def as_good(verdict: Verdict) -> str:
    """How many cells can't be told from the winner."""
    others, compared = len(verdict["near"]) - 1, verdict["compared"] - 1
    test = "exact McNemar test on the same validation texts"
    if compared == 0:
        return "No other cell is known to have answered the same validation texts."
    if others == 0:
        return f"No other cell is within noise of it ({test}, p < 0.05)."
    cells = "cell is" if compared == 1 else "cells are"
    return f"{others:,} of {compared:,} other {cells} within noise of it ({test}, p >= 0.05)."


def described(settings: Mapping[str, Any]) -> str:
    """`r = 8, targets = query+value`."""
    names = labels(list(settings))
    return ", ".join(f"{names[field]} = {text(value)}" for field, value in settings.items())


def _best(sweep: Sweep, winner: Standing) -> list[tuple[str, object]]:
    objective, on = sweep["objective"], winner["validation"]
    decided = on["objective"] if on and objective != "accuracy" else None
    return [
        ("winner" if sweep["state"] == "finished" else "best so far", _named(winner)),
        (f"validation {OBJECTIVES[objective]}", decided and score(objective, decided)),
        ("validation accuracy", _interval(on)),
        ("test accuracy", _interval(winner["test"])),
        ("trainable parameters", winner["trainable_parameters"]),
    ]


def _named(cell: Standing) -> str:
    return f"cell {cell['number']} ({described(cell['settings'])})"


def _interval(value: Score | None) -> str | None:
    if value is None:
        return None
    low, high = f"{100 * value['low']:.1f}", f"{100 * value['high']:.1f}"
    return f"{percent(value['accuracy'])} (95 % interval {low} to {high}; {value['texts']:,} texts)"


def _saved(verdict: Verdict) -> str:
    winner, cheapest = verdict["winner"], verdict["cheapest"]
    parts = (("validation", verdict["validation"]), ("test", verdict["test"]))
    behind = [_behind(found, part) for part, found in parts if found]
    return (
        f"The cheapest of them is {_named(cheapest)} with {cheapest['trainable_parameters']:,} "
        f"trainable parameters instead of {winner['trainable_parameters']:,}; its accuracy is "
        f"{' and '.join(behind)}."
    )


def _behind(found: Comparison, part: str) -> str:
    points = 100 * found["difference"]
    # Turned round, so that minus says what is lost by the cheapest; + 0.0 makes -0.0 a zero.
    low, high = (round(-100 * end, 1) + 0.0 for end in (found["high"], found["low"]))
    way = "lower" if points > 0 else "higher"
    where = "the same" if points == 0 else f"{abs(points):.1f} points {way}"
    return f"{where} on {part} (95 % interval {low:+.1f} to {high:+.1f}, p = {found['p']:.2g})"


# MERGED app.cli.sweep_results
# `loraworks sweep cells`: the table of a sweep.

FIGURES = {
    "accuracy": "acc",
    "macro_f1": "F1",
    "balanced_accuracy": "balanced acc",
    "loss": "loss",
}


@connected
def cells(client: Client, sweep: SweepId, limit: Limit = 20, as_json: AsJson = False) -> None:
    """The cells of a sweep, the best first."""
    found = client.sweep(sweep)
    objective = found["objective"]
    ranked = sorted(client.cells(sweep), key=lambda cell: _rank(cell, objective))
    shown = ranked[:limit]
    if as_json:
        print_json(shown)
        return
    partly = any(cell["share"] < 1 for cell in shown)
    rows = [_row(cell, found, partly=partly) for cell in shown]
    columns = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    table(columns, [[row[name] for name in columns] for row in rows], empty="")
    if len(ranked) > limit:
        say(f"And {len(ranked) - limit:,} more; see --limit.")


def _rank(cell: Cell, objective: Objective) -> tuple[float, bool, float, int, int]:
    """Those that ran the furthest first, of these the best, then the fewest parameters."""
    value = cell["figures"].get("validation", {}).get(objective)
    best = 0.0 if value is None else value if objective == "loss" else -value
    ran = 0.0 if value is None else cell["share"]
    return (-ran, value is None, best, cell["trainable_parameters"], cell["number"])


def _row(cell: Cell, sweep: Sweep, *, partly: bool) -> dict[str, object]:
    """By column; one that holds nothing is not shown."""
    names = labels(list(sweep["space"]))
    chosen = {name: text(cell["settings"].get(field)) for field, name in names.items()}
    validation = {
        f">validation {FIGURES[name]}": _figure(cell, "validation", name)
        for name in (sweep["objective"], "accuracy")
    }
    return {
        ">cell": cell["number"],
        **chosen,
        "state": f"{cell['state']}, known" if cell["reused"] else cell["state"],
        ">of its steps": percent(cell["share"]) if partly else None,
        **validation,
        ">test acc": _figure(cell, "test", "accuracy"),
        ">trainable": cell["trainable_parameters"],
        ">seconds": cell["seconds"] and round(cell["seconds"]),
        "error": cell["error"],
    }


def _figure(cell: Cell, part: str, name: str) -> str | None:
    value = cell["figures"].get(part, {}).get(name)
    return None if value is None else score(name, value)


# MERGED app.cli.sweep_results
# `loraworks sweep results` and `sweep promote`: what is taken out of a sweep.

Format = Annotated[
    Literal["csv", "txt", "json", "html"],
    typer.Option(
        "--format",
        help="csv: a row a cell; txt: results.txt of LoRA from scratch; json: the cells as the "
        "API tells them; html: the report.",
    ),
]
Out = Annotated[Path | None, typer.Option("--out", help="New file. html needs it.")]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="Model that gets the version.")]
CellNumber = Annotated[
    int | None, typer.Option("--cell", min=1, help="Number of the cell. Default: the winner.")
]
Alias = Annotated[str, typer.Option("--alias", help="Moved to the version.")]
NoAlias = Annotated[bool, typer.Option("--no-alias", help="Only register the version.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Do not wait for the job that makes it.")]


@connected
def results(client: Client, sweep: SweepId, format: Format = "csv", out: Out = None) -> None:
    """The cells of a sweep as a file, also while it runs."""
    if out is not None:
        check_new(out)
    elif format == "html":
        raise Misuse("the report is a page for a browser; say where with --out", "no_out")
    with _pieces(client, sweep, format) as found:
        if out is None:
            print_file(found)
            return
        keep(found, out)
    say(f"The results are in {out}.")


@connected
def promote(  # noqa: PLR0913 - one parameter per option
    client: Client,
    sweep: SweepId,
    model: Model,
    cell: CellNumber = None,
    alias: Alias = "production",
    no_alias: NoAlias = False,
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """Make the model of the winner, or of another cell, and put it into production.

    A job does it, which goes on from the checkpoint of the cell. Ctrl-C leaves it at work.
    """
    moved = None if no_alias else alias
    job = client.promote_cell(sweep, {"model": model, "cell": cell, "alias": moved})
    if not no_wait:
        job = interruptible(client, job)
    if as_json:
        print_json(job)
    if job["state"] not in ("queued", "running", "succeeded"):
        raise ended(job)
    if not as_json:
        _tell(job, model, moved)


def _pieces(client: Client, sweep_id: str, format: str) -> Pieces:
    match format:
        case "html":
            return client.sweep_report(sweep_id)
        case "json":
            text = json_text(client.cells(sweep_id))
            return nullcontext(iter([text.encode()]))
        case _:
            return client.sweep_results(sweep_id, format)


def _tell(job: Job, model: str, alias: str | None) -> None:
    version = job["model_version"]
    if version is None:
        say(f"Job {job['id']} makes the model; follow it with `loraworks watch {job['id']}`.")
    elif alias is None:
        say(f"{version} is registered; `loraworks models promote {version}` lets it answer.")
    else:
        say(f"{version} answers as {model if alias == 'production' else f'{model}@{alias}'}.")
