"""`loraworks jobs …`"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from app.cli.client import Client
from app.cli.compare import compare
from app.cli.download import keep, unpack, where_it_is
from app.cli.errors import Misuse
from app.cli.options import AsJson, JobId, Limit, connected
from app.cli.output import as_json as print_json
from app.cli.output import duration, facts, moment, percent, reason, say, table
from app.cli.prediction_runs import FORMATS, check_out
from app.cli.responses import Json, State
from app.cli.results import print_results
from app.cli.watch import submitted
from app.jobs.tags import spelled
from lora_core.specs.method import MethodName

app = typer.Typer(
    help="List, look at, compare, tag, cancel, retry and delete jobs; download their models."
)

EXCERPT = 200  # characters of a text in a table

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
TagFilter = Annotated[str | None, typer.Option("--tag", help="Only jobs with this tag.")]
AddTag = Annotated[
    list[str] | None, typer.Option("--add-tag", metavar="TAG", help="Tag to add; repeatable.")
]
RemoveTag = Annotated[
    list[str] | None, typer.Option("--remove-tag", metavar="TAG", help="Tag to remove; repeatable.")
]
Notes = Annotated[
    str | None, typer.Option("--notes", help="New notes, instead of the old; '' for none.")
]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for the end in silence.")]
Watch = Annotated[bool, typer.Option("--watch", help="Follow live to the end.")]
HeldOut = Annotated[
    Literal["validation", "test"], typer.Option("--split", help="The part: validation or test.")
]
MistakesOut = Annotated[
    Path | None,
    typer.Option("--out", help="New .csv or .jsonl for all of them, instead of the first ones."),
]
Out = Annotated[
    Path | None, typer.Option("--out", help="New folder. Default: the id of the artifact.")
]


@app.command("list")
@connected
def list_jobs(
    client: Client,
    state: StateFilter = None,
    method: MethodFilter = None,
    tag: TagFilter = None,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """The newest jobs."""
    jobs = client.jobs(limit, state=state, method=method, tag=tag)
    if as_json:
        print_json(jobs)
        return
    table(
        ["job", "name", "tags", "method", "state", ">step", ">accuracy", "model", "created"],
        [
            (
                job["id"],
                job["name"],
                ", ".join(job["tags"]),
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
            ("tags", ", ".join(found["tags"]) or None),
            ("notes", found["notes"]),
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


@app.command("edit")
@connected
def edit_job(
    client: Client,
    job: JobId,
    add_tag: AddTag = None,
    remove_tag: RemoveTag = None,
    notes: Notes = None,
    as_json: AsJson = False,
) -> None:
    """Tag a job, or write notes about it, whatever its state."""
    changes: Json = {} if notes is None else {"notes": notes}
    if add_tag or remove_tag:
        removed = {spelled(tag) for tag in remove_tag or ()}
        kept = [tag for tag in client.job(job)["tags"] if tag not in removed]
        changes["tags"] = kept + (add_tag or [])
    if not changes:
        raise Misuse("give --add-tag, --remove-tag or --notes", "wrong_usage")
    found = client.update_job(job, changes)
    if as_json:
        print_json(found)
    else:
        facts(
            [
                ("job", found["id"]),
                ("tags", ", ".join(found["tags"]) or "-"),
                ("notes", found["notes"] or "-"),
            ]
        )


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


@app.command("mistakes")
@connected
def show_mistakes(
    client: Client,
    job: JobId,
    split: HeldOut = "test",
    limit: Limit = 20,
    out: MistakesOut = None,
    as_json: AsJson = False,
) -> None:
    """The texts that a job answered wrongly, the surest first."""
    if out is not None:
        check_out(out)
        with client.mistakes_file(job, split, FORMATS[out.suffix.lower()]) as pieces:
            keep(pieces, out)
        say(f"The mistakes are in {out}.")
        return
    found = client.mistakes(job, limit, split)
    if as_json:
        print_json(found)
        return
    table(
        [">row", "label", "predicted", ">probability", "text"],
        [
            (each["row"], each["label"], each["predicted"], percent(each["score"]), _excerpt(each))
            for each in found
        ],
        empty=f"It answered every text of the {split} part rightly.",
    )


def _excerpt(mistake: Json) -> str | None:
    text: str | None = mistake["text"]
    return text if text is None or len(text) <= EXCERPT else f"{text[:EXCERPT]}…"


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
