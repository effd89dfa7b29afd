"""`loraworks predictions …`, and the prediction runs of `loraworks predict --out`."""

import time
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from app.charts.formatting import format_number
from app.cli import files
from app.cli.errors import RunFailed, ServiceUnreachableOrFailed, UsageError
from app.cli.files import check_file_creatable, write_file_atomically
from app.cli.options import AsJson, Limit, with_client
from app.cli.output import (
    format_failure_or_wait_reason,
    format_time,
    print_fields,
    print_json,
    print_line,
    print_table,
    print_warning,
)
from app.cli.polling import poll_forever
from app.cli.watch import RunProgress, open_display
from app.queue.enums import JobState

if TYPE_CHECKING:
    from app.cli.client import Client
    from app.predictions.schemas import PredictionRunView, ValueSummary


POLL_SECONDS = 0.5
FORMATS = {".csv": "csv", ".jsonl": "jsonl", ".json": "label-studio"}


def check_output_file(out: Path, suffixes: Collection[str] = FORMATS) -> None:
    """Raise `UsageError` if `--out` cannot be created. Call this before any request."""
    if out.suffix.lower() not in suffixes:
        raise UsageError(f"--out must end in {' or '.join(suffixes)}: {out}", "out_format")
    check_file_creatable(out)


def predict_file(  # noqa: PLR0913 - what a user may say about it
    client: "Client",
    out: Path,
    *,
    file: Path | None,
    resume: str | None,
    text_column: str | None,
    text_pair_column: str | None,
    sheet: str | None,
    model: str | None,
    as_json: bool,
) -> None:
    """Start a run over `file`, or return to `resume`; follow it and write the results to `out`.

    Raises `UsageError`, `RunFailed`, `RequestRejected`, `ServiceUnreachableOrFailed`.
    """
    check_output_file(out)
    if resume is not None:
        if file or text_column or text_pair_column or sheet or model:
            raise UsageError(
                "--resume takes no --file, --model, --text-column, --text-pair-column or --sheet: "
                "the run has its own",
                "wrong_options",
            )
        run = client.get_prediction_run(resume)
    elif file is not None and (file.is_file() or file == files.STDIN):
        columns = {"text_column": text_column, "text_pair_column": text_pair_column}
        run = _submit(client, file, columns=columns, sheet=sheet, model=model)
    else:
        raise UsageError(f"file {file} does not exist" if file else "--file is missing", "no_file")
    finished_run = _follow_and_download(client, run, out=out, quiet=as_json)
    if as_json:
        print_json({**finished_run.model_dump(mode="json"), "out": str(out)})
        return
    print_run(finished_run)
    print_line(f"Saved the results to {out}.")


def _submit(
    client: "Client",
    file: Path,
    *,
    columns: dict[str, str | None],
    sheet: str | None,
    model: str | None,
) -> "PredictionRunView":
    if files.lacks_table_suffix(file):
        if sheet or any(columns.values()):
            raise UsageError(
                "--text-column, --text-pair-column and --sheet do not apply to a file with one "
                "text per line",
                "wrong_options",
            )
        with files.temporary_table_from_lines(file) as table:
            dataset = client.upload_dataset(table, purpose="predict")
    else:
        dataset = files.upload_with_column_prompt(
            client, file, purpose="predict", sheet=sheet, **columns
        )
    model_field = {"model": model} if model else {}
    return client.create_prediction_run({"dataset": dataset.ref, **model_field})


def _follow_and_download(
    client: "Client", run: "PredictionRunView", *, out: Path, quiet: bool
) -> "PredictionRunView":
    """Follow a run until it succeeds, and write its results.

    After Ctrl-C or an outage, print how to return to it.
    """
    try:
        finished_run = _watch(client, run, quiet=quiet)
        if finished_run.state != "succeeded":
            raise _failure_of(finished_run)
        download_results(client, finished_run.id, out)
    except (KeyboardInterrupt, ServiceUnreachableOrFailed):
        run_id = run.id
        print_warning(
            "The run is not lost. Return to it with "
            f"`loraworks predict --resume {run_id} --out {out}`, or stop it with "
            f"`loraworks predictions cancel {run_id}`."
        )
        raise
    return finished_run


def download_results(client: "Client", run_id: str | UUID, out: Path) -> None:
    """Write the results to `out` when complete.

    Raises `RequestRejected`, `ServiceUnreachableOrFailed`.
    """
    with client.download_predictions(run_id, FORMATS[out.suffix.lower()]) as chunks:
        write_file_atomically(chunks, out)


def print_run(run: "PredictionRunView") -> None:
    """Print all fields of a run."""
    summary = run.summary
    labels = summary.predicted.items() if summary else ()
    print_fields(
        [
            ("run", run.id),
            ("name", run.name),
            ("state", run.state),
            ("dataset", run.dataset),
            ("model", run.model),
            ("rows", f"{run.rows_done}/{run.rows}"),
            ("queue position", run.queue_position),
            ("waiting for", format_failure_or_wait_reason(run.waiting)),
            ("created", format_time(run.created_at)),
            ("started", format_time(run.started_at)),
            ("finished", format_time(run.finished_at)),
            ("predicted", ", ".join(f"{each} {n:,}" for each, n in labels) or None),
            ("without labels", summary and summary.unlabeled),
            *(
                (f"without labels of {target}", unlabeled)
                for target, unlabeled in (summary.unlabeled_by_target if summary else {}).items()
            ),
            ("predicted numbers", _describe_values(summary.value) if summary else None),
            *(
                (f"predicted {target}", _describe_values(values))
                for target, values in (summary.values if summary else {}).items()
            ),
            ("truncated texts", summary and summary.cut),
            ("error", format_failure_or_wait_reason(run.error)),
        ]
    )


def _describe_values(values: "ValueSummary | None") -> str | None:
    if values is None:
        return None
    low, high, mean = map(format_number, (values.min, values.max, values.mean))
    return f"{low} to {high}, mean {mean}"


def _watch(client: "Client", run: "PredictionRunView", *, quiet: bool) -> "PredictionRunView":
    title = f"{run.dataset} by {run.model}"
    progress = RunProgress(title=title, total=run.rows, unit="row")
    run_id = run.id
    with open_display(quiet=quiet) as display:
        for run in poll_forever(lambda: client.get_prediction_run(run_id), interval=POLL_SECONDS):
            progress.state, progress.queue_position = run.state, run.queue_position
            if run.rows_done != progress.step:
                progress.set_step(run.rows_done, at=time.time())
            display.update(progress)
            if run.state not in ("queued", "running"):
                display.update(progress, f"{title}: {run.state}")
                break
    return run


def _failure_of(run: "PredictionRunView") -> RunFailed:
    if error := run.error:
        return RunFailed(f"prediction run {run.id} failed: {error.message}", error.code)
    return RunFailed(f"prediction run {run.id} was {run.state}", f"run_{run.state}")


# Commands

app = typer.Typer(help="List, show, cancel and delete prediction runs; download their results.")

StateFilter = Annotated[JobState | None, typer.Option("--state", help="Only runs in this state.")]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="Prediction run id.")]
Out = Annotated[
    Path, typer.Option("--out", help="New .csv, .jsonl or (for Label Studio) .json file.")
]
ConfigOut = Annotated[Path, typer.Option("--out", help="New .xml file.")]


@app.command("list")
@with_client
def list_runs(
    client: "Client", state: StateFilter = None, limit: Limit = 20, as_json: AsJson = False
) -> None:
    """List the newest prediction runs."""
    runs = client.list_prediction_runs(limit, state=state)
    if as_json:
        print_json(runs)
        return
    print_table(
        ["run", "dataset", "model", "state", ">rows", "created"],
        [
            (
                run.id,
                run.dataset,
                run.model,
                run.state,
                f"{run.rows_done}/{run.rows}",
                format_time(run.created_at),
            )
            for run in runs
        ],
        empty="No prediction runs. Start one with `loraworks predict --file FILE --out FILE`.",
    )


@app.command("show")
@with_client
def show_run(client: "Client", run: RunId, as_json: AsJson = False) -> None:
    """Show a prediction run: its state, and its result once finished."""
    found = client.get_prediction_run(run)
    if as_json:
        print_json(found)
    else:
        print_run(found)


@app.command("cancel")
@with_client
def cancel_run(client: "Client", run: RunId, as_json: AsJson = False) -> None:
    """Cancel a prediction run. A finished run is unchanged."""
    found = client.cancel_prediction_run(run)
    if as_json:
        print_json(found)
    elif found.state == "running":
        print_line(f"Stopping prediction run {found.id}.")
    else:
        print_line(f"Prediction run {found.id} is {found.state}.")


@app.command("download")
@with_client
def download(client: "Client", run: RunId, out: Out) -> None:
    """Download the results of a prediction run that succeeded."""
    check_output_file(out)
    download_results(client, run, out)
    print_line(f"Saved the results to {out}.")


@app.command("labeling-config")
@with_client
def download_label_studio_config(client: "Client", run: RunId, out: ConfigOut) -> None:
    """Download the labeling configuration of a Label Studio project for the results."""
    check_file_creatable(out)
    with client.download_labeling_config(run) as chunks:
        write_file_atomically(chunks, out)
    print_line(f"Saved the labeling configuration to {out}.")


@app.command("delete")
@with_client
def delete_run(client: "Client", run: RunId) -> None:
    """Delete a finished prediction run and its results."""
    client.delete_prediction_run(run)
    print_line(f"Deleted prediction run {run}.")
