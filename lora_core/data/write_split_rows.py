"""Write the rows of a run, split by split, to a file that needs no reader of data files."""

from pathlib import Path

from lora_core.data.labeled_split_rows_file import LabeledSplitRow, format_split_row
from lora_core.data.load import load_splits
from lora_core.specs.data import Split
from lora_core.specs.fields import FrozenModel
from lora_core.specs.train import TrainSpec
from lora_core.tasks.build import build_task


class SplitRowCounts(FrozenModel):
    """How many rows of each split were written."""

    train: int
    validation: int
    test: int


def write_split_rows(spec: TrainSpec, out: Path) -> SplitRowCounts:
    """Write the rows that a run reads to a new file, in the order of `Split`.

    Raises what `load_splits` raises.
    """
    splits = load_splits(spec.data, spec.task)
    task = build_task(spec.task, splits.labels, [each.label for each in splits.train])
    with out.open("x", encoding="utf-8") as file:
        for split in Split:
            for each in splits.examples_of(split):
                label = task.target_to_label(each.label)
                file.write(
                    format_split_row(LabeledSplitRow(split, each.row, each.text, each.pair, label))
                )
    return SplitRowCounts(**{split.value: len(splits.examples_of(split)) for split in Split})
