"""`loraworks sweep …`"""

from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.errors import UsageError
from app.cli.options import AsJson, Limit, SweepId, with_client
from app.cli.output import Json, format_time, print_json, print_line, print_table
from app.cli.sweep_results import (
    count_ended_trials,
    export_trials,
    format_trial_counts,
    list_trials,
    print_sweep,
    promote_trial,
    watch_sweep,
)
from app.cli.sweep_start import Over, parse_search_space, start, start_preset_sweep
from app.sweeps.states import SweepState

if TYPE_CHECKING:
    from app.cli.client import Client, SweepAction
    from app.sweeps.schemas import SweepView


app = typer.Typer(help="Run a job in many settings, compare the trials, and promote the winner.")

StateFilter = Annotated[
    SweepState | None, typer.Option("--state", help="Only sweeps in this state.")
]
TrialCount = Annotated[
    int | None, typer.Option("--trials", help="Total number of trials. Not for grids.")
]

app.command("start")(start)
app.command("preset")(start_preset_sweep)


@app.command("list")
@with_client
def list_sweeps(
    client: "Client", state: StateFilter = None, limit: Limit = 20, as_json: AsJson = False
) -> None:
    """List the newest sweeps."""
    sweeps = client.list_sweeps(limit, state=state)
    if as_json:
        print_json(sweeps)
        return
    print_table(
        ["sweep", "name", "strategy", "state", ">trials", "created"],
        [
            (
                sweep.id,
                sweep.name,
                sweep.strategy["type"],
                sweep.state,
                f"{count_ended_trials(sweep)}/{sweep.planned_trial_count}",
                format_time(sweep.created_at),
            )
            for sweep in sweeps
        ],
        empty="No sweeps. Start one with `loraworks sweep start --over r=2,4,8`.",
    )


@app.command("show")
@with_client
def show_sweep(client: "Client", sweep: SweepId, as_json: AsJson = False) -> None:
    """Show a sweep: its state, the best trial so far, and the cheapest within noise of it."""
    found = client.get_sweep(sweep)
    print_json(found) if as_json else print_sweep(found)


app.command("trials")(list_trials)
app.command("watch")(watch_sweep)


@app.command("pause")
@with_client
def pause(client: "Client", sweep: SweepId, as_json: AsJson = False) -> None:
    """Start no more trials. Running trials continue to their end."""
    _send_action(client, sweep, "pause", as_json=as_json)


@app.command("stop")
@with_client
def stop(client: "Client", sweep: SweepId, as_json: AsJson = False) -> None:
    """Start no more trials, and stop running ones. They keep their checkpoints."""
    _send_action(client, sweep, "stop", as_json=as_json)


@app.command("resume")
@with_client
def resume(client: "Client", sweep: SweepId, as_json: AsJson = False) -> None:
    """Resume a paused or stopped sweep."""
    _send_action(client, sweep, "resume", as_json=as_json)


@app.command("retry")
@with_client
def retry(client: "Client", sweep: SweepId, as_json: AsJson = False) -> None:
    """Run failed and cancelled trials again. Resume a paused or stopped sweep first."""
    _send_action(client, sweep, "retry", as_json=as_json)


@app.command("extend")
@with_client
def extend(
    client: "Client",
    sweep: SweepId,
    over: Over = None,
    trials: TrialCount = None,
    as_json: AsJson = False,
) -> None:
    """Add values to the fields of a sweep, or trials, and run the new ones."""
    body: Json = {"space": parse_search_space(over)} if over else {}
    if trials is not None:
        body["trials"] = trials
    if not body:
        raise UsageError("give --over or --trials", "wrong_usage")
    _print_state(client.extend_sweep(sweep, body), as_json=as_json)


app.command("results")(export_trials)
app.command("promote")(promote_trial)


@app.command("delete")
@with_client
def delete(client: "Client", sweep: SweepId) -> None:
    """Delete a sweep that is not running, and its jobs that no other sweep uses."""
    client.delete_sweep(sweep)
    print_line(f"Deleted sweep {sweep}.")


def _send_action(client: "Client", sweep_id: str, order: "SweepAction", *, as_json: bool) -> None:
    _print_state(client.send_sweep_action(sweep_id, order), as_json=as_json)


def _print_state(sweep: "SweepView", *, as_json: bool) -> None:
    if as_json:
        print_json(sweep)
    else:
        print_line(f"Sweep {sweep.id} is {sweep.state}. Trials: {format_trial_counts(sweep)}.")
