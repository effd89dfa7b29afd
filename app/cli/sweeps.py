"""`loraworks sweep …`"""

from typing import Annotated

import typer

from app.cli.client import Client, Order
from app.cli.errors import Misuse
from app.cli.options import AsJson, Limit, SweepId, connected
from app.cli.output import as_json as print_json
from app.cli.output import moment, say, table
from app.cli.responses import Json, Sweep, SweepState
from app.cli.sweep_options import Over, read_space
from app.cli.sweep_results import cells, counts, ended_cells, print_sweep, promote, results
from app.cli.sweep_start import preset, start
from app.cli.sweep_watch import watch_sweep

app = typer.Typer(help="Run one job in many settings, see who wins, and promote the winner.")

StateFilter = Annotated[
    SweepState | None, typer.Option("--state", help="Only sweeps in this state.")
]
Cells = Annotated[int | None, typer.Option("--cells", help="Cells in all. Not for grids.")]

app.command("start")(start)
app.command("preset")(preset)


@app.command("list")
@connected
def list_sweeps(
    client: Client, state: StateFilter = None, limit: Limit = 20, as_json: AsJson = False
) -> None:
    """The newest sweeps."""
    sweeps = client.sweeps(limit, state=state)
    if as_json:
        print_json(sweeps)
        return
    table(
        ["sweep", "name", "strategy", "state", ">cells", "created"],
        [
            (
                sweep["id"],
                sweep["name"],
                sweep["strategy"]["type"],
                sweep["state"],
                f"{ended_cells(sweep)}/{sweep['cells']}",
                moment(sweep["created_at"]),
            )
            for sweep in sweeps
        ],
        empty="No sweeps. Start one with `loraworks sweep start --over r=2,4,8`.",
    )


@app.command("show")
@connected
def show_sweep(client: Client, sweep: SweepId, as_json: AsJson = False) -> None:
    """One sweep: its state, the best cell so far, and the cheapest that is as good."""
    found = client.sweep(sweep)
    print_json(found) if as_json else print_sweep(found)


app.command("cells")(cells)
app.command("watch")(watch_sweep)


@app.command("pause")
@connected
def pause(client: Client, sweep: SweepId, as_json: AsJson = False) -> None:
    """Start no more cells; those that run go on to their ends."""
    _order(client, sweep, "pause", as_json=as_json)


@app.command("stop")
@connected
def stop(client: Client, sweep: SweepId, as_json: AsJson = False) -> None:
    """Start no more cells, and stop those that run; they keep their checkpoints."""
    _order(client, sweep, "stop", as_json=as_json)


@app.command("resume")
@connected
def resume(client: Client, sweep: SweepId, as_json: AsJson = False) -> None:
    """Go on after a pause or a stop."""
    _order(client, sweep, "resume", as_json=as_json)


@app.command("retry")
@connected
def retry(client: Client, sweep: SweepId, as_json: AsJson = False) -> None:
    """Run failed and cancelled cells again, and no others."""
    _order(client, sweep, "retry", as_json=as_json)


@app.command("extend")
@connected
def extend(
    client: Client, sweep: SweepId, over: Over = None, cells: Cells = None, as_json: AsJson = False
) -> None:
    """Add values to the fields of a sweep, or cells, and run what is new."""
    body: Json = {"space": read_space(over)} if over else {}
    if cells is not None:
        body["cells"] = cells
    if not body:
        raise Misuse("say what to add with --over or --cells", "wrong_usage")
    _tell(client.extend_sweep(sweep, body), as_json=as_json)


app.command("results")(results)
app.command("promote")(promote)


@app.command("delete")
@connected
def delete(client: Client, sweep: SweepId) -> None:
    """Delete a sweep that does not run, with the jobs of its cells that no other one uses."""
    client.delete_sweep(sweep)
    say(f"Deleted sweep {sweep}.")


def _order(client: Client, sweep_id: str, order: Order, *, as_json: bool) -> None:
    _tell(client.order_sweep(sweep_id, order), as_json=as_json)


def _tell(sweep: Sweep, *, as_json: bool) -> None:
    if as_json:
        print_json(sweep)
    else:
        say(f"Sweep {sweep['id']} is {sweep['state']}. Cells: {counts(sweep)}.")
