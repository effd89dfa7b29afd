"""Files that commands upload and download. On a terminal, asks for the text and label columns."""

import json
import shlex
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from app.cli.errors import RequestRejected, ServiceUnreachableOrFailed, UsageError
from app.cli.output import Json, console, print_serious_findings, strip_control_characters
from app.cli.text_files import read_numbered_lines
from lora_core import manifest
from lora_core.errors.artifact import ArtifactCorrupt
from lora_core.specs.data import SUFFIXES, parse_sheet_suffix

if TYPE_CHECKING:
    from app.cli.client import Client
    from app.datasets.schemas import DatasetView


MAX_EXAMPLE_CHARS = 60  # of the cells shown for a column

ColumnNames = dict[str, str]  # text_column, text_pair_column, label_column


def upload_with_column_prompt(client: "Client", file: Path, **fields: str | None) -> "DatasetView":
    """Upload a file. If it lacks the named columns, ask for them and upload it again.

    Raises the errors of `Client.upload_dataset`.
    """
    from lora_core.data.file_inspection import read_file_layout
    from lora_core.data.rows import find_column

    try:
        return client.upload_dataset(file, **fields)
    except RequestRejected as error:
        of_labels = fields.get("label_columns") or fields.get("targets")
        if error.code != "missing_column" or of_labels or not can_prompt():
            raise
        available = read_file_layout(file, fields.get("sheet")).columns
        split = fields.get("split_column")  # it is not asked for
        if split is not None and not find_column(split, available):
            raise
    labels = fields.get("purpose") != "predict"
    answers = prompt_columns(file, fields.get("sheet"), labels=labels)
    return client.upload_dataset(file, **{**fields, "text_pair_column": None, **answers})


def upload_and_replace_spec_sources(client: "Client", body: Json) -> None:
    """Upload the files that a spec names as its data, and replace them with the datasets.

    Errors and warnings of the data checks are printed.

    Raises the errors of `upload_with_column_prompt`.
    """
    data = body.get("data")
    source = data.get("source") if isinstance(data, dict) else None
    if not isinstance(data, dict) or source is None:
        return
    column_fields = {
        f"{role}_column": data.get(f"{role}_column")
        for role in ("text", "text_pair", "label", "split")
    }

    task, columns = body.get("task"), data.get("label_columns")
    if isinstance(task, dict):
        column_fields["task"] = task.get("type")
        column_fields["ordered"] = "true" if task.get("ordered") else None
        if targets := task.get("targets"):
            column_fields["task"] = "several_targets"
            column_fields["targets"] = targets if isinstance(targets, str) else json.dumps(targets)
    column_fields["label_separator"] = data.get("label_separator")
    column_fields["label_columns"] = columns and ",".join(map(str, columns))
    one_label_column = not (columns or column_fields.get("targets"))
    asked_label_columns = ["label_column"] if one_label_column else []

    def upload_if_file(source_item: str) -> str:
        file, sheet = parse_sheet_suffix(source_item)
        if not Path(file).is_file():
            return source_item
        dataset = upload_with_column_prompt(client, Path(file), sheet=sheet, **column_fields)
        console(stderr=True).print(
            strip_control_characters(f"Uploaded {file} as {dataset.ref}."), soft_wrap=True
        )
        for name in ("text_column", "text_pair_column", *asked_label_columns):
            if name in data:  # the file may lack it, and the answer was another one
                data[name] = getattr(dataset, name)
        if dataset.diagnosis is not None:
            check = ("loraworks", "datasets", "check", dataset.ref)
            print_serious_findings(dataset.diagnosis.findings, check)
        return dataset.ref

    if isinstance(source, dict):
        data["source"] = {split: upload_if_file(each) for split, each in source.items()}
    else:
        data["source"] = upload_if_file(source)


def reject_local_files(body: Json) -> None:
    """Raise `UsageError` for local files: a dry run stores nothing, so it uploads nothing."""
    data = body.get("data")
    source = data.get("source") if isinstance(data, dict) else None
    for each in source.values() if isinstance(source, dict) else [source]:
        if isinstance(each, str) and Path(parse_sheet_suffix(each)[0]).is_file():
            raise UsageError(
                f"a dry run uploads no files; upload {each} with `loraworks datasets upload "
                f"{shlex.quote(parse_sheet_suffix(each)[0])}` and pass the name of the dataset",
                "file_not_uploaded",
            )


def prompt_for_missing_columns(body: Json) -> None:
    """Ask for the columns that a spec's local file lacks. Used for training without a service."""
    from lora_core.data.file_inspection import read_file_layout
    from lora_core.data.rows import find_column

    data = body.get("data")
    source = data.get("source") if isinstance(data, dict) else None
    if not isinstance(data, dict) or not isinstance(source, str) or not can_prompt():
        return
    file, sheet = parse_sheet_suffix(source)
    task = body.get("task")
    several = data.get("label_columns") or (isinstance(task, dict) and task.get("targets"))
    if Path(file).is_file() and not several:  # one label column is asked for
        expected = {data.get("text_column", "text"), data.get("label_column", "label")}
        if pair := data.get("text_pair_column"):
            expected.add(pair)
        available = read_file_layout(Path(file), sheet).columns
        if not all(find_column(column, available) for column in expected):
            data.pop("text_pair_column", None)
            data |= prompt_columns(Path(file), sheet, labels=True)


def can_prompt() -> bool:
    """Return whether input and output are a terminal."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def prompt_columns(file: Path, sheet: str | None, *, labels: bool) -> ColumnNames:
    """Show the columns of a file with example cells, and ask which hold texts and labels.

    The second text of a pair is optional: an empty line, or the end of the input, means none.
    """
    from lora_core.data.file_inspection import read_file_layout

    inspection = read_file_layout(file, sheet)
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
    columns = inspection.columns
    answers = {"text_column": _prompt_column("text", columns, inspection.text_column)}
    if labels:
        answers["label_column"] = _prompt_column("label", columns, inspection.label_column)
    if pair := _prompt_column("second text", columns, None, optional=True):
        answers["text_pair_column"] = pair
    return answers


def _prompt_column(
    role: str, columns: tuple[str, ...], guess: str | None, *, optional: bool = False
) -> str:
    """Ask for a column by name or number; "": none.

    Raises `UsageError` at the end of the input, unless the column is optional.
    """
    default = "" if guess is None else f" [{strip_control_characters(guess)}]"
    default = " [none]" if optional else default
    while True:
        sys.stderr.write(f"{role.capitalize()} column{default}: ")  # standard output may be JSON
        sys.stderr.flush()
        line = sys.stdin.readline()
        if optional and not line.strip():
            return ""
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


def lacks_table_suffix(file: Path) -> bool:
    """Return whether a file has one text per line: standard input, or no table suffix."""
    return file.suffix.lower() not in SUFFIXES


@contextmanager
def temporary_table_from_lines(file: Path) -> Iterator[Path]:
    """Yield a temporary table with a row for each line. Raises `UsageError`."""
    texts = [line for _, line in read_numbered_lines(file)]
    if not texts:
        raise UsageError(f"{file} contains no text", "no_text")
    with TemporaryDirectory(prefix="loraworks-") as folder:
        table = Path(folder, "stdin.jsonl" if file == STDIN else f"{file.stem}.jsonl")
        rows = (json.dumps({"text": text}) + "\n" for text in texts)
        table.write_text("".join(rows), encoding="utf-8")
        yield table


# -- Downloads, which appear only when they are complete ------------------------------------------


def check_file_creatable(file: Path) -> None:
    """Raise `UsageError` if the file cannot be created. Call this before any request."""
    if file.exists():
        raise UsageError(f"{file} already exists; choose another file with --out", "output_exists")
    if not file.parent.is_dir():
        raise UsageError(f"folder {file.parent} does not exist", "no_folder")


def write_file_atomically(chunks: Iterator[bytes], file: Path) -> None:
    """Write chunks to a temporary file, and rename it when it is complete."""
    temporary = file.with_name(f".{file.name}.unfinished")
    try:
        with temporary.open("wb") as opened:
            opened.writelines(chunks)
        temporary.rename(file)
    finally:
        temporary.unlink(missing_ok=True)


def save_verified_archive(chunks: Iterator[bytes], file: Path) -> None:
    """Write the archive once it is complete and verified.

    Raises `UsageError`, `ServiceUnreachableOrFailed`.
    """
    if file.exists():
        raise UsageError(f"{file} already exists; choose another file with --out", "output_exists")
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".loraworks-", dir=file.parent) as work:
        archive, _ = _receive_archive(chunks, Path(work))
        archive.rename(file)


def unpack_artifact(chunks: Iterator[bytes], directory: Path) -> None:
    """Unpack an artifact and verify it. Raises `UsageError`, `ServiceUnreachableOrFailed`."""
    if directory.exists():
        raise UsageError(
            f"{directory} already exists; choose another folder with --out", "output_exists"
        )
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".loraworks-", dir=directory.parent) as work:
        _, artifact_dir = _receive_archive(chunks, Path(work))
        artifact_dir.rename(directory)


def _receive_archive(chunks: Iterator[bytes], work: Path) -> tuple[Path, Path]:
    """Return the received archive and its verified folder. Raises `ServiceUnreachableOrFailed`."""
    archive, unpacked = work / "archive.tar", work / "unpacked"
    with archive.open("xb") as file:
        file.writelines(chunks)
    try:
        with tarfile.open(archive, "r:") as opened:
            opened.extractall(unpacked, filter="data")
        [artifact_dir] = unpacked.iterdir()
        manifest.verify(artifact_dir)
    except (tarfile.TarError, ArtifactCorrupt, ValueError) as error:
        raise ServiceUnreachableOrFailed(
            f"the download is incomplete: {error}", "broken_archive"
        ) from error
    return archive, artifact_dir


def saved_model_message(directory: Path) -> str:
    """Return a sentence about the folder of a model, or of a job that kept only its metrics."""
    content = manifest.read(directory)
    if not manifest.has_model(content):
        return f"Saved the metrics to {directory}. The job kept no model."
    if any(name.startswith(f"{manifest.MERGED_DIR}/") for name in content["files"]):
        return f"Saved the model to {directory}. Its merged/ is a plain transformers checkpoint."
    return f"Saved the model to {directory}. Run it with `python -m lora_core predict`."
