"""`loraworks predictions …`"""

from pathlib import Path
from typing import Annotated

import typer

from app.cli.client import Client
from app.cli.jobs import StateFilter
from app.cli.options import AsJson, Limit, connected
from app.cli.output import as_json as print_json
from app.cli.output import moment, say, table
from app.cli.prediction_runs import check_out, print_run
from app.cli.prediction_runs import download as fetch

app = typer.Typer(help="List, look at, cancel and delete prediction runs; download their results.")

RunId = Annotated[str, typer.Argument(metavar="RUN", help="Id of the prediction run.")]
Out = Annotated[Path, typer.Option("--out", help="New file, .csv or .jsonl.")]


@app.command("list")
@connected
def list_runs(
    client: Client, state: StateFilter = None, limit: Limit = 20, as_json: AsJson = False
) -> None:
    """The newest prediction runs."""
    runs = client.predictions(limit, state=state)
    if as_json:
        print_json(runs)
        return
    table(
        ["run", "data set", "model", "state", ">rows", "created"],
        [
            (
                run["id"],
                run["dataset"],
                run["model"],
                run["state"],
                f"{run['rows_done']}/{run['rows']}",
                moment(run["created_at"]),
            )
            for run in runs
        ],
        empty="No prediction runs. Start one with `loraworks predict --file FILE --out FILE`.",
    )


@app.command("show")
@connected
def show_run(client: Client, run: RunId, as_json: AsJson = False) -> None:
    """One prediction run: its state, and what came out once it has ended."""
    found = client.prediction(run)
    if as_json:
        print_json(found)
    else:
        print_run(found)


@app.command("cancel")
@connected
def cancel_run(client: Client, run: RunId, as_json: AsJson = False) -> None:
    """Cancel a prediction run. A finished one stays as it is."""
    found = client.cancel_prediction(run)
    if as_json:
        print_json(found)
    elif found["state"] == "running":
        say(f"Prediction run {found['id']} was asked to stop.")
    else:
        say(f"Prediction run {found['id']} is {found['state']}.")


@app.command("download")
@connected
def download(client: Client, run: RunId, out: Out) -> None:
    """Download the results of a prediction run that succeeded."""
    check_out(out)
    fetch(client, run, out)
    say(f"The results are in {out}.")


@app.command("delete")
@connected
def delete_run(client: Client, run: RunId) -> None:
    """Delete a finished prediction run and its results."""
    client.delete_prediction(run)
    say(f"Deleted prediction run {run}.")
