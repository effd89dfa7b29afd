"""The results of a sweep: live view, summary, table of trials, files, promotion of the winner."""

import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import UUID

import typer

from app.charts.formatting import (
    STATE_ORDER,
    field_labels,
    format_difference,
    format_interval,
    format_score,
    format_setting_value,
)
from app.cli.errors import RunFailed, ServiceUnreachableOrFailed, UsageError
from app.cli.files import check_file_creatable, write_file_atomically
from app.cli.options import AsJson, Limit, SweepId, with_client
from app.cli.output import (
    format_json,
    format_metric,
    format_percent,
    format_time,
    print_fields,
    print_file_chunks,
    print_json,
    print_json_line,
    print_line,
    print_table,
    print_warning,
)
from app.cli.polling import poll_forever
from app.cli.watch import (
    ProgressDisplay,
    RunProgress,
    job_failed_error,
    open_display,
    watch_job_with_hint,
)
from lora_core.tasks.metric_info import METRICS, main_metric

if TYPE_CHECKING:
    from app.cli.client import Client
    from app.cli.json_client import ByteStream
    from app.jobs.schemas import JobView
    from app.sweeps.schemas import (
        SelectedTrialView,
        SplitScoreView,
        SweepListItem,
        SweepResultView,
        SweepView,
        TrialView,
        WinnerComparisonView,
    )


def print_sweep(sweep: "SweepView") -> None:
    """Print the best trial, how many are within noise of it, and the cheapest of those."""
    result = sweep.result
    print_fields(
        [
            ("sweep", sweep.id),
            ("name", sweep.name),
            ("state", sweep.state),
            ("strategy", sweep.strategy["type"]),
            ("objective", f"validation {METRICS[sweep.objective].label}"),
            ("trials", format_trial_counts(sweep)),
            ("created", format_time(sweep.created_at)),
            ("finished", format_time(sweep.finished_at)),
            *(_winner_fields(sweep, result.winner) if result else ()),
        ]
    )
    if result is None:
        print_line("No trial has run to its end yet.")
        return
    print_line(describe_count_within_noise(result))
    if result.cheapest.number != result.winner.number:
        print_line(_describe_cheapest(result))
    elif len(result.within_noise) > 1:
        print_line("None of them has fewer trainable parameters.")


def format_trial_counts(sweep: "SweepView") -> str:
    """Return the counts by state, such as `36: 34 succeeded, 2 failed`."""
    parts = [f"{n:,} {state}" for state in STATE_ORDER if (n := getattr(sweep.trial_counts, state))]
    if to_come := sweep.planned_trial_count - sweep.trial_count:
        parts.append(f"{to_come:,} to come")
    return f"{sweep.planned_trial_count:,}: {', '.join(parts)}"


def count_ended_trials(sweep: "SweepListItem") -> int:
    """Return how many trials have ended."""
    counts = sweep.trial_counts
    return counts.succeeded + counts.failed + counts.cancelled


def describe_leader(sweep: "SweepView") -> str | None:
    """Return a sentence about the best trial so far, or None."""
    if sweep.result is None:
        return None
    best = sweep.result.winner
    value = best.validation.objective if best.validation else None
    name = METRICS[sweep.objective].label
    by = "" if value is None else f" with validation {name} {format_score(sweep.objective, value)}"
    return f"{_trial_label(best)} leads{by}"


def describe_count_within_noise(result: "SweepResultView") -> str:
    """Return how many trials are statistically within noise of the winner."""
    others, compared = len(result.within_noise) - 1, result.compared - 1
    score = result.winner.validation
    if score is not None and score.metric != "accuracy":
        test = "paired bootstrap over the same validation texts"
        significant = within = ""
    else:
        test = "exact McNemar test on the same validation texts"
        significant, within = ", p < 0.05", ", p >= 0.05"
    if compared == 0:
        return "No other trial was evaluated on the same validation texts."
    if others == 0:
        return f"No other trial is within noise of it ({test}{significant})."
    trials = "trial is" if compared == 1 else "trials are"
    return f"{others:,} of {compared:,} other {trials} within noise of it ({test}{within})."


def format_settings(settings: Mapping[str, Any]) -> str:
    """Return settings such as `r = 8, targets = query+value`."""
    names = field_labels(list(settings))
    return ", ".join(
        f"{names[field]} = {format_setting_value(value)}" for field, value in settings.items()
    )


def _winner_fields(sweep: "SweepView", winner: "SelectedTrialView") -> list[tuple[str, object]]:
    objective, validation = sweep.objective, winner.validation
    metric = main_metric(sweep.job)
    value = validation.objective if validation and objective != metric else None
    return [
        ("winner" if sweep.state == "finished" else "best so far", _trial_label(winner)),
        (f"validation {METRICS[objective].label}", value and format_score(objective, value)),
        (f"validation {METRICS[metric].label}", _format_interval(validation)),
        (f"test {METRICS[metric].label}", _format_interval(winner.test)),
        ("trainable parameters", winner.trainable_parameters),
    ]


def _trial_label(trial: "SelectedTrialView") -> str:
    return f"trial {trial.number} ({format_settings(trial.settings)})"


def _format_interval(value: "SplitScoreView | None") -> str | None:
    if value is None:
        return None
    interval = format_interval(value.metric, value.low, value.high)
    shown = format_metric(value.metric, value.value)
    return f"{shown} (95% interval {interval}; {value.texts:,} texts)"


def _describe_cheapest(result: "SweepResultView") -> str:
    winner, cheapest = result.winner, result.cheapest
    metric = winner.validation.metric if winner.validation else "accuracy"
    differences = (("validation", result.validation), ("test", result.test))
    descriptions = [
        _describe_difference(difference, metric, split)
        for split, difference in differences
        if difference
    ]
    return (
        f"The cheapest of them is {_trial_label(cheapest)} with "
        f"{cheapest.trainable_parameters:,} trainable parameters instead of "
        f"{winner.trainable_parameters:,}; its {METRICS[metric].label} is "
        f"{' and '.join(descriptions)}."
    )


def _describe_difference(difference: "WinnerComparisonView", metric: str, split: str) -> str:
    # Negated: the value of the cheapest trial minus that of the winner.
    low, high = (format_difference(metric, -end) for end in (difference.high, difference.low))
    way = "lower" if difference.difference > 0 else "higher"
    size = format_difference(metric, abs(difference.difference)).removeprefix("+")
    unit = " points" if METRICS[metric].is_share else ""
    where = "the same" if difference.difference == 0 else f"{size}{unit} {way}"
    p = "" if difference.p is None else f", p = {difference.p:.2g}"
    return f"{where} on {split} (95% interval {low} to {high}{p})"


# `loraworks sweep trials`


@with_client
def list_trials(
    client: "Client", sweep: SweepId, limit: Limit = 20, as_json: AsJson = False
) -> None:
    """List the trials of a sweep, best first."""
    found = client.get_sweep(sweep)
    objective = found.objective
    ranked = sorted(client.list_trials(sweep), key=lambda trial: _sort_key(trial, objective))
    shown = ranked[:limit]
    if as_json:
        print_json(shown)
        return
    show_budget = any(trial.budget < 1 for trial in shown)
    rows = [_trial_row(trial, found, show_budget=show_budget) for trial in shown]
    columns = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    print_table(columns, [[row[name] for name in columns] for row in rows], empty="")
    if len(ranked) > limit:
        print_line(f"And {len(ranked) - limit:,} more; see --limit.")


def _sort_key(trial: "TrialView", objective: str) -> tuple[float, bool, float, int, int]:
    """Sort by budget, largest first; then by score, best first; then by fewest parameters."""
    value = trial.metrics.get("validation", {}).get(objective)
    score_key = 0.0 if value is None else -METRICS[objective].sign() * value
    budget = 0.0 if value is None else trial.budget
    return (-budget, value is None, score_key, trial.trainable_parameters, trial.number)


def _trial_row(trial: "TrialView", sweep: "SweepView", *, show_budget: bool) -> dict[str, object]:
    """Return the cells of a trial by column; columns without values are not shown."""
    names = field_labels(list(sweep.space))
    settings = {
        name: format_setting_value(trial.settings.get(field)) for field, name in names.items()
    }
    metric = main_metric(sweep.job)
    validation = {
        f">validation {METRICS[name].short}": _format_metric(trial, "validation", name)
        for name in (sweep.objective, metric)
    }
    return {
        ">trial": trial.number,
        **settings,
        "state": f"{trial.state}, reused" if trial.reused else trial.state,
        ">budget": format_percent(trial.budget) if show_budget else None,
        **validation,
        f">test {METRICS[metric].short}": _format_metric(trial, "test", metric),
        ">trainable": trial.trainable_parameters,
        ">seconds": trial.seconds and round(trial.seconds),
        "error": trial.error,
    }


def _format_metric(trial: "TrialView", split: str, name: str) -> str | None:
    value = trial.metrics.get(split, {}).get(name)
    return None if value is None else format_score(name, value)


# `loraworks sweep results` and `sweep promote`

Format = Annotated[
    Literal["csv", "txt", "json", "html"],
    typer.Option(
        "--format",
        help="csv: a row per trial; txt: the format of results.txt in LoRA from scratch; json: the "
        "trials as in the API; html: the report.",
    ),
]
Out = Annotated[Path | None, typer.Option("--out", help="New file. Required for html.")]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="Model to register the version in.")]
TrialNumber = Annotated[
    int | None, typer.Option("--trial", min=1, help="Number of the trial. Default: the winner.")
]
Alias = Annotated[str, typer.Option("--alias", help="Alias to move to the version.")]
NoAlias = Annotated[
    bool, typer.Option("--no-alias", help="Only register the version; move no alias.")
]
NoWait = Annotated[
    bool, typer.Option("--no-wait", help="Do not wait for the job that creates the model.")
]


@with_client
def export_trials(
    client: "Client", sweep: SweepId, format: Format = "csv", out: Out = None
) -> None:
    """Export the trials of a sweep as a file, even while it runs."""
    if out is not None:
        check_file_creatable(out)
    elif format == "html":
        raise UsageError("--format html needs --out", "no_out")
    with _open_results(client, sweep, format) as chunks:
        if out is None:
            print_file_chunks(chunks)
            return
        write_file_atomically(chunks, out)
    print_line(f"Saved the results to {out}.")


@with_client
def promote_trial(  # noqa: PLR0913 - one parameter per option
    client: "Client",
    sweep: SweepId,
    model: Model,
    trial: TrialNumber = None,
    alias: Alias = "production",
    no_alias: NoAlias = False,
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """Create the model of the winner, or of another trial, and promote it to production.

    A job creates it, resuming from the trial's checkpoint. Ctrl-C does not stop the job.
    """
    target_alias = None if no_alias else alias
    job = client.start_trial_promotion(
        sweep, {"model": model, "trial": trial, "alias": target_alias}
    )
    if not no_wait:
        job = watch_job_with_hint(client, job)
    if as_json:
        print_json(job)
    if job.state not in ("queued", "running", "succeeded"):
        raise job_failed_error(job)
    if not as_json:
        _print_promotion(job, model, target_alias)


def _open_results(client: "Client", sweep_id: str, format: str) -> "ByteStream":
    match format:
        case "html":
            return client.download_sweep_report(sweep_id)
        case "json":
            text = format_json(client.list_trials(sweep_id))
            return nullcontext(iter([text.encode()]))
        case _:
            return client.download_sweep_results(sweep_id, format)


def _print_promotion(job: "JobView", model: str, alias: str | None) -> None:
    version = job.model_version
    if version is None:
        print_line(f"Job {job.id} creates the model. Follow it with `loraworks watch {job.id}`.")
    elif alias is None:
        print_line(f"Registered {version}. Deploy it with `loraworks models promote {version}`.")
    else:
        print_line(f"Registered {version} and moved alias {model}@{alias} to it.")


# -- Following a sweep until it starts no more trials ---------------------------------------------


POLL_SECONDS = 2.0


@with_client
def watch_sweep(client: "Client", sweep: SweepId, as_json: AsJson = False) -> None:
    """Follow a sweep live until it finishes, pauses or stops.

    Ctrl-C stops watching; the sweep continues. --json prints one line per change.
    """
    if not as_json:
        print_outcome_and_require_winner(watch_sweep_with_hint(client, sweep))
        return
    last = None
    for found in poll_sweep(client, sweep):
        if found != last:
            print_json_line(found)
        last = found
    if last is not None:
        raise_unless_finished_with_winner(last)


def poll_sweep(client: "Client", sweep_id: str | UUID) -> Iterator["SweepView"]:
    """Yield the sweep every two seconds, until it is not running any more."""
    for sweep in poll_forever(lambda: client.get_sweep(sweep_id), interval=POLL_SECONDS):
        yield sweep
        if sweep.state != "running":
            return


def watch_sweep_with_hint(client: "Client", sweep_id: str | UUID) -> "SweepView":
    """Watch a sweep. After Ctrl-C or an outage, print how to return to it."""
    try:
        return _watch(client, sweep_id, open_display())
    except (KeyboardInterrupt, ServiceUnreachableOrFailed):
        print_warning(
            f"The sweep continues. Follow it with `loraworks sweep watch {sweep_id}`, "
            f"or stop it with `loraworks sweep stop {sweep_id}`."
        )
        raise


def print_outcome_and_require_winner(sweep: "SweepView") -> None:
    """Print the sweep. Raises `RunFailed` unless it finished with a winner."""
    print_sweep(sweep)
    raise_unless_finished_with_winner(sweep)


def raise_unless_finished_with_winner(sweep: "SweepView") -> None:
    """Raise `RunFailed` unless the sweep finished with a winner."""
    state = sweep.state
    if state != "finished":
        raise RunFailed(f"sweep {sweep.id} was {state} before it finished", f"sweep_{state}")
    if sweep.result is None:
        command = f"`loraworks sweep trials {sweep.id}`"
        raise RunFailed(f"no trial ran to its end; see {command} for the reasons", "no_winner")


def _watch(client: "Client", sweep_id: str | UUID, display: ProgressDisplay) -> "SweepView":
    progress, last_news = RunProgress(title=str(sweep_id), unit="trial"), ""
    with display:
        for sweep in poll_sweep(client, sweep_id):
            _update_progress(progress, sweep)
            news = describe_leader(sweep)
            display.update(progress, news if news != last_news else None)
            last_news = news or last_news
        display.update(
            progress, f"{progress.title}: {progress.state}, {format_trial_counts(sweep)}"
        )
    return sweep


def _update_progress(progress: RunProgress, sweep: "SweepView") -> None:
    """Update state and step. The notes below the bar are the counts and the leader."""
    progress.title = f"{sweep.name or sweep.id} ({sweep.strategy['type']})"
    progress.state = sweep.state
    progress.total = sweep.planned_trial_count
    if (done := count_ended_trials(sweep)) != progress.step:
        progress.set_step(done, at=time.time())
    progress.notes.clear()
    progress.add_note(format_trial_counts(sweep))
    if ahead := describe_leader(sweep):
        progress.add_note(ahead)
