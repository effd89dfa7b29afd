"""`loraworks retraining …`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.charts.formatting import format_number
from app.cli.errors import UsageError
from app.cli.options import AsJson, Limit, with_client
from app.cli.output import format_time, print_fields, print_json, print_line, print_table
from app.cli.text_files import read_text_file

if TYPE_CHECKING:
    from app.cli.client import Client
    from app.retraining.schemas import RetrainingRuleView, RetrainingRunView, VersionComparisonView

app = typer.Typer(help="Retrain models from feedback by rule, and see what became of it.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Model name.")]
Run = Annotated[
    str | None, typer.Argument(metavar="[RUN]", help="Retraining run. Default: the newest.")
]
NewLabels = Annotated[
    int | None,
    typer.Option("--new-labels", min=1, help="Retrain when this many texts have new feedback."),
]
EveryDays = Annotated[
    float | None,
    typer.Option("--every-days", help="Retrain after this many days, if there is any."),
]
Level = Annotated[
    float,
    typer.Option("--level", help="Share of runs without any gain that may be promoted."),
]
OnRequest = Annotated[
    bool, typer.Option("--on-request", help="Only `retraining start` starts a run.")
]
SearchFile = Annotated[
    Path | None,
    typer.Option(
        "--search",
        metavar="FILE",
        exists=True,
        help="JSON with the space and the strategy of a sweep that looks for the settings.",
    ),
]


@app.command("set")
@with_client
def set_rule(  # noqa: PLR0913 - one parameter per option
    client: "Client",
    name: Name,
    new_labels: NewLabels = None,
    every_days: EveryDays = None,
    level: Level = 0.05,
    on_request: OnRequest = False,
    search: SearchFile = None,
    as_json: AsJson = False,
) -> None:
    """Set when a model is retrained, in place of its earlier rule."""
    if not on_request and new_labels is None and every_days is None:
        raise UsageError("say --new-labels, --every-days, or --on-request", "wrong_options")
    rule = client.set_retraining_rule(
        name,
        {
            "enabled": not on_request,
            "new_labels": new_labels,
            "every_days": every_days,
            "level": level,
            "search": None if search is None else _read_search(search),
        },
    )
    _print_rule(rule, as_json=as_json)


def _read_search(file: Path) -> Any:
    try:
        return json.loads(read_text_file(file))
    except ValueError as error:
        raise UsageError(f"{file} is not JSON", "not_json") from error


@app.command("show")
@with_client
def show_rule(client: "Client", name: Name, as_json: AsJson = False) -> None:
    """Show when a model is retrained, and how far the next run is."""
    _print_rule(client.get_retraining_rule(name), as_json=as_json)


@app.command("rm")
@with_client
def delete_rule(client: "Client", name: Name) -> None:
    """Delete the rule of a model. Its runs stay."""
    client.delete_retraining_rule(name)
    print_line(f"Deleted the retraining rule of {name}.")


@app.command("start")
@with_client
def start_run(client: "Client", name: Name, as_json: AsJson = False) -> None:
    """Retrain a model now, by its rule, whether that is due or not."""
    run = client.start_retraining(name)
    if as_json:
        print_json(run)
        return
    print_line(f"Started retraining {run.id}.")
    print_line(f"See what becomes of it with `loraworks retraining report {name}`.")


@app.command("list")
@with_client
def list_runs(client: "Client", name: Name, limit: Limit = 20, as_json: AsJson = False) -> None:
    """List the retrainings of a model, the newest first."""
    runs = client.list_retraining_runs(name, limit)
    if as_json:
        print_json(runs)
        return
    print_table(
        ["run", "started", "state", "version", "what happened"],
        [
            (each.id, format_time(each.created_at), each.state, each.new, each.summary)
            for each in runs
        ],
        empty=f"{name} was not retrained yet.",
    )


@app.command("report")
@with_client
def show_report(client: "Client", name: Name, run: Run = None, as_json: AsJson = False) -> None:
    """Show what a retraining trained on, how both versions compare, and what was decided."""
    found = client.get_retraining_run(name, run) if run else _newest_run(client, name)
    if as_json:
        print_json(found)
        return
    print_line(found.summary)
    print_fields(
        [
            ("run", found.id),
            ("state", found.state),
            ("started", f"{format_time(found.created_at)}, by {found.trigger.replace('_', ' ')}"),
            ("finished", format_time(found.finished_at)),
            ("in production then", found.current),
            ("new version", found.new),
            ("level", found.level),
            ("job", found.job_id),
            ("error", None if found.error is None else found.error.code),
        ]
    )
    _print_data(found)
    _print_result(found)


@app.command("cancel")
@with_client
def cancel_run(client: "Client", name: Name, run: Run = None) -> None:
    """Cancel a retraining with its jobs. Its datasets are deleted unless a version was made."""
    cancelled = client.cancel_retraining(name, run or str(_newest_run(client, name).id))
    print_line(f"Cancelled retraining {cancelled.id}.")


def _newest_run(client: "Client", name: str) -> "RetrainingRunView":
    """Raises `UsageError`."""
    newest = client.list_retraining_runs(name, 1)
    if not newest:
        raise UsageError(f"{name} was not retrained yet", "no_runs")
    return newest[0]


def _print_rule(rule: "RetrainingRuleView", *, as_json: bool) -> None:
    if as_json:
        print_json(rule)
        return
    print_fields(
        [
            ("model", rule.model),
            ("retrains", "by itself" if rule.enabled else "on request only"),
            ("texts with new feedback", rule.new_labels),
            ("days", rule.every_days),
            ("level", rule.level),
            ("settings", "those of production" if rule.search is None else "a sweep's best"),
            ("texts waiting", rule.waiting_labels),
            ("days are over", format_time(rule.due_at)),
            ("versions compared so far", rule.tries),
        ]
    )


def _print_data(run: "RetrainingRunView") -> None:
    data = run.data
    if data is None:
        return
    print_table(
        ["texts", ">number"],
        [
            (f"train, of {data.source}", data.train),
            ("train, volunteered feedback", data.live_volunteered),
            ("train, drawn at random", data.live_sampled),
            ("evaluate, test split", data.evaluated_test),
            ("evaluate, drawn at random", data.evaluated_live),
            *((f"left out, {why.replace('_', ' ')}", n) for why, n in data.left_out.items()),
        ],
        empty="",
    )


def _print_result(run: "RetrainingRunView") -> None:
    result = run.result
    if result is None:
        return
    parts = {"all": result.all, "test split": result.test, "live texts": result.live}
    print_table(
        [result.metric, ">texts", f">{run.current}", f">{run.new}", ">better", ">worse", ">p"],
        [_result_row(name, part) for name, part in parts.items() if part is not None],
        empty="",
    )
    print_line(f"Versions compared so far, each at its level: {result.tries}.")


def _result_row(name: str, part: "VersionComparisonView") -> tuple[Any, ...]:
    scores = [
        "{} ({} to {})".format(*map(format_number, (each.value, each.low, each.high)))
        for each in (part.current, part.new)
    ]
    return (name, part.texts, *scores, part.better, part.worse, f"{part.p_better:.3g}")
