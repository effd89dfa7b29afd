"""`loraworks train`: submit a job, or run it here without a service."""

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from app.cli.client import Client
from app.cli.column_prompt import settle, upload_sources
from app.cli.errors import Misuse
from app.cli.local import train_here
from app.cli.options import AsJson, connected, supplied
from app.cli.output import as_json as print_json
from app.cli.output import duration, facts, say
from app.cli.responses import Json, Plan
from app.cli.spec_flags import described
from app.cli.watch import submitted
from lora_core.specs.data import divided

JOB = "Job"
File = Annotated[
    str | None,
    typer.Argument(
        metavar="FILE",
        help="Texts with labels: CSV, TSV, .xlsx, JSONL or Parquet; the same as --data FILE.",
    ),
]
RegisterAs = Annotated[
    str | None,
    typer.Option("--register-as", help="Model that gets the result.", rich_help_panel=JOB),
]
Name = Annotated[str | None, typer.Option("--name", help="Name of the job.", rich_help_panel=JOB)]
Tags = Annotated[
    list[str] | None,
    typer.Option("--tag", metavar="TAG", help="Tag of the job; repeatable.", rich_help_panel=JOB),
]
Notes = Annotated[
    str | None, typer.Option("--notes", help="Notes about the job.", rich_help_panel=JOB)
]
Priority = Annotated[
    int | None,
    typer.Option("--priority", help="-100 to 100, higher goes first.", rich_help_panel=JOB),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Check and estimate, submit nothing.", rich_help_panel=JOB),
]
Wait = Annotated[
    bool, typer.Option("--wait", help="Wait for the end in silence.", rich_help_panel=JOB)
]
Watch = Annotated[
    bool, typer.Option("--watch", help="Follow live to the end.", rich_help_panel=JOB)
]
Local = Annotated[
    bool,
    typer.Option("--local", help="Train here, without a service.", rich_help_panel="Local"),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", help="New folder for the result.", rich_help_panel="Local"),
]


@connected
@supplied("body", described)
def train(  # noqa: PLR0913 - one parameter per option
    client: Client,
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
    """Train a classifier: submit a job to the service, which gets the file first.

    Without a method it cross-validates several and trains the best one on all texts.
    """
    if file is not None:
        _name_data(body, file)
    about: Json = {"name": name, "tags": tags, "notes": notes}
    about |= {"register_as": register_as, "priority": priority}
    given = {field: value for field, value in about.items() if value is not None}
    if local:
        if given or dry_run or out is None:
            raise Misuse(
                "--local needs --out DIR and takes no --name, --tag, --notes, --register-as, "
                "--priority, --dry-run",
                "wrong_usage",
            )
        settle(body)
        train_here(body, out, as_json=as_json)
        return
    if out is not None:
        raise Misuse("--out goes with --local; see also `loraworks jobs download`", "wrong_usage")
    body |= given
    if dry_run:
        _refuse_files(body)
        plan = client.plan(body)
        print_json(plan) if as_json else _print_plan(plan)
        return
    upload_sources(client, body)
    submitted(client, client.submit(body), live=watch, wait=wait, as_json=as_json)


def _name_data(body: Json, file: str) -> None:
    data = body.setdefault("data", {})
    if not isinstance(data, dict) or "source" in data:
        raise Misuse("give either FILE or --data", "wrong_usage")
    data["source"] = file


def _refuse_files(body: Json) -> None:
    """A dry run keeps nothing, so it does not upload them."""
    data = body.get("data")
    source = data.get("source") if isinstance(data, dict) else None
    for one in source.values() if isinstance(source, dict) else [source]:
        if isinstance(one, str) and Path(divided(one)[0]).is_file():
            raise Misuse(
                f"{one} is a file of this machine; for a dry run upload it first with `loraworks "
                f"datasets upload {shlex.quote(divided(one)[0])}` and give the name",
                "file_not_uploaded",
            )


def _print_plan(plan: Plan) -> None:
    facts(
        [
            ("trainable parameters", plan["parameters"]["trainable"]),
            ("total parameters", plan["parameters"]["total"]),
            ("estimated time", duration(plan["estimated_seconds"])),
            ("place in the queue", plan["queue_position"]),
        ]
    )
    say(json.dumps(plan["spec"]))
