"""`loraworks jobs …`"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from app.charts.formatting import format_difference, format_interval, format_setting_value
from app.cli.errors import UsageError
from app.cli.files import saved_model_message, unpack_artifact, write_file_atomically
from app.cli.options import AsJson, JobId, Limit, with_client
from app.cli.output import (
    Json,
    format_duration,
    format_failure_or_wait_reason,
    format_job_state,
    format_metric,
    format_percent,
    format_time,
    print_fields,
    print_json,
    print_line,
    print_table,
    print_training_results,
)
from app.cli.prediction_runs import FORMATS, check_output_file
from app.cli.watch import report_or_watch
from app.jobs.tags import normalize_tag
from app.queue.enums import JobState
from lora_core.specs.method import MethodName
from lora_core.tasks.metric_info import METRICS

if TYPE_CHECKING:
    from app.cli.client import Client
    from app.jobs.schemas import JobListItem, MisclassifiedText, SplitResultView


JobIds = Annotated[list[str], typer.Argument(metavar="JOB", help="1 to 20 job ids.")]
SPLITS = ("validation", "test")
UNPAIRED_REASONS = {
    "other_texts": "different texts or labels",
    "first_has_none": "first job has no predictions",
}


@with_client
def compare_jobs(client: "Client", job: JobIds, as_json: AsJson = False) -> None:
    """Compare jobs: metric, tests against the first job, and settings that differ."""
    comparison = client.compare_jobs(job)
    if as_json:
        print_json(comparison)
        return
    names = [each.job.name or str(each.job.id)[-8:] for each in comparison.jobs]
    for split in [each for each in SPLITS if any(getattr(job, each) for job in comparison.jobs)]:
        print_table(
            [
                "job",
                "state",
                f">{split}",
                ">95% interval",
                ">vs. first",
                ">95% interval",
                ">p",
            ],
            [
                (name, format_job_state(each.job), *_result_cells(getattr(each, split)))
                for name, each in zip(names, comparison.jobs, strict=True)
            ],
            empty="",
        )
        print_line("")
    print_table(
        ["setting", *names],
        [
            (field, *map(format_setting_value, values))
            for field, values in comparison.settings.items()
        ],
        empty="The settings are identical.",
    )


def _result_cells(result: "SplitResultView | None") -> list[str]:
    """Return metric, its interval, the difference, its interval, and p of McNemar's test."""
    if result is None:
        return ["-"] * 5
    metric = result.metric
    name = "" if metric == "accuracy" else f"{METRICS[metric].short} "
    value = f"{name}{format_metric(metric, result.value)}"
    cells = [value, format_interval(metric, result.low, result.high)]
    pair = result.against_first
    if pair is None:
        reason = UNPAIRED_REASONS[result.unpaired] if result.unpaired else "-"
        return [*cells, reason, "-", "-"]
    difference, low, high = (
        format_difference(metric, each) for each in (pair.difference, pair.low, pair.high)
    )
    return [*cells, difference, f"{low} to {high}", "-" if pair.p is None else f"{pair.p:.2g}"]


app = typer.Typer(
    help="List, show, compare, tag, cancel, pause, resume, retry and delete jobs; download their "
    "models."
)

MAX_EXCERPT_CHARS = 200  # of a text in a table

StateFilter = Annotated[JobState | None, typer.Option("--state", help="Only jobs in this state.")]
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
    client: "Client",
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
        ["job", "name", "tags", "method", "state", ">step", ">result", "model", "created"],
        [
            (
                job.id,
                job.name,
                ", ".join(job.tags),
                job.method,
                format_job_state(job),
                f"{job.step}/{job.total_steps or '-'}",
                _format_result(job),
                job.model_version,
                format_time(job.created_at),
            )
            for job in jobs
        ],
        empty="No jobs. Submit one with `loraworks train`.",
    )


def _format_result(job: "JobListItem") -> str | None:
    """Return the metric that the job is compared by, such as `acc 81.2%`."""
    if job.metric is None:
        return None
    name, value = job.metric.name, job.metric.value
    return f"{METRICS[name].short} {format_metric(name, value)}"


@app.command("show")
@with_client
def show_job(client: "Client", job: JobId, as_json: AsJson = False) -> None:
    """Show a job: its state, and its result once finished."""
    found = client.get_job(job)
    if as_json:
        print_json(found)
        return
    print_fields(
        [
            ("job", found.id),
            ("name", found.name),
            ("tags", ", ".join(found.tags) or None),
            ("notes", found.notes),
            ("state", format_job_state(found)),
            ("method", found.method),
            ("base", found.base),
            ("trainable parameters", found.parameters.trainable),
            ("queue position", found.queue_position),
            ("waiting for", format_failure_or_wait_reason(found.waiting)),
            ("estimated time", format_duration(found.estimated_seconds)),
            ("step", f"{found.step}/{found.total_steps or '-'}"),
            ("created", format_time(found.created_at)),
            ("started", format_time(found.started_at)),
            ("finished", format_time(found.finished_at)),
            ("error", format_failure_or_wait_reason(found.error)),
            ("artifact", found.artifact_id),
        ]
    )
    if found.summary:
        print_training_results(found.method, found.summary)


app.command("compare")(compare_jobs)


@app.command("edit")
@with_client
def edit_job_tags_and_notes(
    client: "Client",
    job: JobId,
    add_tag: AddTag = None,
    remove_tag: RemoveTag = None,
    notes: Notes = None,
    as_json: AsJson = False,
) -> None:
    """Edit the tags or notes of a job in any state."""
    changes: Json = {} if notes is None else {"notes": notes}
    if add_tag or remove_tag:
        removed = {normalize_tag(tag) for tag in remove_tag or ()}
        remaining = [tag for tag in client.get_job(job).tags if tag not in removed]
        changes["tags"] = remaining + (add_tag or [])
    if not changes:
        raise UsageError("give --add-tag, --remove-tag or --notes", "wrong_usage")
    found = client.update_job(job, changes)
    if as_json:
        print_json(found)
    else:
        print_fields(
            [
                ("job", found.id),
                ("tags", ", ".join(found.tags) or "-"),
                ("notes", found.notes or "-"),
            ]
        )


@app.command("cancel")
@with_client
def cancel_job(client: "Client", job: JobId, as_json: AsJson = False) -> None:
    """Cancel a job. A running job stops at its next step; a finished job is unchanged."""
    found = client.cancel_job(job)
    if as_json:
        print_json(found)
    elif found.state == "running":
        print_line(f"Stopping job {found.id}.")
    else:
        print_line(f"Job {found.id} is {found.state}.")


@app.command("pause")
@with_client
def pause_job(client: "Client", job: JobId, as_json: AsJson = False) -> None:
    """Pause a job. A running job saves a checkpoint and stops; resume it at any time.

    Methods linear and probe, and auto while it compares methods, save none and start over.
    """
    found = client.pause_job(job)
    if as_json:
        print_json(found)
    elif found.state == "running":
        print_line(f"Pausing job {found.id}.")
    else:
        print_line(f"Job {found.id} is {format_job_state(found)}.")


@app.command("resume")
@with_client
def resume_job(client: "Client", job: JobId, as_json: AsJson = False) -> None:
    """Resume a paused job from its last checkpoint."""
    found = client.resume_job(job)
    if as_json:
        print_json(found)
    else:
        print_line(f"Job {found.id} is {format_job_state(found)}.")


@app.command("retry")
@with_client
def retry_job(
    client: "Client", job: JobId, wait: Wait = False, watch: Watch = False, as_json: AsJson = False
) -> None:
    """Resume a failed or cancelled job from its last checkpoint, as a new job."""
    report_or_watch(client, client.retry_job(job), live=watch, wait=wait, as_json=as_json)


@app.command("delete")
@with_client
def delete_job(client: "Client", job: JobId) -> None:
    """Delete a finished job, its curves, and its files unless a model version needs them."""
    client.delete_job(job)
    print_line(f"Deleted job {job}.")


@app.command("events")
@with_client
def list_job_events(
    client: "Client", job: JobId, limit: Limit = 100, as_json: AsJson = False
) -> None:
    """List the events of a job, oldest first."""
    notes = client.list_job_events(job, limit)
    if as_json:
        print_json(notes)
        return
    print_table(
        ["at", "kind", "message"],
        [(format_time(note.at), note.kind, note.message) for note in notes],
        empty="No events yet.",
    )


@app.command("metrics")
@with_client
def list_metric_points(
    client: "Client",
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
        [(point.split, point.name, point.step, point.value) for point in points],
        empty="No points yet.",
    )


@app.command("misclassified")
@with_client
def list_misclassified(
    client: "Client",
    job: JobId,
    split: HeldOutSplit = "test",
    limit: Limit = 20,
    out: MisclassifiedOut = None,
    as_json: AsJson = False,
) -> None:
    """List the texts that a job misclassified, most confident first."""
    if out is not None:
        check_output_file(out, (".csv", ".jsonl"))
        with client.download_misclassified(job, split, FORMATS[out.suffix.lower()]) as chunks:
            write_file_atomically(chunks, out)
        if as_json:
            print_json({"out": str(out)})
        else:
            print_line(f"Saved the misclassified texts to {out}.")
        return
    misclassified = client.list_misclassified(job, limit, split)
    if as_json:
        print_json(misclassified)
        return
    has_targets = any(each.target for each in misclassified)
    print_table(
        [
            ">row",
            *(["target"] if has_targets else []),
            *("label", "predicted", ">probability", "text"),
        ],
        [
            (
                each.row,
                *([each.target] if has_targets else []),
                each.label,
                each.predicted,
                format_percent(each.score),
                _excerpt(each),
            )
            for each in misclassified
        ],
        empty=f"No misclassified texts in the {split} split.",
    )


def _excerpt(misclassified: "MisclassifiedText") -> str | None:
    text = misclassified.text
    if misclassified.text_pair is not None:
        text = f"{text} / {misclassified.text_pair}"
    return (
        text if text is None or len(text) <= MAX_EXCERPT_CHARS else f"{text[:MAX_EXCERPT_CHARS]}…"
    )


@app.command("download")
@with_client
def download_job_model(
    client: "Client", job: JobId, out: Out = None, as_json: AsJson = False
) -> None:
    """Download the model of a finished job and verify its files."""
    artifact_id = client.get_job(job).artifact_id
    if artifact_id is None:
        raise UsageError(f"job {job} has no model (yet)", "no_artifact")
    directory = out or Path(str(artifact_id))
    with client.download_artifact(artifact_id) as chunks:
        unpack_artifact(chunks, directory)
    if as_json:
        print_json({"directory": str(directory), "artifact_id": artifact_id})
    else:
        print_line(saved_model_message(directory))
