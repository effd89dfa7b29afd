"""The rows of a file with their answers: one JSON object a line, in the order of the file."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import TextIO

from lora_core.data.table import Record
from lora_core.specs.predict import LABEL, SCORE, SCORES

Scored = Sequence[tuple[str, float]]  # all labels, highest first


class Results:
    """Writes rows, and counts what was answered.

    To the cells of a row come `predicted_label`, its probability `predicted_score`, and
    `predicted_scores`, the probability of every label.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.rows = 0
        self.columns: dict[str, None] = {}  # of all rows, in the order in which they came up
        self.predicted: Counter[str] = Counter()

    def write(self, records: Sequence[Record], answers: Sequence[Scored]) -> None:
        """The next rows with their answers."""
        for record, scored in zip(records, answers, strict=True):
            label, score = scored[0]
            answer = {LABEL: label, SCORE: score, SCORES: dict(scored)}
            line = json.dumps({**record.cells, **answer}, ensure_ascii=False, allow_nan=False)
            self._file.write(line + "\n")
            self.columns.update(dict.fromkeys(record.cells))
            self.predicted[label] += 1
        self.rows += len(records)
