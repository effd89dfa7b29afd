"""`loraworks evaluate`: how well a version answers labelled texts."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from app.cli.answers import Json, Label
from app.cli.client import Client, Predictions
from app.cli.errors import Misuse, Refused
from app.cli.options import AsJson, connected
from app.cli.output import FIRST_ANSWER, console, facts, percent, show, table, warn
from app.cli.output import as_json as print_json
from app.cli.scores import scores
from lora_core.specs.data import Split

BATCH = 32  # texts in one call
TRIES = 30  # of one call, while the service has too much to do
PAUSE = 1.0  # seconds, where the service names none
SHOWN = 5  # row numbers in an error

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="name (its production), name@alias or name:3.")
]
Data = Annotated[
    str,
    typer.Option(
        "--data",
        help="CSV, TSV, .xlsx, JSONL or Parquet; rotten-tomatoes or imdb; or a data set's name.",
    ),
]
Part = Annotated[
    Split | None,
    typer.Option("--split", help="Part to score. Default: test if there are parts, else all rows."),
]
TextColumn = Annotated[str, typer.Option("--text-column", help="Of a file: the texts.")]
LabelColumn = Annotated[str, typer.Option("--label-column", help="Of a file: the labels.")]
SplitColumn = Annotated[
    str | None, typer.Option("--split-column", help="Of a file: the part of each row.")
]


@dataclass
class Answers:
    """What a version said, in the order of the texts."""

    labels: list[list[Label]]
    version: str
    truncated: int = 0


@connected
def evaluate(  # noqa: PLR0913 - one parameter per option
    client: Client,
    model: Model,
    data: Data,
    split: Part = None,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    split_column: SplitColumn = None,
    as_json: AsJson = False,
) -> None:
    """Score a version on labelled texts: accuracy, F1, loss, and the confusion matrix."""
    from app.cli import labelled
    from lora_core.data.labels import label_names
    from lora_core.data.rows import Columns

    found = labelled.read(client, data, Columns(text_column, label_column, split_column), split)
    texts, truth = [row.text for row in found.rows], [row.label for row in found.rows]
    answers = _ask(client, model, texts, truth)
    names = label_names([each["label"] for each in answers.labels[0]])
    report = {
        "model": answers.version,
        "data": data,
        "split": found.part,
        "truncated": answers.truncated,
        **scores(names, truth, answers.labels),
    }
    print_json(report) if as_json else _print(report)


def _ask(client: Client, model: str, texts: Sequence[str], truth: Sequence[str]) -> Answers:
    """Every answer, of one version. Texts of like length go together, which pads them less."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    answers = Answers([[] for _ in texts], model)
    with console(stderr=True).status(FIRST_ANSWER) as status:
        for start in range(0, len(order), BATCH):
            indices = order[start : start + BATCH]
            answer = _patiently(client, [texts[i] for i in indices], answers.version)
            answers.version = answer.version or model  # a promotion must not mix two versions
            answers.truncated += answer.truncated
            if start == 0:
                _check_labels(truth, answer)
            for i, labels in zip(indices, answer.labels, strict=True):
                answers.labels[i] = labels
            status.update(f"{start + len(indices):,} of {len(texts):,} texts")
    return answers


def _patiently(client: Client, texts: list[str], model: str) -> Predictions:
    """One call, again while the service has too much to do. Raises `Refused`."""
    for left in reversed(range(TRIES)):
        try:
            return client.predict(texts, model, truncate=True)
        except Refused as error:
            if error.status != 429 or not left:
                raise
            time.sleep(error.retry_after or PAUSE)
    raise AssertionError("not reached")


def _check_labels(truth: Sequence[str], answer: Predictions) -> None:
    """Raises `Misuse` for labels that the model never gives."""
    known = sorted(each["label"] for each in answer.labels[0])
    unknown = [number for number, label in enumerate(truth, 1) if label not in known]
    if unknown:
        rows = ", ".join(map(str, unknown[:SHOWN]))
        label = truth[unknown[0] - 1]
        raise Misuse(
            f"the label {label!r} is none of {answer.version}'s, which are {', '.join(known)} "
            f"({len(unknown):,} texts with other labels, first in places {rows})",
            "unknown_label",
        )


def _print(report: Json) -> None:
    part = f", {report['split']} part" if report["split"] else ""
    facts(
        [
            ("model", report["model"]),
            ("data", f"{report['data']}{part}, {report['texts']:,} texts"),
            ("accuracy", f"{percent(report['accuracy'])} ± "
                         f"{percent(report['accuracy_standard_error'])} (standard error)"),
            ("balanced accuracy", percent(report["balanced_accuracy"])),
            ("macro F1", percent(report["macro_f1"])),
            ("loss", report["loss"]),
        ]
    )  # fmt: skip
    labels = report["labels"]
    table(
        ["label", ">precision", ">recall", ">F1", ">texts", *(f">as {name}" for name in labels)],
        [
            (
                name,
                percent(figures["precision"]),
                percent(figures["recall"]),
                percent(figures["f1"]),
                figures["support"],
                *(show(count) for count in row),
            )
            for (name, figures), row in zip(
                report["per_class"].items(), report["confusion_matrix"], strict=True
            )
        ],
        empty="",
    )
    if report["truncated"]:
        count = f"{report['truncated']:,} of {report['texts']:,}"
        warn(f"{count} texts were longer than the model reads and were cut.")
