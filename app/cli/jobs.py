"""`loraworks jobs …`"""

from pathlib import Path
from typing import Annotated

import typer

from app.cli.answers import State
from app.cli.client import Client
from app.cli.download import unpack, where_it_is
from app.cli.errors import Misuse
from app.cli.options import AsJson, JobId, Limit, connected
from app.cli.output import as_json as print_json
from app.cli.output import duration, facts, moment, percent, reason, say, table
from app.cli.results import print_results
from app.cli.side_by_side import compare
from app.cli.watch import submitted
from lora_core.specs.method import MethodName

app = typer.Typer(
    help="List, look at, compare, cancel, retry and delete jobs; download their models."
)

StateFilter = Annotated[State | None, typer.Option("--state", help="Only jobs in this state.")]
MethodFilter = Annotated[
    MethodName | None, typer.Option("--method", help="Only jobs of this method.")
]
SplitFilter = Annotated[
    str | None, typer.Option("--split", help="Only this part: train, validation, test.")
]
FigureFilter = Annotated[
    str | None, typer.Option("--name", help="Only this figure, such as loss or accuracy.")
]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for the end in silence.")]
Watch = Annotated[bool, typer.Option("--watch", help="Follow live to the end.")]
Out = Annotated[
    Path | None, typer.Option("--out", help="New folder. Default: the id of the artifact.")
]


@app.command("list")
@connected
def list_jobs(
    client: Client,
    state: StateFilter = None,
    method: MethodFilter = None,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """The newest jobs."""
    jobs = client.jobs(limit, state=state, method=method)
    if as_json:
        print_json(jobs)
        return
    table(
        ["job", "name", "method", "state", ">step", ">accuracy", "model", "created"],
        [
            (
                job["id"],
                job["name"],
                job["method"],
                job["state"],
                f"{job['step']}/{job['total_steps'] or '-'}",
                percent(job["accuracy"]),
                job["model_version"],
                moment(job["created_at"]),
            )
            for job in jobs
        ],
        empty="No jobs. Submit one with `loraworks train`.",
    )


@app.command("show")
@connected
def show_job(client: Client, job: JobId, as_json: AsJson = False) -> None:
    """One job: its state, and its result once there is one."""
    found = client.job(job)
    if as_json:
        print_json(found)
        return
    parameters, error = found["parameters"], found["error"]
    facts(
        [
            ("job", found["id"]),
            ("name", found["name"]),
            ("state", found["state"]),
            ("method", found["method"]),
            ("base", found["base"]),
            ("trainable parameters", parameters and parameters["trainable"]),
            ("place in the queue", found["queue_position"]),
            ("waits, because", reason(found["waiting"])),
            ("estimated time", found["estimated_seconds"] and duration(found["estimated_seconds"])),
            ("step", f"{found['step']}/{found['total_steps'] or '-'}"),
            ("created", moment(found["created_at"])),
            ("started", found["started_at"] and moment(found["started_at"])),
            ("finished", found["finished_at"] and moment(found["finished_at"])),
            ("error", reason(error)),
            ("artifact", found["artifact_id"]),
        ]
    )
    if found["summary"]:
        print_results(found["method"], found["summary"])


app.command("compare")(compare)


@app.command("cancel")
@connected
def cancel_job(client: Client, job: JobId, as_json: AsJson = False) -> None:
    """Cancel a job. A running one stops at its next step; a finished one stays as it is."""
    found = client.cancel(job)
    if as_json:
        print_json(found)
    elif found["state"] == "running":
        say(f"Job {found['id']} was asked to stop.")
    else:
        say(f"Job {found['id']} is {found['state']}.")


@app.command("retry")
@connected
def retry_job(
    client: Client, job: JobId, wait: Wait = False, watch: Watch = False, as_json: AsJson = False
) -> None:
    """Continue a failed or cancelled job from its last checkpoint, as a new job."""
    submitted(client, client.retry_job(job), live=watch, wait=wait, as_json=as_json)


@app.command("delete")
@connected
def delete_job(client: Client, job: JobId) -> None:
    """Delete a finished job with its curves, and its files unless a model version needs them."""
    client.delete_job(job)
    say(f"Deleted job {job}.")


@app.command("events")
@connected
def events(client: Client, job: JobId, limit: Limit = 100, as_json: AsJson = False) -> None:
    """What happened to a job, oldest first."""
    notes = client.notes(job, limit)
    if as_json:
        print_json(notes)
        return
    table(
        ["at", "kind", "message"],
        [(moment(note["at"]), note["kind"], note["message"]) for note in notes],
        empty="Nothing happened yet.",
    )


@app.command("metrics")
@connected
def metrics(
    client: Client,
    job: JobId,
    split: SplitFilter = None,
    name: FigureFilter = None,
    limit: Limit = 10_000,
    as_json: AsJson = False,
) -> None:
    """The points of a job's curves."""
    points = client.points(job, limit, split=split, name=name)
    if as_json:
        print_json(points)
        return
    table(
        ["split", "name", ">step", ">value"],
        [(point["split"], point["name"], point["step"], point["value"]) for point in points],
        empty="No points yet.",
    )


@app.command("download")
@connected
def download(client: Client, job: JobId, out: Out = None, as_json: AsJson = False) -> None:
    """Download the model of a finished job, checked file by file."""
    artifact_id = client.job(job)["artifact_id"]
    if artifact_id is None:
        raise Misuse(f"job {job} has no model (yet)", "no_artifact")
    directory = out or Path(artifact_id)
    with client.archive(artifact_id) as pieces:
        unpack(pieces, directory)
    if as_json:
        print_json({"directory": str(directory), "artifact_id": artifact_id})
    else:
        say(where_it_is(directory))
