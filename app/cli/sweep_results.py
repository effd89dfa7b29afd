"""`loraworks sweep results` and `sweep promote`: what is taken out of a sweep."""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Literal

import typer

from app.cli.answers import Job
from app.cli.client import Client
from app.cli.connection import Pieces
from app.cli.download import check_new, keep
from app.cli.errors import Misuse
from app.cli.options import AsJson, SweepId, connected
from app.cli.output import as_json as print_json
from app.cli.output import file as print_file
from app.cli.output import json_text, say
from app.cli.watch import ended, interruptible

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
