"""The learning curve of a run by the linear model: would more labels help? Needs no torch."""

from lora_core.data import learning_curve as curve
from lora_core.data.duplicates import grouped
from lora_core.data.more_labels import MoreLabels, without_curve
from lora_core.data.records import Splits
from lora_core.data.rows import Row
from lora_core.events import Phase
from lora_core.progress_reporter import Pulse, while_beating


def of_splits(splits: Splits, pulse: Pulse) -> MoreLabels:
    """Of the training part, or from the cache. Raises `DiskFull`, `Stopped`."""
    distinct = distinct_texts(splits)
    answer = without_curve([row.label for row in distinct])
    if answer is not None:
        return answer
    pulse.enter(Phase.LEARNING_CURVE)
    facts = {"basis": "linear", "data": splits.digest}
    return while_beating(pulse, lambda: curve.cached(facts, lambda: curve.of_rows(distinct)))


def distinct_texts(splits: Splits) -> list[Row]:
    """The first row of each training text, numbered by its place among them."""
    rows = [Row(i, each.text, splits.labels[each.label]) for i, each in enumerate(splits.train)]
    return grouped(rows)[0]
