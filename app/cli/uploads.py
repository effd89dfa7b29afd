"""Uploads of files. On a terminal, asks which columns hold texts and labels."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from app.cli.client import Client
from app.cli.errors import RequestRejected, UsageError
from app.cli.output import console, strip_control_characters
from app.cli.responses import DatasetJson, Json
from lora_core.specs.data import SUFFIXES, split_sheet

MAX_EXAMPLE_CHARS = 60  # of the cells shown for a column

ColumnNames = dict[str, str]  # text_column, label_column


def upload(client: Client, file: Path, **fields: str | None) -> DatasetJson:
    """Upload a file. If it lacks the named columns, ask for them and upload it again.

    Raises the errors of `Client.upload_dataset`.
    """
    try:
        return client.upload_dataset(file, **fields)
    except RequestRejected as error:
        if error.code != "missing_column" or not can_prompt():
            raise
    labels = fields.get("purpose") != "predict"
    return client.upload_dataset(
        file, **{**fields, **prompt_columns(file, fields.get("sheet"), labels=labels)}
    )


def upload_sources(client: Client, body: Json) -> None:
    """Upload the files that a spec names as its data, and replace them with the datasets.

    Raises the errors of `upload`.
    """
    data = body.get("data")
    source = data.get("source") if isinstance(data, dict) else None
    if not isinstance(data, dict) or source is None:
        return
    column_fields = {
        f"{role}_column": data.get(f"{role}_column") for role in ("text", "label", "split")
    }

    def upload_if_file(source_item: str) -> str:
        file, sheet = split_sheet(source_item)
        if not Path(file).is_file():
            return source_item
        dataset = upload(client, Path(file), sheet=sheet, **column_fields)
        console(stderr=True).print(
            strip_control_characters(f"Uploaded {file} as {dataset['ref']}."), soft_wrap=True
        )
        return dataset["ref"]

    if isinstance(source, dict):
        data["source"] = {split: upload_if_file(each) for split, each in source.items()}
    else:
        data["source"] = upload_if_file(source)


def prompt_for_missing_columns(body: Json) -> None:
    """Ask for the columns that a spec's local file lacks. Used for training without a service."""
    from lora_core.data.columns import inspect_columns

    data = body.get("data")
    source = data.get("source") if isinstance(data, dict) else None
    if not isinstance(data, dict) or not isinstance(source, str) or not can_prompt():
        return
    file, sheet = split_sheet(source)
    if Path(file).is_file():
        expected = {data.get("text_column", "text"), data.get("label_column", "label")}
        if not expected <= set(inspect_columns(Path(file), sheet).columns):
            data |= prompt_columns(Path(file), sheet, labels=True)


def can_prompt() -> bool:
    """Return whether input and output are a terminal."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def prompt_columns(file: Path, sheet: str | None, *, labels: bool) -> ColumnNames:
    """Show the columns of a file with example cells, and ask which hold texts and labels."""
    from lora_core.data.columns import inspect_columns

    inspection = inspect_columns(file, sheet)
    stderr = console(stderr=True)
    stderr.print(strip_control_characters(f"{file.name} has these columns:"), soft_wrap=True)
    for number, (name, *cells) in enumerate(
        zip(inspection.columns, *inspection.rows, strict=True), start=1
    ):
        example = strip_control_characters(
            " | ".join(dict.fromkeys(cell for cell in cells if cell.strip()))
        )
        if len(example) > MAX_EXAMPLE_CHARS:
            example = f"{example[: MAX_EXAMPLE_CHARS - 1]}…"
        stderr.print(f"{number:>3}  {strip_control_characters(name)}: {example}", soft_wrap=True)
    answers = {"text_column": _prompt_column("text", inspection.columns, inspection.text_column)}
    if labels:
        answers["label_column"] = _prompt_column(
            "label", inspection.columns, inspection.label_column
        )
    return answers


def _prompt_column(role: str, columns: tuple[str, ...], guess: str | None) -> str:
    """Ask for a column by name or number. Raises `UsageError` at the end of the input."""
    default = "" if guess is None else f" [{strip_control_characters(guess)}]"
    while True:
        sys.stderr.write(f"{role.capitalize()} column{default}: ")  # standard output may be JSON
        sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            raise UsageError(f"no {role} column was given", "missing_column")
        reply = line.strip() or guess
        if reply in columns:
            return reply
        if reply is not None and reply.isdecimal() and 0 < int(reply) <= len(columns):
            return columns[int(reply) - 1]
        sys.stderr.write("No such column. Enter its name or number.\n")


# Files with one text per line

STDIN = Path("-")


def is_text_file(file: Path) -> bool:
    """Return whether a file has one text per line: standard input, or no table suffix."""
    return file.suffix.lower() not in SUFFIXES


def read_lines(file: Path) -> list[str]:
    """Return the lines that are not empty. Raises `UsageError`."""
    try:
        text = sys.stdin.read() if file == STDIN else file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is not UTF-8: {error}", "wrong_encoding") from error
    return [line for line in text.splitlines() if line.strip()]


@contextmanager
def converted_to_table(file: Path) -> Iterator[Path]:
    """Yield a temporary table with a row for each line. Raises `UsageError`."""
    texts = read_lines(file)
    if not texts:
        raise UsageError(f"{file} contains no text", "no_text")
    with TemporaryDirectory(prefix="loraworks-") as folder:
        table = Path(folder, "stdin.jsonl" if file == STDIN else f"{file.stem}.jsonl")
        rows = (json.dumps({"text": text}) + "\n" for text in texts)
        table.write_text("".join(rows), encoding="utf-8")
        yield table
