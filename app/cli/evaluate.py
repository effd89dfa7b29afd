"""Labelled texts for `loraworks evaluate`: of a file, a sample, or a data set of the service."""

import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from app.cli.client import Client, Predictions
from app.cli.errors import Misuse, Refused
from app.cli.options import AsJson, connected
from app.cli.output import FIRST_ANSWER, console, facts, percent, show, table, warn
from app.cli.output import as_json as print_json
from app.cli.responses import Json, Label
from lora_core.data.rows import Columns, Row
from lora_core.errors.data import MissingSplit
from lora_core.specs.data import ENDINGS, DataSpec, Split, divided


@dataclass(frozen=True)
class Labelled:
    """Rows, and what they are a part of; None: they are all that there is."""

    rows: list[Row]
    part: Split | None


def read(client: Client, data: str, columns: Columns, split: Split | None) -> Labelled:
    """The rows that `data` means.

    Without `split` it is the test part, where the data names parts or is a sample; else all rows.
    Parts that are not named are drawn as a training with default settings draws them. Raises a
    `DataError`, `Misuse` for a data set without labels, and `Refused` for the name of none.
    """
    from lora_core.hub import PREFIX
    from lora_core.samples import reviews

    sample = data in reviews.SAMPLES
    if sample or data.startswith(PREFIX) or is_file(data):
        return _part(data, columns, split, sample=sample)
    dataset = client.dataset(data)
    if dataset["label_column"] is None:
        told = f"{dataset['ref']} was uploaded with purpose=predict, so it has no labels"
        raise Misuse(told, "no_labels")
    of_upload = replace(
        columns,
        text=dataset["text_column"],
        label=dataset["label_column"],
        split=dataset["split_column"],
    )
    with tempfile.TemporaryDirectory(prefix="loraworks-") as work:
        file = Path(work, Path(dataset["filename"]).name)
        with client.content(dataset["ref"]) as pieces, file.open("xb") as opened:
            opened.writelines(pieces)
        source = f"{file}#{dataset['sheet']}" if dataset["sheet"] else str(file)
        return _part(source, of_upload, split, sample=False)


def is_file(data: str) -> bool:
    """Whether it looks like a file rather than the name of a data set."""
    file, _ = divided(data)
    return "/" in data or file.lower().endswith(ENDINGS) or Path(file).is_file()


def _part(source: str, columns: Columns, split: Split | None, *, sample: bool) -> Labelled:
    from lora_core.data import load
    from lora_core.data.split import draw

    found = load.read_one(source, columns)
    wanted = split or Split.TEST
    if isinstance(found, dict):
        if wanted not in found:
            raise MissingSplit(file=load.shown(source), split=wanted)
        return Labelled(found[wanted], wanted)
    if split is None and not sample:
        return Labelled(found, None)
    usual = DataSpec()
    sizes = {Split.VALIDATION: usual.validation_size, Split.TEST: usual.test_size}
    return Labelled(draw(found, sizes, usual.split_seed)[wanted], wanted)


# MERGED app.cli.evaluate
# How good answers are: accuracy, F1, loss, and which labels are taken for which.

FIGURES = ("precision", "recall", "f1", "support")


def scores(labels: Sequence[str], truth: Sequence[str], answers: Sequence[Sequence[Label]]) -> Json:
    """Figures over texts whose true labels are `truth`; each answer has the best label first.

    `accuracy_standard_error` is that of a share of so many texts. `loss` is the mean of -ln of the
    probability of the true label; null where one of these is 0. Rows of the confusion matrix are
    true labels, columns answers, both in the order of `labels`; `macro_f1` is of
    the labels that stand among true ones or answers, `balanced_accuracy`, the mean recall, of true
    ones alone, as in training and in scikit-learn.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    given, names = [answer[0]["label"] for answer in answers], list(labels)
    matrix = confusion_matrix(truth, given, labels=names)
    figures = precision_recall_fscore_support(truth, given, labels=names, zero_division=0.0)
    occurs = matrix.sum(axis=0) + matrix.sum(axis=1) > 0
    accuracy = int(matrix.trace()) / len(truth)
    return {
        "texts": len(truth),
        "accuracy": accuracy,
        "accuracy_standard_error": math.sqrt(accuracy * (1 - accuracy) / len(truth)),
        "balanced_accuracy": float(figures[1][figures[3] > 0].mean()),
        "macro_f1": float(figures[2][occurs].mean()),
        "loss": _loss(truth, answers),
        "labels": names,
        "per_class": {
            name: dict(zip(FIGURES, of_class, strict=True))
            for name, *of_class in zip(names, *(each.tolist() for each in figures), strict=True)
        },
        "confusion_matrix": matrix.tolist(),
    }


def _loss(truth: Sequence[str], answers: Sequence[Sequence[Label]]) -> float | None:
    total = 0.0
    for label, answer in zip(truth, answers, strict=True):
        probability = next(each["score"] for each in answer if each["label"] == label)
        if probability <= 0:
            return None
        total -= math.log(probability)
    return total / len(truth)


# MERGED app.cli.evaluate
# `loraworks evaluate`: how well a version answers labelled texts.

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
    from lora_core.data.labels import label_names
    from lora_core.data.rows import Columns

    found = read(client, data, Columns(text_column, label_column, split_column), split)
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
