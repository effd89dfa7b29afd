"""`loraworks predict`: what a model thinks of a text, or of every row of a file."""

from itertools import zip_longest
from pathlib import Path
from typing import Annotated

import typer

from app.cli import text_files
from app.cli.client import Client
from app.cli.errors import Misuse
from app.cli.options import AsJson, connected
from app.cli.output import FIRST_ANSWER, patience, percent, say, table, warn
from app.cli.output import as_json as print_json
from app.cli.prediction_runs import answer_file
from app.cli.responses import Json, Label

BATCH = 32  # texts in one call
SHOWN = 60  # characters of a text in the table
STRONGEST = 10  # words that drove an answer

Texts = Annotated[list[str] | None, typer.Argument(metavar="TEXT…", help="One or more texts.")]
Model = Annotated[
    str | None,
    typer.Option("--model", help="name, name@alias or name:3. Default: the one in production."),
]
NoTruncate = Annotated[
    bool,
    typer.Option("--no-truncate", help="Refuse texts that are too long; do not cut."),
]
Explain = Annotated[
    bool,
    typer.Option("--explain", help="Tell which words drove each answer: asks many texts for it."),
]
File = Annotated[
    Path | None,
    typer.Option(
        "--file",
        help="A file with one text a line, - for standard input. With --out also a CSV, TSV, "
        ".xlsx, JSONL or Parquet file.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", help="New .csv or .jsonl: the rows of --file with their answers."),
]
TextColumn = Annotated[
    str | None, typer.Option("--text-column", help="With --out: column of the texts [text].")
]
Sheet = Annotated[
    str | None,
    typer.Option("--sheet", help="With --out: of a workbook [the first with any cells]."),
]
Resume = Annotated[
    str | None,
    typer.Option("--resume", metavar="RUN", help="With --out: come back to a prediction run."),
]


@connected
def predict(  # noqa: PLR0913 - one parameter per option
    client: Client,
    texts: Texts = None,
    model: Model = None,
    no_truncate: NoTruncate = False,
    explain: Explain = False,
    file: File = None,
    out: Out = None,
    text_column: TextColumn = None,
    sheet: Sheet = None,
    resume: Resume = None,
    as_json: AsJson = False,
) -> None:
    """Classify texts with a model in production.

    With --out every row of a file, however large: a worker does it, and Ctrl-C does not stop it.
    """
    if out is not None:
        if texts or no_truncate or explain:
            raise Misuse(
                "--out takes a --file, neither texts nor --no-truncate nor --explain",
                "wrong_options",
            )
        answer_file(
            client,
            out,
            file=file,
            resume=resume,
            text_column=text_column,
            sheet=sheet,
            model=model,
            as_json=as_json,
        )
        return
    if resume or text_column or sheet:
        raise Misuse("--resume, --text-column and --sheet need --out", "wrong_options")
    if file and not text_files.is_lines(file):
        raise Misuse(
            f"{file} is a table: give --out for its answers; one text a line is .txt, or - for "
            "standard input",
            "out_needed",
        )
    given = [*(texts or []), *(text_files.read(file) if file else [])]
    if not given:
        raise Misuse("no text: give some as arguments or with --file", "no_text")
    labels: list[list[Label]] = []
    truncated = 0
    for start in range(0, len(given), BATCH):
        with patience(FIRST_ANSWER):
            answer = client.predict(given[start : start + BATCH], model, truncate=not no_truncate)
        model = answer.version or model  # a promotion in between must not mix two versions
        labels += answer.labels
        truncated += answer.truncated
    reasons = [client.explain(text, str(model)) for text in given] if explain else []
    if as_json:
        predictions = [
            {"text": text, "labels": scores, **({"explanation": why} if why else {})}
            for text, scores, why in zip_longest(given, labels, reasons)
        ]
        print_json({"model": model, "truncated": truncated, "predictions": predictions})
        return
    table(
        ["label", ">score", f"text ({model})"],
        [
            (scores[0]["label"], percent(scores[0]["score"]), _short(text))
            for text, scores in zip(given, labels, strict=True)
        ],
        empty="",
    )
    for text, why in zip(given, reasons, strict=False):
        _show_reasons(text, why)
    if truncated:
        warn(f"{truncated} of {len(given)} texts were longer than the model reads and were cut.")


def _show_reasons(text: str, why: Json) -> None:
    """The words with the highest scores, whatever their signs."""
    strongest = sorted(why["words"], key=lambda word: -abs(word["score"]))
    say("")
    table(
        [f">towards {why['label']}", f"words of: {_short(text)}"],
        [(f"{100 * word['score']:+.1f}", word["text"]) for word in strongest[:STRONGEST]],
        empty=f"No words in: {_short(text)}",
    )


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"
