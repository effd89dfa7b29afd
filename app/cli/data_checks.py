"""`loraworks datasets check`: what is worth a look before anyone trains on it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from app.cli.client import Client
from app.cli.column_prompt import ask, can_ask
from app.cli.datasets import LabelColumn, Purpose, Sheet, SplitColumn, TextColumn
from app.cli.errors import Misuse
from app.cli.options import AsJson, connected
from app.cli.output import as_json as print_json
from app.cli.output import console, facts, percent, plain, say
from app.cli.responses import Diagnosis, Example, Finding
from app.cli.results import print_more_labels
from lora_core.data.rows import Columns
from lora_core.errors.data import MissingColumn

FOUND = 1  # exit code for a diagnosis with errors
STYLES = {"error": "red", "warning": "yellow", "info": "cyan"}

Data = Annotated[
    str, typer.Argument(metavar="DATA", help="A data set (name, name:2 or id) or a file.")
]


@connected
def check(  # noqa: PLR0913 - one parameter per option
    client: Client,
    data: Data,
    purpose: Purpose = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    split_column: SplitColumn = None,
    sheet: Sheet = None,
    as_json: AsJson = False,
) -> None:
    """Diagnose a data set: balance, copies, leaks, labels, lengths. A file needs no service.

    Exit code 1 says that an error was found. The columns are those of a file.
    """
    from app.cli.evaluate import is_file

    if is_file(data):
        named = Columns(
            text_column or "text",
            None if purpose == "predict" else label_column or "label",
            split_column,
            sheet=sheet,
        )
        diagnosis = _of_file(Path(data), named)
    elif any((purpose, text_column, label_column, split_column, sheet)):
        raise Misuse("columns are told for a file; an upload has its own", "columns_of_upload")
    else:
        dataset = client.dataset(data)
        diagnosis = dataset["diagnosis"] or client.check_dataset(dataset["id"])
    print_json(diagnosis) if as_json else _print(diagnosis)
    if any(finding["level"] == "error" for finding in diagnosis["findings"]):
        raise typer.Exit(FOUND)


def _of_file(path: Path, named: Columns) -> Diagnosis:
    """Made here. Raises the `DataError` that makes the file useless."""
    from lora_core.data import contents
    from lora_core.data.checks import diagnose

    try:
        found = contents.read(path, named)
    except MissingColumn:
        if not can_ask():
            raise
        answers = ask(path, named.sheet, labels=named.label is not None)
        text, label = answers["text_column"], answers.get("label_column")
        found = contents.read(path, replace(named, text=text, label=label))
    made = diagnose(found)
    if made.more_labels is None:
        from lora_core.data.learning_curve import complete

        made = complete(made, found)
    diagnosis: Diagnosis = json.loads(made.model_dump_json())
    return diagnosis


def _print(diagnosis: Diagnosis) -> None:
    balance, tokens = diagnosis["balance"], diagnosis["tokens"]
    facts(
        [
            ("rows", diagnosis["rows"]),
            ("labels", balance and ", ".join(
                f"{label} {percent(share['share'])}" for label, share in balance["labels"].items()
            )),
            ("baseline", balance and f"{percent(balance['baseline'])} by always answering "
                                     f"{balance['majority']}"),
            ("tokens", tokens and f"{tokens['percentiles']['50']:,} in the middle, "
                                  f"{tokens['percentiles']['95']:,} at 95 %, "
                                  f"{tokens['percentiles']['100']:,} at most"),
            ("longer than", tokens and ", ".join(
                f"{length} {percent(share)}" for length, share in tokens["truncated"].items()
            )),
            ("unknown tokens", tokens and f"{percent(tokens['unknown'])} ({tokens['tokenizer']})"),
        ]
    )  # fmt: skip
    for finding in diagnosis["findings"]:
        _print_finding(finding)
    if not diagnosis["findings"]:
        say("\nNothing to complain of.", style="green")
    print_more_labels(diagnosis["more_labels"])


def _print_finding(finding: Finding) -> None:
    level = finding["level"]
    say("")
    console().print(
        f"{level}: {plain(finding['message'])} ({finding['code']})",
        style=STYLES[level],
        soft_wrap=True,
    )
    say(f"  {finding['advice']}")
    for example in finding["examples"]:
        say(f"  {_line(example)}")


def _line(example: Example) -> str:
    """`rows 3 (neg, train) and 17 (pos, test): A film with …`"""
    rows = example["rows"]
    told = [
        " ".join([f"{row['row']:,}", *([f"({', '.join(known)})"] if known else [])])
        for row in rows
        if (known := [each for each in (row["label"], row["split"]) if each]) is not None
    ]
    alike = f", {percent(example['similarity'])} alike" if example["similarity"] else ""
    return f"{'row' if len(rows) == 1 else 'rows'} {' and '.join(told)}{alike}: {rows[0]['text']}"
