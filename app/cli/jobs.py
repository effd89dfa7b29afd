"""`loraworks jobs …`"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from app.charts.fields import display_value
from app.cli.client import Client
from app.cli.download import describe_model_folder, unpack_artifact, write_file
from app.cli.errors import UsageError
from app.cli.options import AsJson, JobId, Limit, with_client
from app.cli.output import (
    format_duration,
    format_failure,
    format_percent,
    format_time,
    print_fields,
    print_json,
    print_line,
    print_table,
)
from app.cli.predictions import FORMATS, check_output_file
from app.cli.responses import Json, State
from app.cli.results import print_results
from app.cli.watch import finish_submission
from app.jobs.tags import normalize
from lora_core.specs.method import MethodName

JobIds = Annotated[list[str], typer.Argument(metavar="JOB...", help="1 to 20 job ids.")]
SPLITS = ("validation", "test")
UNPAIRED_REASONS = {
    "other_texts": "different texts",
    "first_has_none": "first job has no predictions",
}


@with_client
def compare(client: Client, job: JobIds, as_json: AsJson = False) -> None:
    """Compare jobs: accuracy, tests against the first job, and settings that differ."""
    comparison = client.compare_jobs(job)
    if as_json:
        print_json(comparison)
        return
    names = [each["job"]["name"] or each["job"]["id"][-8:] for each in comparison["jobs"]]
    for split in [each for each in SPLITS if any(job[each] for job in comparison["jobs"])]:
        print_table(
            [
                "job",
                "state",
                f">{split} acc",
                ">95% interval",
                ">vs. first",
                ">95% interval",
                ">p",
            ],
            [
                (name, each["job"]["state"], *_accuracy_cells(each[split]))
                for name, each in zip(names, comparison["jobs"], strict=True)
            ],
            empty="",
        )
        print_line("")
    print_table(
        ["setting", *names],
        [(field, *map(display_value, values)) for field, values in comparison["settings"].items()],
        empty="The settings are identical.",
    )


def _accuracy_cells(metrics: Json | None) -> list[str]:
    """Return accuracy, its interval, the difference, its interval, and p of McNemar's test."""
    if metrics is None:
        return ["-"] * 5
    accuracy = [
        format_percent(metrics["accuracy"]),
        f"{100 * metrics['low']:.1f} to {100 * metrics['high']:.1f}",
    ]
    difference_test = metrics["against_first"]
    if difference_test is None:
        return [*accuracy, UNPAIRED_REASONS.get(metrics["unpaired"], "-"), "-", "-"]
    difference, low, high = (100 * difference_test[name] for name in ("difference", "low", "high"))
    return [
        *accuracy,
        f"{difference:+.1f}",
        f"{low:+.1f} to {high:+.1f}",
        f"{difference_test['p']:.2g}",
    ]


app = typer.Typer(
    help="List, show, compare, tag, cancel, retry and delete jobs; download their models."
)

MAX_EXCERPT_CHARS = 200  # of a text in a table

StateFilter = Annotated[State | None, typer.Option("--state", help="Only jobs in this state.")]
MethodFilter = Annotated[
    MethodName | None, typer.Option("--method", help="Only jobs of this method.")
]
SplitFilter = Annotated[
    str | None, typer.Option("--split", help="Only this split: train, validation, test.")
]
MetricFilter = Annotated[
    str | None, typer.Option("--name", help="Only this metric, such as loss or accuracy.")
]
TagFilter = Annotated[str | None, typer.Option("--tag", help="Only jobs with this tag.")]
AddTag = Annotated[
    list[str] | None, typer.Option("--add-tag", metavar="TAG", help="Tag to add (repeatable).")
]
RemoveTag = Annotated[
    list[str] | None,
    typer.Option("--remove-tag", metavar="TAG", help="Tag to remove (repeatable)."),
]
Notes = Annotated[str | None, typer.Option("--notes", help="Replace the notes; '' removes them.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for the end without output.")]
Watch = Annotated[bool, typer.Option("--watch", help="Follow live until the end.")]
HeldOutSplit = Annotated[
    Literal["validation", "test"], typer.Option("--split", help="Split: validation or test.")
]
MisclassifiedOut = Annotated[
    Path | None,
    typer.Option("--out", help="Write all of them to a new .csv or .jsonl file."),
]
Out = Annotated[Path | None, typer.Option("--out", help="New folder. Default: the artifact id.")]


@app.command("list")
@with_client
def list_jobs(
    client: Client,
    state: StateFilter = None,
    method: MethodFilter = None,
    tag: TagFilter = None,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """List the newest jobs."""
    jobs = client.list_jobs(limit, state=state, method=method, tag=tag)
    if as_json:
        print_json(jobs)
        return
    print_table(
        ["job", "name", "tags", "method", "state", ">step", ">accuracy", "model", "created"],
        [
            (
                job["id"],
                job["name"],
                ", ".join(job["tags"]),
                job["method"],
                job["state"],
                f"{job['step']}/{job['total_steps'] or '-'}",
                format_percent(job["accuracy"]),
                job["model_version"],
                format_time(job["created_at"]),
            )
            for job in jobs
        ],
        empty="No jobs. Submit one with `loraworks train`.",
    )


@app.command("show")
@with_client
def show_job(client: Client, job: JobId, as_json: AsJson = False) -> None:
    """Show a job: its state, and its result once finished."""
    job_json = client.get_job(job)
    if as_json:
        print_json(job_json)
        return
    parameters, error = job_json["parameters"], job_json["error"]
    print_fields(
        [
            ("job", job_json["id"]),
            ("name", job_json["name"]),
            ("tags", ", ".join(job_json["tags"]) or None),
            ("notes", job_json["notes"]),
            ("state", job_json["state"]),
            ("method", job_json["method"]),
            ("base", job_json["base"]),
            ("trainable parameters", parameters and parameters["trainable"]),
            ("queue position", job_json["queue_position"]),
            ("waiting for", format_failure(job_json["waiting"])),
            (
                "estimated time",
                job_json["estimated_seconds"] and format_duration(job_json["estimated_seconds"]),
            ),
            ("step", f"{job_json['step']}/{job_json['total_steps'] or '-'}"),
            ("created", format_time(job_json["created_at"])),
            ("started", job_json["started_at"] and format_time(job_json["started_at"])),
            ("finished", job_json["finished_at"] and format_time(job_json["finished_at"])),
            ("error", format_failure(error)),
            ("artifact", job_json["artifact_id"]),
        ]
    )
    if job_json["summary"]:
        print_results(job_json["method"], job_json["summary"])


app.command("compare")(compare)


@app.command("edit")
@with_client
def edit_job(
    client: Client,
    job: JobId,
    add_tag: AddTag = None,
    remove_tag: RemoveTag = None,
    notes: Notes = None,
    as_json: AsJson = False,
) -> None:
    """Edit the tags or notes of a job in any state."""
    changes: Json = {} if notes is None else {"notes": notes}
    if add_tag or remove_tag:
        removed = {normalize(tag) for tag in remove_tag or ()}
        remaining = [tag for tag in client.get_job(job)["tags"] if tag not in removed]
        changes["tags"] = remaining + (add_tag or [])
    if not changes:
        raise UsageError("give --add-tag, --remove-tag or --notes", "wrong_usage")
    job_json = client.update_job(job, changes)
    if as_json:
        print_json(job_json)
    else:
        print_fields(
            [
                ("job", job_json["id"]),
                ("tags", ", ".join(job_json["tags"]) or "-"),
                ("notes", job_json["notes"] or "-"),
            ]
        )


@app.command("cancel")
@with_client
def cancel_job(client: Client, job: JobId, as_json: AsJson = False) -> None:
    """Cancel a job. A running job stops at its next step; a finished job is unchanged."""
    job_json = client.cancel_job(job)
    if as_json:
        print_json(job_json)
    elif job_json["state"] == "running":
        print_line(f"Stopping job {job_json['id']}.")
    else:
        print_line(f"Job {job_json['id']} is {job_json['state']}.")


@app.command("retry")
@with_client
def retry_job(
    client: Client, job: JobId, wait: Wait = False, watch: Watch = False, as_json: AsJson = False
) -> None:
    """Resume a failed or cancelled job from its last checkpoint, as a new job."""
    finish_submission(client, client.retry_job(job), live=watch, wait=wait, as_json=as_json)


@app.command("delete")
@with_client
def delete_job(client: Client, job: JobId) -> None:
    """Delete a finished job, its curves, and its files unless a model version needs them."""
    client.delete_job(job)
    print_line(f"Deleted job {job}.")


@app.command("events")
@with_client
def events(client: Client, job: JobId, limit: Limit = 100, as_json: AsJson = False) -> None:
    """List the events of a job, oldest first."""
    notes = client.list_job_events(job, limit)
    if as_json:
        print_json(notes)
        return
    print_table(
        ["at", "kind", "message"],
        [(format_time(note["at"]), note["kind"], note["message"]) for note in notes],
        empty="No events yet.",
    )


@app.command("metrics")
@with_client
def metrics(
    client: Client,
    job: JobId,
    split: SplitFilter = None,
    name: MetricFilter = None,
    limit: Limit = 10_000,
    as_json: AsJson = False,
) -> None:
    """List the points of a job's curves."""
    points = client.list_metric_points(job, limit, split=split, name=name)
    if as_json:
        print_json(points)
        return
    print_table(
        ["split", "name", ">step", ">value"],
        [(point["split"], point["name"], point["step"], point["value"]) for point in points],
        empty="No points yet.",
    )


@app.command("mistakes")
@with_client
def list_misclassified(
    client: Client,
    job: JobId,
    split: HeldOutSplit = "test",
    limit: Limit = 20,
    out: MisclassifiedOut = None,
    as_json: AsJson = False,
) -> None:
    """List the texts that a job misclassified, most confident first."""
    if out is not None:
        check_output_file(out)
        with client.download_misclassified(job, split, FORMATS[out.suffix.lower()]) as chunks:
            write_file(chunks, out)
        print_line(f"Saved the misclassified texts to {out}.")
        return
    misclassified = client.list_misclassified(job, limit, split)
    if as_json:
        print_json(misclassified)
        return
    print_table(
        [">row", "label", "predicted", ">probability", "text"],
        [
            (
                each["row"],
                each["label"],
                each["predicted"],
                format_percent(each["score"]),
                _excerpt(each),
            )
            for each in misclassified
        ],
        empty=f"No misclassified texts in the {split} split.",
    )


def _excerpt(misclassified: Json) -> str | None:
    text: str | None = misclassified["text"]
    return (
        text if text is None or len(text) <= MAX_EXCERPT_CHARS else f"{text[:MAX_EXCERPT_CHARS]}…"
    )


@app.command("download")
@with_client
def download(client: Client, job: JobId, out: Out = None, as_json: AsJson = False) -> None:
    """Download the model of a finished job and verify its files."""
    artifact_id = client.get_job(job)["artifact_id"]
    if artifact_id is None:
        raise UsageError(f"job {job} has no model (yet)", "no_artifact")
    directory = out or Path(artifact_id)
    with client.download_artifact(artifact_id) as chunks:
        unpack_artifact(chunks, directory)
    if as_json:
        print_json({"directory": str(directory), "artifact_id": artifact_id})
    else:
        print_line(describe_model_folder(directory))
