"""Flipped labels among the most suspect ones, as the service finds them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.loop import plan, sets
from benchmarks.loop.plan import FLIPPED_SHARE, TOP_SUSPECTS, Cell
from benchmarks.loop.sets import LoopSet
from lora_core.data.file_inspection import FileContents
from lora_core.data.label_readers import LabelFormat
from lora_core.data.rows import ColumnSelection, ParseInfo, TextRow
from lora_core.data.suspect_rows import find_suspect_rows
from lora_core.specs.encoded_labels import encode_label_set


def run(cell: Cell, *, quick: bool) -> dict[str, Any]:
    """Precision among the first suspects, and the share of flipped labels that are listed.

    Of sets of labels, each name is a label.
    """
    data, size = sets.load(cell.data, quick=quick), plan.size(quick=quick)
    rows = data.texts.pool[: size.suspect_texts]
    given, flipped = _flipped(rows, data)
    columns = ColumnSelection(label_format=LabelFormat(data.task))
    report = find_suspect_rows(FileContents(given, columns, (), None, ParseInfo()))
    hits, right = [], []
    for each in report.suspects:
        for name in each.names or (each.label,):
            hit = (each.row - 1, name) in flipped
            hits.append(hit)
            # A name is there or not, so the proposal for one that was flipped is right.
            right.append(hit if each.names else each.proposed == rows[each.row - 1].label)
    top = min(TOP_SUSPECTS, len(rows) // 10)
    return {
        "texts": len(rows),
        "flipped": len(flipped),
        "suspects": report.found,  # rows, of which the most suspect ones are listed
        "precision": float(np.mean(hits[:top])) if hits else 0.0,
        "recall": sum(hits) / len(flipped),
        "right_proposals": float(np.mean(right[:top])) if right else 0.0,
    }


def _flipped(rows: Sequence[TextRow], data: LoopSet) -> tuple[list[TextRow], set[tuple[int, str]]]:
    """The rows with some labels flipped, numbered from 1; and the places and names of these."""
    rng = np.random.default_rng(0)
    if data.task == "multi_label":
        truth = data.multi_hot(data.labels[: len(rows)])
        flips = rng.random(truth.shape) < FLIPPED_SHARE
        labels = [
            encode_label_set(data.names[i] for i in np.flatnonzero(each)) for each in truth ^ flips
        ]
        found = {(int(row), data.names[name]) for row, name in np.argwhere(flips)}
    else:
        names, numbers = np.unique([row.label for row in rows], return_inverse=True)
        chosen = rng.permutation(len(rows))[: round(FLIPPED_SHARE * len(rows))]
        shift = rng.integers(1, len(names), size=len(rows))
        numbers[chosen] = (numbers + shift)[chosen] % len(names)
        labels = names[numbers].tolist()
        found = {(int(row), labels[row]) for row in chosen}
    return [
        replace(row, number=i + 1, label=label)
        for i, (row, label) in enumerate(zip(rows, labels, strict=True))
    ], found
