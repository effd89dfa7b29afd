"""`loraworks evaluate`: measures a model version on labeled texts."""

import math
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.errors import RequestRejected, UsageError
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
from lora_core.data.labels import LabelFormat, TargetFormat, targets_of_spec
from lora_core.data.rows import ColumnSelection, TextRow
from lora_core.errors.data import MissingSplit
from lora_core.specs.data import SUFFIXES, DataSpec, Split, parse_sheet_suffix
from lora_core.specs.task import SeveralTargetsSpec, TaskType
from lora_core.specs.text_input import TextInput, count_characters, text_input
from lora_core.tasks.metric_names import METRICS, task_metrics

if TYPE_CHECKING:
    from app.cli.client import Client, LabeledPredictions
    from app.datasets.schemas import DatasetView
    from app.serving.schemas import LabelScore


@dataclass(frozen=True)
class LabeledRows:
    """Labeled rows and the split they belong to; None: all rows of the source."""

    rows: list[TextRow]
    split: Split | None


def read_labeled_rows(
    client: "Client",
    data: str,
    columns: ColumnSelection,
    split: Split | None,
    target: str | None = None,
    tasks: Mapping[str, TaskType] | None = None,
) -> LabeledRows:
    """Return the rows that `data` denotes: a sample, a file, a hub dataset, or an uploaded one.

    Without `split`, return the test split if the data has splits or is a sample, else all rows.
    Missing splits are drawn as a training with default settings draws them. An uploaded dataset is
    read as it was checked, and of several targets only `target`; `tasks` are those of all targets
    of the model. Raises a `DataError`, `RequestRejected` for an unknown name, and `UsageError` for
    a dataset without labels, of another task, or checked with other columns, and if splits cannot
    be drawn because the columns of the other targets are unknown.
    """
    from lora_core.data.split import rows_of_target
    from lora_core.hf_hub import HUB_PREFIX
    from lora_core.samples import reviews

    sample = data in reviews.SAMPLES
    if sample or data.startswith(HUB_PREFIX) or looks_like_file(data):
        return _select_split(data, columns, split, sample=sample, target=target)
    dataset = client.get_dataset(data)
    if dataset.label_column is None:
        message = f"{dataset.ref} has no labels: it was uploaded with purpose=predict"
        raise UsageError(message, "no_labels")
    all_targets: LabelFormat | None = None  # training drew its splits by all of them
    if target is not None and target in (dataset.targets or {}):
        targets = targets_of_spec(SeveralTargetsSpec.model_validate({"targets": dataset.targets}))
        if {each.name: each.label_format.task for each in targets} == tasks:
            all_targets = LabelFormat("several_targets", targets=targets)
        dataset = _select_target(dataset, next(each for each in targets if each.name == target))
    _check_selection(dataset, columns, ColumnSelection(label=target or "label"))
    label_format = columns.label_format
    if label_format.separator is None and label_format.columns is None:
        names = dataset.label_columns
        label_format = all_targets or replace(
            label_format,
            separator=dataset.label_separator,
            columns=None if names is None else tuple(names),
        )
    dataset_columns = replace(
        columns,
        text=dataset.text_column,
        pair=dataset.text_pair_column,
        label=dataset.label_column,
        split=dataset.split_column,
        label_format=label_format,
    )
    with tempfile.TemporaryDirectory(prefix="loraworks-") as work:
        source = download_source(client, dataset, Path(work))
        labeled = _select_split(source, dataset_columns, split, sample=False, target=target)
    if target is not None and label_format.targets:
        return replace(labeled, rows=rows_of_target(labeled.rows, target))
    return labeled


def _select_target(dataset: "DatasetView", target: TargetFormat) -> "DatasetView":
    """Return a dataset as if it had been checked with this one of its targets only."""
    return dataset.model_copy(
        update={
            "task": target.label_format.task,
            "label_column": target.columns[0],
            "label_separator": target.label_format.separator,
            "label_columns": target.label_format.columns,
        }
    )


def _check_selection(
    dataset: "DatasetView", columns: ColumnSelection, default: ColumnSelection
) -> None:
    """Raise `UsageError` if a dataset has another task than the model, or other columns than named.

    Names may also be read as sets of labels or as numbers. A default counts as not named.
    """
    task = columns.label_format.task
    if dataset.task not in ("single_label", task):
        raise UsageError(
            f"{dataset.ref} was uploaded for the task {dataset.task}, and the model has the task "
            f"{task}. Name a model of that task, or upload the file again with --task {task}.",
            "task_mismatch",
        )
    for role in ("text", "pair", "label", "split"):
        named, name = getattr(columns, role), {"pair": "text_pair"}.get(role, role)
        checked = getattr(dataset, f"{name}_column")
        if named not in (getattr(default, role), checked):
            option = f"--{name.replace('_', '-')}-column"
            raise UsageError(
                f"{dataset.ref} was checked with the {name} column {checked!r}, not {named!r}. "
                f"Leave out {option}, or upload the file again with {option} {named}.",
                "column_not_checked",
            )


def download_source(client: "Client", dataset: "DatasetView", folder: Path) -> str:
    """Download the file of a dataset to a folder, and return it as the source of a spec."""
    file = folder / Path(dataset.filename).name
    with client.download_dataset(dataset.ref) as chunks, file.open("xb") as opened:
        opened.writelines(chunks)
    return f"{file}#{dataset.sheet}" if dataset.sheet else str(file)


def looks_like_file(data: str) -> bool:
    """Return whether `data` is a file rather than the name of a dataset."""
    file, _ = parse_sheet_suffix(data)
    return "/" in data or file.lower().endswith(SUFFIXES) or Path(file).is_file()


def _select_split(
    source: str, columns: ColumnSelection, split: Split | None, *, sample: bool, target: str | None
) -> LabeledRows:
    from lora_core.data import load
    from lora_core.data.split import draw_splits

    rows = load.read_single_source(source, columns)
    selected_split = split or Split.TEST
    if isinstance(rows, dict):
        if selected_split not in rows:
            raise MissingSplit(file=load.display_name(source), split=selected_split)
        return LabeledRows(rows[selected_split], selected_split)
    if split is None and not sample:
        return LabeledRows(rows, None)
    if target is not None and not columns.label_format.targets:
        raise UsageError(
            f"the {selected_split} split cannot be drawn as in training: that depends on all "
            f"targets of the model, and only the column of {target} is known. Upload the file with "
            "the --targets of the training, and name the dataset.",
            "unknown_targets",
        )
    defaults = DataSpec()
    sizes = {Split.VALIDATION: defaults.validation_size, Split.TEST: defaults.test_size}
    splits = draw_splits(rows, sizes, defaults.split_seed, columns.label_format.task)
    return LabeledRows(splits[selected_split], selected_split)


PER_CLASS_METRICS = ("precision", "recall", "f1", "support")


def compute_metrics(
    labels: Sequence[str], truth: Sequence[str], answers: Sequence[Sequence["LabelScore"]]
) -> Json:
    """Compute metrics for texts whose true labels are `truth`.

    Args:
        labels: the order of rows and columns of the confusion matrix.
        truth: the true label of each text.
        answers: the predicted labels of each text, the best first.

    `accuracy_standard_error` is that of a binomial proportion. `loss` is the mean of -ln of the
    probability of the true label; null if one of them is 0. Rows of the confusion matrix are true
    labels, columns are predictions. `macro_f1` averages over labels that are true or predicted for
    some text; `balanced_accuracy` is the mean recall over true labels: as in training and in
    scikit-learn.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    predicted, names = [answer[0].label for answer in answers], list(labels)
    matrix = confusion_matrix(truth, predicted, labels=names)
    per_class = precision_recall_fscore_support(truth, predicted, labels=names, zero_division=0.0)
    present = matrix.sum(axis=0) + matrix.sum(axis=1) > 0
    accuracy = int(matrix.trace()) / len(truth)
    return {
        "texts": len(truth),
        "accuracy": accuracy,
        "accuracy_standard_error": math.sqrt(accuracy * (1 - accuracy) / len(truth)),
        "balanced_accuracy": float(per_class[1][per_class[3] > 0].mean()),
        "macro_f1": float(per_class[2][present].mean()),
        "loss": _cross_entropy(truth, answers),
        "labels": names,
        "per_class": {
            name: dict(zip(PER_CLASS_METRICS, of_class, strict=True))
            for name, *of_class in zip(names, *(each.tolist() for each in per_class), strict=True)
        },
        "confusion_matrix": matrix.tolist(),
    }


def compute_multi_label_metrics(
    thresholds: Mapping[str, float],
    truth: Sequence[Collection[str]],
    answers: Sequence[Sequence["LabelScore"]],
) -> Json:
    """Compute the metrics of a multi-label model for texts whose true labels are `truth`.

    They are those of training, `MultiLabel.report`, with the calibrated probabilities in `answers`
    and the thresholds of the model, by label. `loss` is the mean binary cross-entropy.
    """
    import numpy as np
    from scipy.special import logit

    from lora_core.tasks.base import Calibration
    from lora_core.tasks.multi_label import MultiLabel

    names = list(thresholds)
    task, size = MultiLabel(names), len(names)
    by_label = [{each.label: each.score for each in answer} for answer in answers]
    scores = np.array([[of_text[name] for name in names] for of_text in by_label])
    smallest = np.finfo(np.float64).eps  # the logit of 0 is infinite
    logits = logit(scores.clip(smallest, 1 - smallest))
    targets = task.targets(
        [tuple(i for i, name in enumerate(names) if name in of_text) for of_text in truth]
    )
    identity = Calibration(
        scale=(1.0,) * size, offset=(0.0,) * size, thresholds=tuple(thresholds.values())
    )
    report = task.report(logits, targets, identity)
    return {"texts": len(truth), **_without_nan(report), "labels": names}


def compute_regression_metrics(
    truth: Sequence[float], answers: Sequence[Sequence["LabelScore"]]
) -> Json:
    """Compute the metrics of a regression for texts whose true numbers are `truth`.

    They are those of training, `Regression.report`, but for the loss. `coverage` is the share of
    texts whose true number is in the interval; null without intervals.
    """
    import numpy as np

    from lora_core.tasks.regression import Regression

    numbers = [answer[0] for answer in answers]
    values = np.array([[number.score] for number in numbers])
    report = Regression(0.0, 1.0).report(values, np.array(truth))
    within = [
        number.low <= value <= number.high
        for number, value in zip(numbers, truth, strict=True)
        if number.low is not None and number.high is not None
    ]
    del report["loss"]
    coverage = sum(within) / len(within) if within else None
    return {"texts": len(truth), **_without_nan(report), "coverage": coverage}


def _without_nan(report: Json) -> Json:
    """Return the report with null for metrics that are not defined for these texts."""
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in report.items()
    }


def _cross_entropy(truth: Sequence[str], answers: Sequence[Sequence["LabelScore"]]) -> float | None:
    total = 0.0
    for label, answer in zip(truth, answers, strict=True):
        probability = next(each.score for each in answer if each.label == label)
        if probability <= 0:
            return None
        total -= math.log(probability)
    return total / len(truth)


BATCH_SIZE = 32  # texts per request
MAX_TRIES = 30  # of a request, while the service is overloaded
RETRY_SECONDS = 1.0  # if the service sends no Retry-After
MAX_SHOWN_ROWS = 5  # row numbers in an error message

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="Model: name (in production), name@alias or name:3.")
]
Data = Annotated[
    str,
    typer.Option(
        "--data",
        help="CSV, TSV, .xlsx, JSONL or Parquet file; rotten-tomatoes or imdb; or a dataset.",
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
    from lora_core.data.labels import LabelFormat
    from lora_core.data.rows import ColumnSelection
    from lora_core.data.split import label_names
    from lora_core.specs.label_sets import decode_label_set, output_name

    info = client.get_model_info(model)
    task, thresholds = info.task, info.thresholds
    if info.targets:
        available = ", ".join(info.targets)
        if target not in info.targets:
            raise UsageError(f"evaluate one target with --target: {available}", "target_required")
        task, prefix = info.targets[target], output_name(target, "")
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
        task, label_separator, tuple(label_columns.split(",")) if label_columns else None
    )
    columns = ColumnSelection(
        text_column,
        label_column or target or "label",
        split_column,
        text_pair_column,
        label_format=label_format,
    )
    labeled = read_labeled_rows(client, data, columns, split, target, info.targets)
    texts = [text_input(row.text, row.pair) for row in labeled.rows]
    labels = [row.label for row in labeled.rows]
    if task == "single_label":
        answers = predict_all(
            client, info.model_id, texts, [[label] for label in labels], target=target
        )
        names = label_names([each.label for each in answers.labels[0]])
        metrics = compute_metrics(names, labels, answers.labels)
    elif task == "multi_label":
        truth = [decode_label_set(label) for label in labels]
        answers = predict_all(client, info.model_id, texts, truth, target=target)
        metrics = compute_multi_label_metrics(thresholds, truth, answers.labels)
    else:
        answers = predict_all(client, info.model_id, texts, target=target)
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
    model: str,
    texts: Sequence[TextInput],
    truth: Sequence[Collection[str]] = (),
    *,
    target: str | None = None,
) -> "LabeledPredictions":
    """Predict all texts with one version. Texts are sorted by length to reduce padding.

    `truth` is the labels of each text. Raises `UsageError` for true labels that the model does not
    have, and `RequestRejected`.
    """
    order = sorted(range(len(texts)), key=lambda i: count_characters(texts[i]))
    by_text: list[list[LabelScore]] = [[] for _ in texts]
    version, truncated = model, 0
    with console(stderr=True).status(MODEL_LOADING_MESSAGE) as status:
        for start in range(0, len(order), BATCH_SIZE):
            indices = order[start : start + BATCH_SIZE]
            answer = _predict_with_retry(client, [texts[i] for i in indices], version, target)
            version = answer.version or model  # a promotion must not mix two versions
            truncated += answer.truncated
            if start == 0:
                _check_labels(truth, answer)
            for i, labels in zip(indices, answer.labels, strict=True):
                by_text[i] = labels
            status.update(f"{start + len(indices):,} of {len(texts):,} texts")
    return replace(answer, labels=by_text, truncated=truncated)


def _predict_with_retry(
    client: "Client", texts: list[TextInput], model: str, target: str | None
) -> "LabeledPredictions":
    """Predict a batch, retrying while the service is overloaded. Raises `RequestRejected`."""
    for left in reversed(range(MAX_TRIES)):
        try:
            return client.predict(texts, model, truncate=True, target=target)
        except RequestRejected as error:
            if error.status != 429 or not left:
                raise
            time.sleep(error.retry_after or RETRY_SECONDS)
    raise AssertionError("not reached")


def _check_labels(truth: Sequence[Collection[str]], answer: "LabeledPredictions") -> None:
    """Raise `UsageError` for true labels that the model does not have."""
    model_labels = sorted(each.label for each in answer.labels[0])
    unknown = [number for number, labels in enumerate(truth, 1) if {*labels} - {*model_labels}]
    if unknown:
        rows = ", ".join(map(str, unknown[:MAX_SHOWN_ROWS]))
        label = min({*truth[unknown[0] - 1]} - {*model_labels})
        raise UsageError(
            f"{answer.version} has no label {label!r}; its labels are {', '.join(model_labels)} "
            f"({len(unknown):,} texts have unknown labels, first in rows {rows})",
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
    names = [name for name in task_metrics({"task": {"type": report["task"]}}) if name in report]
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
