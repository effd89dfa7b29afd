"""`loraworks evaluate`: measures a model version on labeled texts."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.errors import UsageError
from app.cli.evaluation_metrics import (
    compute_multi_label_metrics,
    compute_regression_metrics,
    compute_single_label_metrics,
)
from app.cli.labeled_rows import read_labeled_rows
from app.cli.options import AsJson, with_client
from app.cli.output import (
    MODEL_LOADING_MESSAGE,
    Json,
    console,
    format_metric,
    format_percent,
    format_value,
    print_fields,
    print_json,
    print_table,
    print_warning,
)
from app.cli.polling import retry_while_overloaded
from lora_core.data.label_readers import LabelFormat
from lora_core.data.rows import ColumnSelection
from lora_core.specs.data import Split
from lora_core.specs.text_input import TextInput, count_characters, text_or_pair
from lora_core.tasks.metric_info import METRICS, metric_names_of_spec

if TYPE_CHECKING:
    from app.cli.client import Client, PredictResponse
    from app.serving.schemas import LabelScore, ModelInfo


BATCH_SIZE = 32  # texts per request, at most
MAX_SHOWN_ROWS = 5  # row numbers in an error message

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="Model: name (in production), name@alias or name:3.")
]
Data = Annotated[
    str,
    typer.Option(
        "--data",
        help="CSV, TSV, .xlsx, JSONL, JSON or Parquet file; rotten-tomatoes or imdb; or a dataset.",
    ),
]
SplitOption = Annotated[
    Split | None,
    typer.Option(
        "--split", help="Split to evaluate. Default: test if the data has splits, else all rows."
    ),
]
TextColumn = Annotated[str, typer.Option("--text-column", help="For a file: text column.")]
TextPairColumn = Annotated[
    str | None,
    typer.Option("--text-pair-column", help="For a file: column of the second text of pairs."),
]
LabelColumn = Annotated[
    str | None,
    typer.Option(
        "--label-column",
        help="For a file: label column. Default: label, or the name of the target.",
    ),
]
LabelSeparator = Annotated[
    str | None,
    typer.Option(
        "--label-separator",
        help="For a multi-label model: what separates the labels in a cell, such as ';'.",
    ),
]
TargetOption = Annotated[
    str | None, typer.Option("--target", help="Of a model with several targets: evaluate this one.")
]
LabelColumns = Annotated[
    str | None,
    typer.Option(
        "--label-columns",
        metavar="A,B,…",
        help="For a multi-label model: one column of 0 and 1 for each label.",
    ),
]
SplitColumn = Annotated[
    str | None,
    typer.Option("--split-column", help="For a file: column with the split of each row."),
]


@with_client
def evaluate(  # noqa: PLR0913 - one parameter per option
    client: "Client",
    model: Model,
    data: Data,
    split: SplitOption = None,
    text_column: TextColumn = "text",
    text_pair_column: TextPairColumn = None,
    label_column: LabelColumn = None,
    label_separator: LabelSeparator = None,
    label_columns: LabelColumns = None,
    split_column: SplitColumn = None,
    target: TargetOption = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate a model version on labeled texts.

    Single label: accuracy, F1, loss, confusion matrix. Multi-label: F1, average precision, metrics
    by label. Regression: errors, correlation, coverage of the intervals.
    """
    from lora_core.data.split import sort_label_names
    from lora_core.specs.encoded_labels import decode_label_set, qualified_output_name

    info = client.get_model_info(model)
    task, thresholds = info.task, info.thresholds
    if info.targets:
        available = ", ".join(info.targets)
        if target not in info.targets:
            raise UsageError(f"evaluate one target with --target: {available}", "target_required")
        task, prefix = info.targets[target], qualified_output_name(target, "")
        thresholds = {
            name.removeprefix(prefix): value
            for name, value in thresholds.items()
            if name.startswith(prefix)
        }
    elif target is not None:
        raise UsageError(f"{info.model_id} does not have several targets", "one_target")
    if (label_separator or label_columns) and task != "multi_label":
        raise UsageError(
            f"--label-separator and --label-columns are for multi-label models; {info.model_id} is "
            f"a {task} model",
            "wrong_options",
        )
    label_format = LabelFormat(
        task,
        label_separator,
        tuple(name.strip() for name in label_columns.split(",")) if label_columns else None,
    )
    columns = ColumnSelection(
        text_column,
        label_column or target or "label",
        split_column,
        text_pair_column,
        label_format=label_format,
    )
    labeled = read_labeled_rows(client, data, columns, split, target, info.targets)
    texts = [text_or_pair(row.text, row.pair) for row in labeled.rows]
    labels = [row.label for row in labeled.rows]
    rows = [row.number for row in labeled.rows]
    if task == "single_label":
        answers = predict_all(
            client, info, texts, [[label] for label in labels], rows, target=target
        )
        names = sort_label_names([each.label for each in answers.labels[0]])
        metrics = compute_single_label_metrics(names, labels, answers.labels)
    elif task == "multi_label":
        truth = [decode_label_set(label) for label in labels]
        answers = predict_all(client, info, texts, truth, rows, target=target)
        metrics = compute_multi_label_metrics(thresholds, truth, answers.labels)
    else:
        answers = predict_all(client, info, texts, target=target)
        metrics = compute_regression_metrics([float(label) for label in labels], answers.labels)
    report = {
        "model": answers.version,
        "task": task,
        **({"target": target} if target else {}),
        "data": data,
        "split": labeled.split,
        "truncated": answers.truncated,
        **metrics,
    }
    print_json(report) if as_json else _print_report(report)


def predict_all(
    client: "Client",
    info: "ModelInfo",
    texts: Sequence[TextInput],
    truth: Sequence[Collection[str]] = (),
    rows: Sequence[int] = (),
    *,
    target: str | None = None,
) -> "PredictResponse":
    """Predict all texts with one version. Texts are sorted by length to reduce padding.

    `truth` is the labels of each text, and `rows` has its row number. Raises `UsageError` for true
    labels that the model does not have, and `RequestRejected`.
    """
    order = sorted(range(len(texts)), key=lambda i: count_characters(texts[i]))
    by_text: list[list[LabelScore]] = [[] for _ in texts]
    version, truncated = info.model_id, 0
    batch_size = min(BATCH_SIZE, info.max_client_batch_size)
    with console(stderr=True).status(MODEL_LOADING_MESSAGE) as status:
        for start in range(0, len(order), batch_size):
            indices = order[start : start + batch_size]
            batch = [texts[i] for i in indices]
            answer = retry_while_overloaded(
                partial(client.predict, batch, version, truncate=True, target=target)
            )
            version = answer.version or version  # a promotion must not mix two versions
            truncated += answer.truncated
            if start == 0:
                _check_labels(truth, rows, answer)
            for i, labels in zip(indices, answer.labels, strict=True):
                by_text[i] = labels
            status.update(f"{start + len(indices):,} of {len(texts):,} texts")
    return replace(answer, labels=by_text, truncated=truncated)


def _check_labels(
    truth: Sequence[Collection[str]], rows: Sequence[int], answer: "PredictResponse"
) -> None:
    """Raise `UsageError` for true labels that the model does not have."""
    model_labels = sorted(each.label for each in answer.labels[0])
    unknown = [i for i, labels in enumerate(truth) if {*labels} - {*model_labels}]
    if unknown:
        first = ", ".join(str(rows[i]) for i in unknown[:MAX_SHOWN_ROWS])
        label = min({*truth[unknown[0]]} - {*model_labels})
        raise UsageError(
            f"{answer.version} has no label {label!r}; its labels are {', '.join(model_labels)} "
            f"({len(unknown):,} texts have unknown labels, first in rows {first})",
            "unknown_label",
        )


def _print_report(report: Json) -> None:
    split = f", {report['split']} split" if report["split"] else ""
    print_fields(
        [
            ("model", report["model"]),
            ("data", f"{report['data']}{split}, {report['texts']:,} texts"),
            *_metric_fields(report),
        ]
    )
    if report["task"] == "single_label":
        _print_confusion_matrix(report)
    elif report["task"] == "multi_label":
        _print_labels(report["per_class"])
    if report["truncated"]:
        count = f"{report['truncated']:,} of {report['texts']:,}"
        print_warning(f"{count} texts were truncated to the model's maximum length.")


def _metric_fields(report: Json) -> list[tuple[str, object]]:
    names = [
        name for name in metric_names_of_spec({"task": {"type": report["task"]}}) if name in report
    ]
    fields: dict[str, object] = {
        METRICS[name].label: format_metric(name, report[name]) for name in names
    }
    if report["task"] == "single_label":
        error = format_percent(report["accuracy_standard_error"])
        fields["accuracy"] = f"{fields['accuracy']} ± {error} (standard error)"
    elif report["task"] == "regression" and report["coverage"] is not None:
        fields["numbers within their interval"] = format_percent(report["coverage"])
    return list(fields.items())


def _print_labels(per_label: Json) -> None:
    print_table(
        ["label", ">threshold", ">precision", ">recall", ">F1", ">texts"],
        [
            (
                name,
                format_percent(metrics["threshold"]),
                format_percent(metrics["precision"]),
                format_percent(metrics["recall"]),
                format_percent(metrics["f1"]),
                metrics["support"],
            )
            for name, metrics in per_label.items()
        ],
        empty="",
    )


def _print_confusion_matrix(report: Json) -> None:
    labels = report["labels"]
    print_table(
        ["label", ">precision", ">recall", ">F1", ">texts", *(f">as {name}" for name in labels)],
        [
            (
                name,
                format_percent(per_class["precision"]),
                format_percent(per_class["recall"]),
                format_percent(per_class["f1"]),
                per_class["support"],
                *(format_value(count) for count in row),
            )
            for (name, per_class), row in zip(
                report["per_class"].items(), report["confusion_matrix"], strict=True
            )
        ],
        empty="",
    )
