"""The cells of a sweep for other programs: CSV, and the `results.txt` of "LoRA from scratch"."""

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

from app.csv_cells import inert
from app.sweeps.snapshot import FIGURES, PARTS, Board, Cell
from lora_core.specs.method import Head, LoraSpec, Role

LINE = "-" * 48
ACCURACIES = ("Train acc: ", "Val acc:   ", "Test acc:  ")  # of PARTS


def as_csv(board: Board) -> str:
    """A header, and a row a cell, in the order of the board.

    Columns: number, state, the fields of the space, share, trainable_parameters, seconds, each
    figure that any cell has (`validation_accuracy`), job_id, error. What is unknown is empty, lists
    are `query+value`, true and false as JSON has them. A text that a spreadsheet would take for
    a formula gets an apostrophe before it.
    """
    figures = [
        (part, name)
        for part in PARTS
        for name in FIGURES
        if any(cell.figure(part, name) is not None for cell in board.cells)
    ]
    text = io.StringIO()
    # Lines end in \r\n (RFC 4180): only so does Python 3.11 quote a lone \r inside a value.
    rows = csv.writer(text)
    rows.writerow(
        [
            *("number", "state", *board.fields, "share", "trainable_parameters", "seconds"),
            *(f"{part}_{name}" for part, name in figures),
            *("job_id", "error"),
        ]
    )
    for cell in board.cells:
        row = [
            *(cell.number, cell.state, *(cell.settings.get(field) for field in board.fields)),
            *(cell.share, cell.trainable_parameters, cell.seconds),
            *(cell.figure(part, name) for part, name in figures),
            *(cell.job_id, cell.error),
        ]
        rows.writerow([_plain(value) for value in row])
    return text.getvalue()


def as_results_txt(board: Board) -> str:
    """A block for each LoRA cell that ran whole and has all three accuracies.

    The format, 48 dashes and all, is that of `03_finetune-lora-script.py` by Sebastian Raschka
    (Lightning AI, "LoRA from Scratch"), less its last two settings, `device` and `verbose`.
    """
    return "".join(f"{line}\n" for cell in board.cells for line in _block(cell))


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        value = "+".join(str(each) for each in value)
    elif isinstance(value, bool | dict):
        value = json.dumps(value, ensure_ascii=False)
    return inert(value)


def _block(cell: Cell) -> Iterator[str]:
    method = cell.spec.get("method", {})
    known = [cell.figure(part, "accuracy") for part in PARTS]
    accuracies = [each for each in known if each is not None]
    if not cell.whole or method.get("type") != "lora" or len(accuracies) < len(PARTS):
        return
    yield LINE
    for name, value in _settings(LoraSpec.model_validate(method)):
        yield f"{name}: {value}"
    for name, accuracy in zip(ACCURACIES, accuracies, strict=True):
        yield f"{name}{100 * accuracy:.2f}%"
    yield LINE


def _settings(method: LoraSpec) -> Iterator[tuple[str, object]]:
    yield "lora_r", method.r
    yield "lora_alpha", int(method.alpha) if method.alpha.is_integer() else method.alpha
    for role in Role:
        yield f"lora_{role.value}", role in method.targets
    yield "lora_head", method.head is Head.LORA
