"""`loraworks sweep cells`: the table of a sweep."""

from app.charts.fields import labels, score, text
from app.cli.client import Client
from app.cli.options import AsJson, Limit, SweepId, connected
from app.cli.output import as_json as print_json
from app.cli.output import percent, say, table
from app.cli.sweep_answers import Cell, Objective, Sweep

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
