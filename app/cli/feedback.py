"""`loraworks feedback …` and `loraworks forget`."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.errors import RequestRejected, UsageError
from app.cli.options import AsJson, Limit, with_client
from app.cli.output import (
    Json,
    format_given_number,
    format_time,
    print_fields,
    print_json,
    print_line,
    print_table,
)
from app.cli.text_files import read_numbered_lines, read_text_file
from app.queue.enums import JobKind

if TYPE_CHECKING:
    from app.cli.client import Client
    from app.feedback.schemas import (
        FeedbackItemResult,
        FeedbackItemResults,
        FeedbackView,
        LabelValue,
    )

app = typer.Typer(help="Tell the right labels of predicted texts, and make datasets of them.")

MAX_ITEMS = 1000  # of one request
MAX_BATCH_BYTES = 1_000_000  # of one request, unless a single item has more
SHOWN_CHARACTERS = 60  # of a text in a table

Name = Annotated[str, typer.Argument(metavar="NAME", help="Model name.")]
ModelRef = Annotated[
    str, typer.Argument(metavar="MODEL", help="Model: name (in production), name@alias or name:3.")
]
Model = Annotated[
    str | None, typer.Option("--model", help="Model: name (in production), name@alias or name:3.")
]
Prediction = Annotated[
    str | None,
    typer.Option("--prediction", help="X-Prediction-Id of the response, such as 01a2…-0."),
]
TextOption = Annotated[str | None, typer.Option("--text", help="The text.")]
Pair = Annotated[str | None, typer.Option("--pair", help="The second text of a pair.")]
Label = Annotated[str | None, typer.Option("--label", help="The right label.")]
Labels = Annotated[
    str | None,
    typer.Option("--labels", help='Multi-label: the right labels, such as a,b; "" for none.'),
]
Value = Annotated[float | None, typer.Option("--value", help="Regression: the right number.")]
Target = Annotated[
    str | None, typer.Option("--target", help="Which of several targets the label is of.")
]
By = Annotated[str | None, typer.Option("--by", help="Who says so.")]
NewLabel = Annotated[
    bool, typer.Option("--new-label", help="Accept a label that the model does not know.")
]
ItemFile = Annotated[
    Path | None,
    typer.Option(
        "--file",
        metavar="FILE",
        help="JSON lines with the fields of the API, in place of the other options.",
        exists=True,
    ),
]
Count = Annotated[int, typer.Option("--count", min=1, max=200, help="Number of texts.")]
ChangedOnly = Annotated[
    bool,
    typer.Option("--changed-only", help="Only texts whose label differs from the prediction."),
]
DatasetName = Annotated[
    str | None, typer.Option("--name", help="Name of the dataset. Default: NAME-feedback.")
]
FeedbackId = Annotated[str, typer.Argument(metavar="FEEDBACK", help="Feedback id.")]
TextFile = Annotated[
    str | None,
    typer.Option(
        "--text-file",
        metavar="FILE",
        help="File with the text, - for standard input: keeps it out of the history of the shell.",
    ),
]
NoSearch = Annotated[bool, typer.Option("--no-search", help="Do not search the stored datasets.")]


@app.command("add")
@with_client
def add_feedback(  # noqa: PLR0913 - one parameter per option
    client: "Client",
    model: Model = None,
    prediction: Prediction = None,
    text: TextOption = None,
    pair: Pair = None,
    label: Label = None,
    labels: Labels = None,
    value: Value = None,
    target: Target = None,
    by: By = None,
    new_label: NewLabel = False,
    file: ItemFile = None,
    as_json: AsJson = False,
) -> None:
    """Tell the right label of a text: by the id of its prediction, or by the text and the model."""
    fields: Json = {
        "model": model,
        "prediction_id": prediction,
        "text": text,
        "text_pair": pair,
        "label": label,
        "labels": None if labels is None else [each for each in labels.split(",") if each],
        "value": value,
        "target": target,
        "by": by,
        "new_label": new_label or None,
    }
    given = {name: each for name, each in fields.items() if each is not None}
    if file is None:
        _print_results(iter([client.add_feedback(given)]), [], as_json=as_json)
    elif given:
        raise UsageError("--file replaces the other options", "wrong_options")
    else:
        lines, items = _read_items(file)
        _print_results(_send_batches(client, items, lines), lines, as_json=as_json)


def _read_items(file: Path) -> tuple[list[int], list[Any]]:
    """Return the line numbers and the items of a file. Raises `UsageError`."""
    lines, items = [], []
    for number, line in read_numbered_lines(file):
        lines.append(number)
        try:
            items.append(json.loads(line))
        except ValueError as error:
            raise UsageError(f"{file}: line {number} is not JSON", "not_json") from error
    if not items:
        raise UsageError(f"{file} has no items", "no_items")
    return lines, items


def _send_batches(
    client: "Client", items: list[Any], lines: Sequence[int]
) -> "Iterator[FeedbackItemResults]":
    """Yield the results of each batch. Raises `RequestRejected`, which names lines of the file."""
    sent = 0
    for batch in _split_into_batches(items):
        try:
            yield client.add_feedback({"items": batch})
        except RequestRejected as error:
            raise _with_lines(error, lines[sent : sent + len(batch)]) from error
        sent += len(batch)


def _with_lines(error: RequestRejected, lines: Sequence[int]) -> RequestRejected:
    """Return an error about `items.17.label` of a batch as one about a line of the file."""

    def locate(text: str) -> str:
        return re.sub(
            r"^items\.(\d+)(\.?)",
            lambda found: f"line {lines[int(found[1])]}{', ' if found[2] else ''}",
            text,
        )

    fields = [{**each, "at": locate(str(each.get("at")))} for each in error.fields]
    return RequestRejected(
        locate(error.detail), error.code, error.status, fields, error.retry_after
    )


def _split_into_batches(items: list[Any]) -> Iterator[list[Any]]:
    batch: list[Any] = []
    size = 0
    for item in items:
        item_size = len(json.dumps(item))
        if batch and (len(batch) == MAX_ITEMS or size + item_size > MAX_BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += item_size
    yield batch


def _print_results(
    results: "Iterator[FeedbackItemResults]", lines: Sequence[int], *, as_json: bool
) -> None:
    """Print what became of the items, also of those before an error. Exits with 1 if any was
    rejected. `lines`: the numbers of their lines, if they are of a file."""
    printed: list[FeedbackItemResult] = []
    failed = 0
    numbers = {"created": 0, "updated": 0, "unchanged": 0}
    try:
        for each in results:
            failed += each.failed
            numbers = {name: count + getattr(each, name) for name, count in numbers.items()}
            first = len(printed)
            for result in each.data:
                index = first + result.index
                printed.append(result.model_copy(update={"index": index}))
                if result.error is not None and not as_json:
                    item = f"Line {lines[index]}" if lines else "The item"
                    print_line(f"{item} failed: {result.error.message}")
    finally:
        if as_json:
            print_json(printed)
        else:
            print_line(", ".join(f"{count} {name}" for name, count in numbers.items()) + ".")
    if failed:
        raise typer.Exit(1)


@app.command("list")
@with_client
def list_feedback(client: "Client", name: Name, limit: Limit = 20, as_json: AsJson = False) -> None:
    """List the newest feedback on a model."""
    feedback = client.list_feedback(name, limit)
    if as_json:
        print_json(feedback)
        return
    print_table(
        ["feedback", "version", "text", "predicted", "label", "by", "when"],
        [
            (
                each.id,
                each.version,
                shorten_text(each.text, each.text_pair),
                _format_label(each.answer),
                _describe_label(each),
                each.by,
                format_time(each.updated_at),
            )
            for each in feedback
        ],
        empty=f"No feedback on {name}.",
    )


@app.command("rm")
@with_client
def delete_feedback(client: "Client", feedback: FeedbackId) -> None:
    """Delete feedback."""
    client.delete_feedback(feedback)
    print_line(f"Deleted feedback {feedback}.")


@app.command("review")
@with_client
def create_review_sample(
    client: "Client", model: ModelRef, count: Count = 60, as_json: AsJson = False
) -> None:
    """Draw a random sample of kept predictions to label: only these estimate accuracy.

    What was predicted is left out, so that it does not sway you; --json has it.
    """
    sample = client.create_review_sample(model, count)
    if as_json:
        print_json(sample)
        return
    print_table(
        ["prediction", "targets", "text"],
        [
            (each.prediction_id, ", ".join(each.missing), shorten_text(each.text, each.text_pair))
            for each in sample.data
        ],
        empty=f"All kept predictions of {sample.version} that were drawn have feedback.",
    )
    name = sample.version.partition(":")[0]
    print_line(
        "Label them with `loraworks feedback add --prediction ID --label LABEL`, or on the page "
        f"/models/{name}/review; then see `loraworks models live-accuracy {name}`."
    )


@app.command("export")
@with_client
def create_feedback_dataset(
    client: "Client",
    name: Name,
    dataset: DatasetName = None,
    changed_only: ChangedOnly = False,
    as_json: AsJson = False,
) -> None:
    """Make a dataset of the texts with feedback on a model."""
    made = client.create_feedback_dataset(name, {"name": dataset, "changed_only": changed_only})
    if as_json:
        print_json(made)
    else:
        print_line(f"{made.ref} has {made.rows} texts. Train with `--data {made.ref}`.")


@with_client
def forget_text(  # noqa: PLR0913 - one parameter per option
    client: "Client",
    text: TextOption = None,
    pair: Pair = None,
    text_file: TextFile = None,
    prediction: Prediction = None,
    no_search: NoSearch = False,
    as_json: AsJson = False,
) -> None:
    """Forget a text: remove it from kept predictions, feedback and labels, and never keep it again.

    Also lists the stored datasets that have it, the jobs and prediction runs that read them, and
    the models that were trained on them.
    """
    if text_file is not None:
        if text is not None:
            raise UsageError("--text-file replaces --text", "wrong_options")
        text = read_text_file(Path(text_file)).removesuffix("\n")
    if (text is None) == (prediction is None):
        raise UsageError("name the text by --text, --text-file or --prediction", "wrong_options")
    body: Json = {"text": text, "text_pair": pair, "prediction_id": prediction}
    result = client.forget(
        {name: each for name, each in body.items() if each is not None}
        | {"search_datasets": not no_search}
    )
    if as_json:
        print_json(result)
        return
    removed = result.removed
    print_fields(
        [
            ("kept predictions removed", removed.predictions),
            ("feedback removed", removed.feedback),
            ("labels removed", removed.labels),
            ("stored responses removed", removed.responses),
        ]
    )
    if not result.searched:
        print_line("The stored datasets were not searched.")
        return
    print_table(
        ["dataset", ">rows", "first rows"],
        [(each.ref, each.count, ", ".join(map(str, each.rows[:10]))) for each in result.datasets],
        empty="No stored dataset has the text.",
    )
    if result.jobs:
        ids = ", ".join(map(str, result.jobs))
        print_line(f"Jobs and prediction runs that read these datasets: {ids}.")
    if result.models:
        print_table(
            ["model", "trained on", "aliases"],
            [(each.ref, each.trained_on, ", ".join(each.aliases)) for each in result.models],
            empty="",
        )
    if result.unsearched:
        print_line(f"Not searched: {', '.join(result.unsearched)}.")
    for each in result.readers_of_deleted:
        is_run = each.kind == JobKind.PREDICTION
        has = "prediction run {} has all its texts" if is_run else "job {} has some of its texts"
        print_line(f"{each.dataset} is deleted, but {has.format(each.job_id)}.")


def shorten_text(text: str | None, pair: str | None) -> str | None:
    """Return a text, or both texts of a pair, in one line of a table."""
    if text is None:
        return None
    line = " ".join((text if pair is None else f"{text} | {pair}").split())
    return line if len(line) <= SHOWN_CHARACTERS else f"{line[: SHOWN_CHARACTERS - 1]}…"


def _format_label(label: "LabelValue | None") -> str | None:
    match label:
        case list():
            return ", ".join(label) or "(none)"
        case float():
            return format_given_number(label)
        case _:
            return label


def _describe_label(feedback: "FeedbackView") -> str:
    label = _format_label(feedback.label) or ""
    return label if feedback.target is None else f"{feedback.target}: {label}"
