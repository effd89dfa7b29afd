"""How a sweep stands, and who won, in words."""

from collections.abc import Mapping
from typing import Any

from app.charts.fields import OBJECTIVES, labels, score, text
from app.cli.output import facts, moment, percent, say
from app.cli.sweep_answers import Comparison, Score, Standing, Sweep, SweepListItem, Verdict

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


def ended(sweep: SweepListItem) -> int:
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
