"""`loraworks datasets …`"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from pydantic import ValidationError

from app.cli import files
from app.cli.errors import UsageError
from app.cli.files import can_prompt, prompt_columns
from app.cli.options import AsJson, Limit, with_client
from app.cli.output import (
    LEVEL_STYLES,
    Json,
    console,
    format_percent,
    format_time,
    format_value,
    print_fields,
    print_json,
    print_line,
    print_more_labels_estimate,
    print_table,
    strip_control_characters,
)
from lora_core.data.label_readers import LabelFormat, list_target_columns
from lora_core.data.rows import ColumnSelection
from lora_core.errors.data import MissingColumn
from lora_core.specs.task import SeveralTargetsSpec, TaskType
from lora_core.specs.validation_problems import first_problem_location_and_message

if TYPE_CHECKING:
    from app.cli.client import Client
    from app.datasets.schemas import DatasetListItem, DatasetView
    from lora_core.data.data_report import (
        DataReport,
        Finding,
        FindingExample,
        LabelSetStatistics,
        RegressionNumberStatistics,
    )


app = typer.Typer(help="Upload, list, check and delete datasets.")

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}

File = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="CSV, TSV, .xlsx, JSONL, JSON or Parquet.",
        exists=True,
        dir_okay=False,
        readable=True,
    ),
]
Ref = Annotated[
    str, typer.Argument(metavar="DATASET", help="Dataset: name (latest version), name:2, or id.")
]
Name = Annotated[
    str | None, typer.Option("--name", help="Name of the dataset. Default: the file name.")
]
TextColumn = Annotated[str | None, typer.Option("--text-column", help="Text column.")]
TextPairColumn = Annotated[
    str | None,
    typer.Option("--text-pair-column", help="Column of the second text, if rows are pairs."),
]
Task = Annotated[
    Literal["single_label", "multi_label", "regression"] | None,
    typer.Option("--task", help="What labels are: a name (default), several names, or a number."),
]
Ordered = Annotated[
    bool, typer.Option("--ordered", help="The labels are ranks, such as one to five stars.")
]
LabelSeparator = Annotated[
    str | None,
    typer.Option("--label-separator", help="multi_label: what separates the labels in a cell."),
]
LabelColumns = Annotated[
    str | None,
    typer.Option(
        "--label-columns",
        metavar="A,B,…",
        help="multi_label: one column of 0 and 1 for each label.",
    ),
]
Targets = Annotated[
    str | None,
    typer.Option(
        "--targets",
        metavar="NAME=TYPE,…",
        help="Several targets, each from a column: stars=regression,topic,flags=multi_label.",
    ),
]
LabelColumn = Annotated[str | None, typer.Option("--label-column", help="Label column.")]
Purpose = Annotated[
    Literal["train", "predict"] | None,
    typer.Option("--purpose", help="predict: the file has no labels. Default: train."),
]
SplitColumn = Annotated[
    str | None, typer.Option("--split-column", help="Column with the split of each row.")
]
Sheet = Annotated[
    str | None,
    typer.Option("--sheet", help="Sheet of a workbook. Default: the first that is not empty."),
]


@app.command("upload")
@with_client
def upload(  # noqa: PLR0913 - one parameter per option
    client: "Client",
    file: File,
    name: Name = None,
    purpose: Purpose = None,
    text_column: TextColumn = None,
    text_pair_column: TextPairColumn = None,
    label_column: LabelColumn = None,
    task: Task = None,
    ordered: Ordered = False,
    label_separator: LabelSeparator = None,
    label_columns: LabelColumns = None,
    targets: Targets = None,
    split_column: SplitColumn = None,
    sheet: Sheet = None,
    as_json: AsJson = False,
) -> None:
    """Upload a file. Every row is validated before a job may use it."""
    dataset = files.upload_with_column_prompt(
        client,
        file,
        name=name,
        purpose=purpose,
        text_column=text_column,
        text_pair_column=text_pair_column,
        label_column=label_column,
        task=task,
        ordered="true" if ordered else None,
        label_separator=label_separator,
        label_columns=label_columns,
        targets=targets,
        split_column=split_column,
        sheet=sheet,
    )
    _print_dataset(dataset, as_json=as_json)


@app.command("list")
@with_client
def list_datasets(client: "Client", limit: Limit = 100, as_json: AsJson = False) -> None:
    """List datasets, newest first."""
    datasets = client.list_datasets(limit)
    if as_json:
        print_json(datasets)
        return
    print_table(
        ["dataset", ">rows", "labels", "file", "created"],
        [
            (
                dataset.ref,
                dataset.rows,
                _label_list(dataset),
                dataset.filename,
                format_time(dataset.created_at),
            )
            for dataset in datasets
        ],
        empty="No datasets. Upload one with `loraworks datasets upload FILE`.",
    )


@app.command("show")
@with_client
def show_dataset(client: "Client", ref: Ref, as_json: AsJson = False) -> None:
    """Show a dataset."""
    _print_dataset(client.get_dataset(ref), as_json=as_json)


@app.command("delete")
@with_client
def delete(client: "Client", ref: Ref) -> None:
    """Delete a dataset. Rejected while an unfinished job uses it."""
    dataset = client.get_dataset(ref)
    client.delete_dataset(dataset.id)
    print_line(f"Deleted {dataset.ref}.")


def _label_list(dataset: "DatasetListItem") -> str:
    """Return the most frequent labels and the number of the others."""
    if dataset.task == "regression":
        return "numbers"
    more = dataset.label_count - len(dataset.labels)
    return ", ".join(dataset.labels) + (f" and {more:,} more" if more else "")


def _print_dataset(dataset: "DatasetView", *, as_json: bool) -> None:
    if as_json:
        print_json(dataset)
        return
    counts = ", ".join(f"{label} {format_value(count)}" for label, count in dataset.labels.items())
    print_fields(
        [
            ("dataset", dataset.ref),
            ("title", dataset.title if dataset.title != dataset.name else None),
            ("id", dataset.id),
            ("file", dataset.filename),
            ("format", _read_as(dataset.profile)),
            ("rows", dataset.rows),
            ("texts", _text_columns(dataset)),
            ("task", dataset.task if dataset.task != "single_label" else None),
            ("labels", counts or None),
            ("warnings", _profile_warnings(dataset.profile)),
            ("check", _check_summary(dataset)),
            ("bytes", dataset.bytes),
            ("created", format_time(dataset.created_at)),
        ]
    )


def _text_columns(dataset: "DatasetView") -> str:
    if dataset.text_pair_column is None:
        return f"column {dataset.text_column}"
    return f"pairs of the columns {dataset.text_column} and {dataset.text_pair_column}"


def _read_as(profile: Json) -> str | None:
    """Return sheet, or encoding and separator; None if the file type implies them."""
    if sheet := profile.get("sheet"):
        return f"sheet {sheet}"
    encoding, separator = profile.get("encoding"), profile.get("separator")
    if encoding is None or separator is None:
        return None
    return f"{encoding}, cells separated by {SEPARATORS.get(separator, separator)}"


def _profile_warnings(profile: Json) -> str:
    """Return what to check in the data before training."""
    parts = []
    if count := profile["duplicates"]:
        parts.append(f"{count:,} rows repeat the text of an earlier one")
    if count := profile["conflicting_duplicates"]:
        parts.append(f"{count:,} texts have conflicting labels")
    if count := profile["leaked"]:
        parts.append(f"{count:,} rows of other splits repeat a training text")
    parts += [
        f"the labels {' and '.join(labels)} seem to be the same"
        for labels in profile.get("similar_labels", [])
    ]
    return "; ".join(parts) or "none"


def _check_summary(dataset: "DatasetView") -> str | None:
    """Return the number of errors and warnings, and the command that shows them."""
    diagnosis = dataset.diagnosis
    levels = [str(finding.level) for finding in diagnosis.findings] if diagnosis else []
    parts = [
        f"{levels.count(level)} {level}(s)" for level in ("error", "warning") if level in levels
    ]
    if not parts:
        return None
    return f"{', '.join(parts)}: loraworks datasets check {dataset.ref}"


# `loraworks datasets check`

EXIT_ERRORS_FOUND = 1  # exit code if the checks find errors

Data = Annotated[str, typer.Argument(metavar="DATA", help="Dataset (name, name:2 or id) or file.")]


@with_client
def check_dataset_or_file(  # noqa: PLR0913 - one parameter per option
    client: "Client",
    data: Data,
    purpose: Purpose = None,
    text_column: TextColumn = None,
    text_pair_column: TextPairColumn = None,
    label_column: LabelColumn = None,
    task: Task = None,
    ordered: Ordered = False,
    label_separator: LabelSeparator = None,
    label_columns: LabelColumns = None,
    targets: Targets = None,
    split_column: SplitColumn = None,
    sheet: Sheet = None,
    as_json: AsJson = False,
) -> None:
    """Check data: balance, duplicates, leaks, labels, lengths. A file needs no service.

    Exits with 1 if an error is found. The column options apply to a file only.
    """
    from app.cli.labeled_rows import looks_like_file

    options = (purpose, text_column, text_pair_column, label_column, split_column, sheet)
    label_options = (task, ordered, label_separator, label_columns, targets)
    if looks_like_file(data):
        columns = ColumnSelection(
            text_column or "text",
            None if purpose == "predict" else label_column or "label",
            split_column,
            pair=text_pair_column,
            sheet=sheet,
            label_format=_label_format(task, ordered, label_separator, label_columns, targets),
        )
        diagnosis = _check_file(Path(data), columns)
    elif any((*options, *label_options)):
        raise UsageError(
            "column options apply to files only; a dataset has its own columns",
            "columns_of_upload",
        )
    else:
        dataset = client.get_dataset(data)
        diagnosis = dataset.diagnosis or client.rediagnose_dataset(dataset.id)
    print_json(diagnosis) if as_json else _print_diagnosis(diagnosis)
    if any(finding.level == "error" for finding in diagnosis.findings):
        raise typer.Exit(EXIT_ERRORS_FOUND)


def _label_format(
    task: TaskType | None,
    ordered: bool,
    separator: str | None,
    columns: str | None,
    targets: str | None,
) -> LabelFormat:
    """Return the format that options describe. Raises `UsageError` if they do not fit the task."""
    if targets is not None:
        return _targets_format(targets)
    if task == "several_targets":
        raise UsageError("--task several_targets needs --targets", "wrong_options")
    if ordered and task not in (None, "single_label"):
        raise UsageError("--ordered needs the task single_label", "wrong_task")
    if (separator or columns) and task != "multi_label":
        raise UsageError(
            "--label-separator and --label-columns need --task multi_label", "wrong_task"
        )
    if separator and columns:
        raise UsageError("give --label-separator or --label-columns, not both", "wrong_options")
    names = tuple(name.strip() for name in columns.split(",")) if columns else None
    return LabelFormat(task or "single_label", separator, names, ordered)


def _targets_format(text: str) -> LabelFormat:
    try:
        task = SeveralTargetsSpec.model_validate({"targets": text})
    except ValidationError as error:
        at, problem = first_problem_location_and_message(error, SeveralTargetsSpec)
        raise UsageError(f"--targets: {at}: {problem}", "wrong_options") from error
    return LabelFormat(task.type, targets=list_target_columns(task))


def _check_file(path: Path, columns: ColumnSelection) -> "DataReport":
    """Check a local file. Raises the `DataError` that makes the file unusable."""
    from lora_core.data import file_inspection
    from lora_core.data.checks import check_data

    try:
        data = file_inspection.read_contents(path, columns)
    except MissingColumn:
        if columns.label_format.columns_instead_of_label or not can_prompt():
            raise
        answers = prompt_columns(path, columns.sheet, labels=columns.label is not None)
        text, label = answers["text_column"], answers.get("label_column")
        pair = answers.get("text_pair_column")
        data = file_inspection.read_contents(
            path, replace(columns, text=text, pair=pair, label=label)
        )
    diagnosis = check_data(data)
    if diagnosis.more_labels is None:
        from lora_core.data.learning_curve import add_learning_curve_to_report

        diagnosis = add_learning_curve_to_report(diagnosis, data)
    return diagnosis


def _print_diagnosis(diagnosis: "DataReport") -> None:
    balance, tokens = diagnosis.balance, diagnosis.tokens
    print_fields(
        [
            ("rows", diagnosis.rows),
            ("labels", balance and ", ".join(
                f"{label} {format_percent(frequency.share)}"
                for label, frequency in balance.labels.items()
            )),
            ("label sets", diagnosis.label_sets and _describe_label_sets(diagnosis.label_sets)),
            ("together", (diagnosis.label_sets and ", ".join(
                f"{' and '.join(pair.labels)} {pair.count:,}"
                for pair in diagnosis.label_sets.pairs[:MAX_PAIRS]
            )) or None),
            ("numbers", diagnosis.numbers and _describe_numbers(diagnosis.numbers)),
            ("baseline", balance and f"{format_percent(balance.baseline)} by always predicting "
                                     f"{balance.majority}"),
            ("tokens", tokens and f"{tokens.percentiles[50]:,} median, "
                                  f"{tokens.percentiles[95]:,} 95th percentile, "
                                  f"{tokens.percentiles[100]:,} maximum"),
            ("longer than", tokens and ", ".join(
                f"{length} {format_percent(share)}" for length, share in tokens.truncated.items()
            )),
            ("unknown tokens", tokens and
                f"{format_percent(tokens.unknown)} ({tokens.tokenizer})"),
        ]
    )  # fmt: skip
    for finding in diagnosis.findings:
        print_finding(finding)
    if not diagnosis.findings:
        print_line("\nNo problems found.", style="green")
    print_more_labels_estimate(diagnosis.more_labels)


MAX_PAIRS = 5  # of labels, that are shown


def _describe_label_sets(sets: "LabelSetStatistics") -> str:
    return (
        f"{sets.distinct:,} different, {sets.mean_labels:.2g} labels per row, "
        f"{sets.unlabeled:,} rows without any"
    )


def _describe_numbers(numbers: "RegressionNumberStatistics") -> str:
    return (
        f"{numbers.minimum:g} to {numbers.maximum:g}, median {numbers.quartiles[1]:g}, "
        f"mean {numbers.mean:g}, standard deviation {numbers.std:g}"
    )


def print_finding(finding: "Finding") -> None:
    """Print the message, advice and examples of a finding."""
    level = finding.level
    print_line("")
    console().print(
        f"{level}: {strip_control_characters(finding.message)} ({finding.code})",
        style=LEVEL_STYLES[level],
        soft_wrap=True,
    )
    print_line(f"  {finding.advice}")
    for example in finding.examples:
        print_line(f"  {_format_example(example)}")


def _format_example(example: "FindingExample") -> str:
    """Return an example such as `rows 3 (neg, train) and 17 (pos, test): A film with …`."""
    rows = example.rows
    parts = [
        " ".join([f"{row.row:,}", *([f"({', '.join(details)})"] if details else [])])
        for row in rows
        if (details := [each for each in (row.label, row.split) if each]) is not None
    ]
    similarity = f", {format_percent(example.similarity)} similar" if example.similarity else ""
    noun = "row" if len(rows) == 1 else "rows"
    pair = "" if rows[0].text_pair is None else f" / {rows[0].text_pair}"
    return f"{noun} {' and '.join(parts)}{similarity}: {rows[0].text}{pair}"
