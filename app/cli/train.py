"""`loraworks train`: submits a job, or trains locally without a service."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.errors import UsageError
from app.cli.files import (
    prompt_for_missing_columns,
    reject_local_files,
    upload_and_replace_spec_sources,
)
from app.cli.local_subprocess import train_locally
from app.cli.options import AsJson, inject_command_parameter, with_client
from app.cli.output import Json, format_duration, print_fields, print_json, print_line
from app.cli.spec_options import spec_from_options
from app.cli.watch import report_or_watch

if TYPE_CHECKING:
    from app.cli.client import Client
    from app.jobs.schemas import JobPlan


JOB_PANEL = "Job"
File = Annotated[
    str | None,
    typer.Argument(
        metavar="FILE",
        help="File with texts and labels: CSV, TSV, .xlsx, JSONL, JSON or Parquet. Same as "
        "--data FILE.",
    ),
]
RegisterAs = Annotated[
    str | None,
    typer.Option(
        "--register-as",
        help="Register the result as a version of this model.",
        rich_help_panel=JOB_PANEL,
    ),
]
Name = Annotated[
    str | None, typer.Option("--name", help="Name of the job.", rich_help_panel=JOB_PANEL)
]
Tags = Annotated[
    list[str] | None,
    typer.Option(
        "--tag", metavar="TAG", help="Tag of the job (repeatable).", rich_help_panel=JOB_PANEL
    ),
]
Notes = Annotated[
    str | None, typer.Option("--notes", help="Notes about the job.", rich_help_panel=JOB_PANEL)
]
Priority = Annotated[
    int | None,
    typer.Option(
        "--priority", help="Priority, -100 to 100; higher runs first.", rich_help_panel=JOB_PANEL
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Validate and estimate without submitting.", rich_help_panel=JOB_PANEL
    ),
]
Wait = Annotated[
    bool, typer.Option("--wait", help="Wait for the end without output.", rich_help_panel=JOB_PANEL)
]
Watch = Annotated[
    bool, typer.Option("--watch", help="Follow live until the end.", rich_help_panel=JOB_PANEL)
]
Local = Annotated[
    bool,
    typer.Option("--local", help="Train here, without a service.", rich_help_panel="Local"),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", help="New folder for the result.", rich_help_panel="Local"),
]


@with_client
@inject_command_parameter("body", spec_from_options)
def train(  # noqa: PLR0913 - one parameter per option
    client: "Client",
    body: Json,
    file: File = None,
    name: Name = None,
    tags: Tags = None,
    notes: Notes = None,
    register_as: RegisterAs = None,
    priority: Priority = None,
    dry_run: DryRun = False,
    wait: Wait = False,
    watch: Watch = False,
    local: Local = False,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Train a classifier: upload the file and submit a job to the service.

    Without a method, it cross-validates several and trains the best one on all texts.
    """
    if file is not None:
        _set_data_source(body, file)
    job_fields: Json = {"name": name, "tags": tags, "notes": notes}
    job_fields |= {"register_as": register_as, "priority": priority}
    given = {field: value for field, value in job_fields.items() if value is not None}
    if local:
        if given or dry_run or wait or watch or out is None:
            raise UsageError(
                "--local needs --out DIR and takes no --name, --tag, --notes, --register-as, "
                "--priority, --dry-run, --wait, --watch",
                "wrong_usage",
            )
        prompt_for_missing_columns(body)
        train_locally(body, out, as_json=as_json)
        return
    if out is not None:
        raise UsageError(
            "--out needs --local; to download a model use `loraworks jobs download`", "wrong_usage"
        )
    body |= given
    if dry_run:
        reject_local_files(body)
        plan = client.plan_job(body)
        print_json(plan) if as_json else _print_plan(plan)
        return
    upload_and_replace_spec_sources(client, body)
    report_or_watch(client, client.create_job(body), live=watch, wait=wait, as_json=as_json)


def _set_data_source(body: Json, file: str) -> None:
    data = body.setdefault("data", {})
    if not isinstance(data, dict) or "source" in data:
        raise UsageError("give either FILE or --data", "wrong_usage")
    data["source"] = file


def _print_plan(plan: "JobPlan") -> None:
    compared, seconds = plan.cross_validation, format_duration(plan.estimated_seconds)
    print_fields(
        [
            ("trainable parameters", plan.parameters.trainable),
            ("total parameters", plan.parameters.total),
            ("candidates", compared and compared.candidates),
            ("fits", compared and compared.fits),
            ("estimated time", f"at most about {seconds}" if compared else seconds),
            ("queue position", plan.queue_position),
        ]
    )
    print_line(json.dumps(plan.spec))
