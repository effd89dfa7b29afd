"""A prediction run as the command line sees it: submitted, followed, its results downloaded."""

import time
from pathlib import Path

from app.cli import column_prompt, text_files
from app.cli.client import Client
from app.cli.download import check_new, keep
from app.cli.errors import Misuse, RunFailed
from app.cli.output import as_json as print_json
from app.cli.output import facts, moment, reason, say, warn
from app.cli.polling import looks
from app.cli.responses import Prediction
from app.cli.watch import Progress, open_display

LOOK_SECONDS = 0.5
FORMATS = {".csv": "csv", ".jsonl": "jsonl"}


def check_out(out: Path) -> None:
    """Before anything is sent. Raises `Misuse`."""
    if out.suffix.lower() not in FORMATS:
        raise Misuse(f"--out must end in {' or '.join(FORMATS)}: {out}", "out_format")
    check_new(out)


def answer_file(  # noqa: PLR0913 - what a user may say about it
    client: Client,
    out: Path,
    *,
    file: Path | None,
    resume: str | None,
    text_column: str | None,
    sheet: str | None,
    model: str | None,
    as_json: bool,
) -> None:
    """Queue a run over `file`, or come back to `resume`; follow it and write the results to `out`.

    Raises `Misuse`, `RunFailed`, `Refused`, `Unreachable`.
    """
    check_out(out)
    if resume is not None:
        if file or text_column or sheet or model:
            raise Misuse("--resume names a run that has its file and model", "wrong_options")
        run = client.prediction(resume)
    elif file is not None and (file.is_file() or file == text_files.STDIN):
        run = _submit(client, file, text_column=text_column, sheet=sheet, model=model)
    else:
        raise Misuse(f"there is no file {file}" if file else "no --file", "no_file")
    ended = _follow(client, run, out=out, quiet=as_json)
    download(client, ended["id"], out)
    if as_json:
        print_json({**ended, "out": str(out)})
        return
    print_run(ended)
    say(f"The results are in {out}.")


def _submit(
    client: Client, file: Path, *, text_column: str | None, sheet: str | None, model: str | None
) -> Prediction:
    if text_files.is_lines(file):
        if text_column or sheet:
            raise Misuse(
                "a file of lines has no columns and no sheets, so no --text-column and no --sheet",
                "wrong_options",
            )
        with text_files.as_table(file) as table:
            dataset = client.upload(table, purpose="predict")
    else:
        dataset = column_prompt.upload(
            client, file, purpose="predict", text_column=text_column, sheet=sheet
        )
    chosen = {"model": model} if model else {}
    return client.submit_prediction({"dataset": dataset["ref"], **chosen})


def _follow(client: Client, run: Prediction, *, out: Path, quiet: bool) -> Prediction:
    """Until it succeeded. Ctrl-C says how to come back."""
    try:
        ended = _observe(client, run, quiet=quiet)
    except KeyboardInterrupt:
        run_id = run["id"]
        warn(
            f"The run goes on: `loraworks predict --resume {run_id} --out {out}` comes back to it, "
            f"`loraworks predictions cancel {run_id}` stops it."
        )
        raise
    if ended["state"] != "succeeded":
        raise _failure(ended)
    return ended


def download(client: Client, run_id: str, out: Path) -> None:
    """The results; the file is there only when it is complete. Raises `Refused`, `Unreachable`."""
    with client.results(run_id, FORMATS[out.suffix.lower()]) as pieces:
        keep(pieces, out)


def print_run(run: Prediction) -> None:
    """What there is to know of it."""
    error, summary = run["error"], run["summary"] or {}
    labels = summary.get("predicted", {})
    facts(
        [
            ("run", run["id"]),
            ("name", run["name"]),
            ("state", run["state"]),
            ("data set", run["dataset"]),
            ("model", run["model"]),
            ("rows", f"{run['rows_done']}/{run['rows']}"),
            ("place in the queue", run["queue_position"]),
            ("waits, because", reason(run["waiting"])),
            ("created", moment(run["created_at"])),
            ("started", run["started_at"] and moment(run["started_at"])),
            ("finished", run["finished_at"] and moment(run["finished_at"])),
            ("predicted", ", ".join(f"{each} {n:,}" for each, n in labels.items()) or None),
            ("texts cut", summary.get("cut")),
            ("error", reason(error)),
        ]
    )


def _observe(client: Client, run: Prediction, *, quiet: bool) -> Prediction:
    title = f"{run['dataset']} by {run['model']}"
    progress = Progress(title=title, total=run["rows"], unit="row")
    run_id = run["id"]
    with open_display(quiet=quiet) as display:
        for run in looks(lambda: client.prediction(run_id), every=LOOK_SECONDS):
            progress.state, progress.queue_position = run["state"], run["queue_position"]
            if run["rows_done"] != progress.step:
                progress.reach(run["rows_done"], at=time.time())
            display.update(progress)
            if run["state"] not in ("queued", "running"):
                display.update(progress, f"{title}: {run['state']}")
                break
    return run


def _failure(run: Prediction) -> RunFailed:
    if error := run["error"]:
        return RunFailed(f"prediction run {run['id']} failed: {error['message']}", error["code"])
    return RunFailed(f"prediction run {run['id']} was {run['state']}", f"run_{run['state']}")
