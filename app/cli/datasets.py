"""`loraworks datasets …`"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from app.cli import column_prompt
from app.cli.client import Client
from app.cli.options import AsJson, Limit, connected
from app.cli.output import as_json as print_json
from app.cli.output import facts, moment, say, show, table
from app.cli.responses import Dataset, DatasetListItem, Profile

app = typer.Typer(help="Upload, list and delete data sets.")

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}

File = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="CSV, TSV, .xlsx, JSONL or Parquet.",
        exists=True,
        dir_okay=False,
        readable=True,
    ),
]
Ref = Annotated[str, typer.Argument(metavar="DATASET", help="name (the newest), name:2, or id.")]
Name = Annotated[str | None, typer.Option("--name", help="Default: from the name of the file.")]
TextColumn = Annotated[str | None, typer.Option("--text-column", help="Column of the texts.")]
LabelColumn = Annotated[str | None, typer.Option("--label-column", help="Column of the labels.")]
Purpose = Annotated[
    Literal["train", "predict"] | None,
    typer.Option("--purpose", help="predict: there are no labels. Default: train."),
]
SplitColumn = Annotated[
    str | None, typer.Option("--split-column", help="Column that names the part of each row.")
]
Sheet = Annotated[
    str | None, typer.Option("--sheet", help="Of a workbook. Default: the first with any cells.")
]


@app.command("upload")
@connected
def upload(  # noqa: PLR0913 - one parameter per option
    client: Client,
    file: File,
    name: Name = None,
    purpose: Purpose = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    split_column: SplitColumn = None,
    sheet: Sheet = None,
    as_json: AsJson = False,
) -> None:
    """Upload a file; it is checked row by row before any job may use it."""
    dataset = column_prompt.upload(
        client,
        file,
        name=name,
        purpose=purpose,
        text_column=text_column,
        label_column=label_column,
        split_column=split_column,
        sheet=sheet,
    )
    _print(dataset, as_json=as_json)


@app.command("list")
@connected
def list_datasets(client: Client, limit: Limit = 100, as_json: AsJson = False) -> None:
    """All data sets, newest first."""
    datasets = client.datasets(limit)
    if as_json:
        print_json(datasets)
        return
    table(
        ["data set", ">rows", "labels", "file", "created"],
        [
            (
                dataset["ref"],
                dataset["rows"],
                _labels(dataset),
                dataset["filename"],
                moment(dataset["created_at"]),
            )
            for dataset in datasets
        ],
        empty="No data sets. Upload one with `loraworks datasets upload FILE`.",
    )


@app.command("show")
@connected
def show_dataset(client: Client, ref: Ref, as_json: AsJson = False) -> None:
    """One data set."""
    _print(client.dataset(ref), as_json=as_json)


@app.command("delete")
@connected
def delete(client: Client, ref: Ref) -> None:
    """Delete a data set. Refused while a job that is not finished reads it."""
    dataset = client.dataset(ref)
    client.delete_dataset(dataset["id"])
    say(f"Deleted {dataset['ref']}.")


def _labels(dataset: DatasetListItem) -> str:
    """The most frequent ones, and how many more there are."""
    more = dataset["label_count"] - len(dataset["labels"])
    return ", ".join(dataset["labels"]) + (f" and {more:,} more" if more else "")


def _print(dataset: Dataset, *, as_json: bool) -> None:
    if as_json:
        print_json(dataset)
        return
    counts = ", ".join(f"{label} {show(count)}" for label, count in dataset["labels"].items())
    facts(
        [
            ("data set", dataset["ref"]),
            ("title", dataset["title"] if dataset["title"] != dataset["name"] else None),
            ("id", dataset["id"]),
            ("file", dataset["filename"]),
            ("read as", _read_as(dataset["profile"])),
            ("rows", dataset["rows"]),
            ("texts", f"column {dataset['text_column']}"),
            ("labels", counts),
            ("to look at", _to_look_at(dataset["profile"])),
            ("check", _found(dataset)),
            ("bytes", dataset["bytes"]),
            ("created", moment(dataset["created_at"])),
        ]
    )


def _read_as(profile: Profile) -> str | None:
    """Sheet, or encoding and separator; None: the kind of file says all."""
    if sheet := profile.get("sheet"):
        return f"sheet {sheet}"
    encoding, separator = profile.get("encoding"), profile.get("separator")
    if encoding is None or separator is None:
        return None
    return f"{encoding}, cells separated by {SEPARATORS.get(separator, separator)}"


def _to_look_at(profile: Profile) -> str:
    """What is worth a look before training."""
    parts = []
    if count := profile["duplicates"]:
        parts.append(f"{count:,} rows repeat the text of an earlier one")
    if count := profile["conflicting_duplicates"]:
        parts.append(f"{count:,} texts have more than one label")
    if count := profile["leaked"]:
        parts.append(f"{count:,} rows of other parts have a text of the training part")
    parts += [
        f"the labels {' and '.join(labels)} differ in case or white space only"
        for labels in profile.get("similar_labels", [])
    ]
    return "; ".join(parts) or "nothing"


def _found(dataset: Dataset) -> str | None:
    """How much the diagnosis has found, and how to read it."""
    diagnosis = dataset["diagnosis"]
    levels = [finding["level"] for finding in diagnosis["findings"]] if diagnosis else []
    told = [
        f"{levels.count(level)} {level}(s)" for level in ("error", "warning") if level in levels
    ]
    if not told:
        return None
    return f"{', '.join(told)}: loraworks datasets check {dataset['ref']}"
