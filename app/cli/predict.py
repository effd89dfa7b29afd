"""`loraworks predict`: predicts texts, or every row of a file."""

from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.charts.formatting import format_number
from app.cli import files
from app.cli.errors import UsageError
from app.cli.options import AsJson, with_client
from app.cli.output import (
    MODEL_LOADING_MESSAGE,
    delayed_spinner,
    format_percent,
    print_json,
    print_line,
    print_table,
    print_warning,
)
from app.cli.polling import retry_while_overloaded
from app.cli.prediction_runs import predict_file
from app.cli.text_files import read_numbered_lines
from lora_core.specs.encoded_labels import NUMBER
from lora_core.specs.text_input import TextInput, text_or_pair, text_to_dict, texts_of_input

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.cli.client import Client
    from app.serving.schemas import ExplanationView, LabelScore


BATCH_SIZE = 32  # texts per request, at most
MAX_SHOWN_CHARS = 60  # of a text in the table
MAX_EXPLAINED_WORDS = 10

Texts = Annotated[list[str] | None, typer.Argument(metavar="TEXT", help="Texts to classify.")]
Pairs = Annotated[
    list[str] | None,
    typer.Option(
        "--pair",
        metavar="TEXT",
        help="For a model of text pairs: the second text, once for each text.",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model", help="Model: name, name@alias or name:3. Default: the one in production."
    ),
]
TargetOption = Annotated[
    str | None,
    typer.Option("--target", help="Of a model with several targets: predict only this one."),
]
NoTruncate = Annotated[
    bool,
    typer.Option(
        "--no-truncate", help="Reject texts that are too long instead of truncating them."
    ),
]
Explain = Annotated[
    bool,
    typer.Option(
        "--explain",
        help="Show which words drove each prediction, and similar training examples. Slow: needs "
        "many predictions.",
    ),
]
File = Annotated[
    Path | None,
    typer.Option(
        "--file",
        help="File with one text per line, - for standard input. With --out, also a CSV, TSV, "
        ".xlsx, JSONL, JSON or Parquet file.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        help="New .csv, .jsonl or (for Label Studio) .json file for the rows of --file with their "
        "predictions.",
    ),
]
TextColumn = Annotated[
    str | None, typer.Option("--text-column", help="With --out: text column [text].")
]
TextPairColumn = Annotated[
    str | None,
    typer.Option(
        "--text-pair-column", help="With --out: column of the second text, for a model of pairs."
    ),
]
Sheet = Annotated[
    str | None,
    typer.Option("--sheet", help="With --out: sheet of a workbook [the first that is not empty]."),
]
Resume = Annotated[
    str | None,
    typer.Option("--resume", metavar="RUN", help="With --out: return to a prediction run."),
]


@with_client
def predict(  # noqa: PLR0913 - one parameter per option
    client: "Client",
    texts: Texts = None,
    pair: Pairs = None,
    model: Model = None,
    target: TargetOption = None,
    no_truncate: NoTruncate = False,
    explain: Explain = False,
    file: File = None,
    out: Out = None,
    text_column: TextColumn = None,
    text_pair_column: TextPairColumn = None,
    sheet: Sheet = None,
    resume: Resume = None,
    as_json: AsJson = False,
) -> None:
    """Classify texts with a model in production.

    With --out, a worker classifies every row of a file, up to a million. Ctrl-C does not stop it.
    """
    if out is not None:
        if texts or pair or no_truncate or explain or target:
            raise UsageError(
                "--out needs --file, and takes no texts, --pair, --target, --no-truncate or "
                "--explain",
                "wrong_options",
            )
        predict_file(
            client,
            out,
            file=file,
            resume=resume,
            text_column=text_column,
            text_pair_column=text_pair_column,
            sheet=sheet,
            model=model,
            as_json=as_json,
        )
        return
    if resume or text_column or text_pair_column or sheet:
        raise UsageError(
            "--resume, --text-column, --text-pair-column and --sheet need --out", "wrong_options"
        )
    given = _read_inputs(texts, pair, file)
    labels: list[list[LabelScore]] = []
    targets: list[dict[str, list[LabelScore]]] = []
    truncated, task = 0, ""
    batch_size = 1
    if len(given) > 1:
        with delayed_spinner(MODEL_LOADING_MESSAGE):
            batch_size = min(BATCH_SIZE, client.get_model_info(model).max_client_batch_size)
    for start in range(0, len(given), batch_size):
        with delayed_spinner(MODEL_LOADING_MESSAGE):
            batch = given[start : start + batch_size]
            answer = retry_while_overloaded(
                partial(client.predict, batch, model, truncate=not no_truncate, target=target)
            )
        model = answer.version or model  # a promotion in between must not mix versions
        labels += answer.labels
        targets += answer.targets
        truncated, task = truncated + answer.truncated, answer.task
    reasons = [
        retry_while_overloaded(partial(client.explain, text, str(model), target))
        for text in (given if explain else [])
    ]
    if as_json:
        predictions = [
            {
                **text_to_dict(text),
                "targets" if targets else "labels": scores,
                **({"explanation": why} if why else {}),
            }
            for text, scores, why in zip_longest(given, targets or labels, reasons)
        ]
        print_json(
            {"model": model, "task": task, "truncated": truncated, "predictions": predictions}
        )
        return
    if targets:
        print_table(
            [*targets[0], f"text ({model})"],
            [
                (*map(_summarize, of_text.values()), _truncate(text))
                for text, of_text in zip(given, targets, strict=True)
            ],
            empty="",
        )
    else:
        print_table(
            [*COLUMNS[task], f"text ({model})"],
            [
                (*_prediction_cells(task, scores), _truncate(text))
                for text, scores in zip(given, labels, strict=True)
            ],
            empty="",
        )
    for text, why in zip(given, reasons, strict=False):
        _print_explanation(task, text, why)
    if truncated:
        print_warning(
            f"{truncated} of {len(given)} texts were truncated to the model's maximum length."
        )


def _read_inputs(
    texts: list[str] | None, pair: list[str] | None, file: Path | None
) -> list[TextInput]:
    """Return the texts of the arguments and of the file, or the pairs. Raises `UsageError`."""
    if file and not files.lacks_table_suffix(file):
        raise UsageError(
            f"{file} is a table: choose a file for the predictions with --out. Files with one text "
            "per line are .txt, or - for standard input",
            "out_needed",
        )
    lines = read_numbered_lines(file) if file else ()
    single = [*(texts or []), *(line for _, line in lines)]
    if not single:
        raise UsageError("no text: pass texts as arguments or with --file", "no_text")
    if pair and len(pair) != len(single):
        raise UsageError(
            f"{len(single)} texts, but {len(pair)} second texts: give --pair once for each text",
            "unequal_pairs",
        )
    return [text_or_pair(text, second) for text, second in zip_longest(single, pair or [])]


COLUMNS = {
    "single_label": ("label", ">score"),
    "multi_label": ("labels",),
    "regression": (">value", "interval"),
}


def _prediction_cells(task: str, scores: "Sequence[LabelScore]") -> tuple[object, ...]:
    """Return what is predicted for a text, in the `COLUMNS` of the task."""
    best = scores[0]
    if task == "regression":
        if best.low is None or best.high is None:
            return best.score, None
        return best.score, f"{format_number(best.low)} to {format_number(best.high)}"
    if task == "multi_label":
        labels = [each for each in scores if each.predicted]
        return (", ".join(f"{each.label} {format_percent(each.score)}" for each in labels) or None,)
    return best.label, format_percent(best.score)


def _summarize(scores: "Sequence[LabelScore]") -> str | None:
    """Return what is predicted for one of several targets, in one cell."""
    best = scores[0]
    if best.label == NUMBER and len(scores) == 1:
        return format_number(best.score)
    shown = [each for each in scores if each.predicted] if best.predicted is not None else [best]
    return ", ".join(f"{each.label} {format_percent(each.score)}" for each in shown) or None


def _print_explanation(task: str, text: TextInput, why: "ExplanationView") -> None:
    """Print the words with the largest absolute scores: percentage points, or parts of a number."""

    def format_score(score: float) -> str:
        return format_number(score, sign="+") if task == "regression" else f"{100 * score:+.1f}"

    strongest = sorted(why.words, key=lambda word: -abs(word.score))
    print_line("")
    print_table(
        [f">towards {why.label}", f"words of: {_truncate(text)}"],
        [(format_score(word.score), word.text) for word in strongest[:MAX_EXPLAINED_WORDS]],
        empty=f"No words in: {_truncate(text)}",
    )
    _print_nearest_examples(text, why)


# Why the text of an example is not shown, in place of the text.
_HIDDEN_TEXTS = {
    "scope": "(needs the scope datasets:read)",
    "deleted": "(its dataset was deleted)",
    "forgotten": "(it was forgotten)",
    "elsewhere": "(its data are not stored on the server)",
    "unavailable": "(it cannot be read at the moment)",
}


def _print_nearest_examples(text: TextInput, why: "ExplanationView") -> None:
    """Print the training examples that are similar to a text, if the version has some."""
    from app.cli.labeling import describe_label

    if why.familiarity is None:
        return
    print_line("")
    print_table(
        [">similarity", "label", ">row", f"training examples similar to: {_truncate(text)}"],
        [
            (
                f"{each.similarity:.4f}",
                describe_label(each),
                each.row,
                _HIDDEN_TEXTS[each.hidden]
                if each.hidden
                else _truncate(text_or_pair(each.text or "", each.text_pair)),
            )
            for each in why.nearest
        ],
        empty="",
    )
    if why.familiarity.unfamiliar:
        print_warning(
            f"{_truncate(text)!r} is unlike anything that the model was trained on. Do not rely on "
            "this prediction."
        )


def _truncate(text: TextInput) -> str:
    text = " / ".join(texts_of_input(text))
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[: MAX_SHOWN_CHARS - 1]}…"
