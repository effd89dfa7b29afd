"""Whether the parts of a description can be drawn at all, from what is known without the rows."""

from collections.abc import Collection
from dataclasses import dataclass

from lora_core.errors.data import TooFewRows
from lora_core.specs.data import DataSpec, Split, count_of


@dataclass(frozen=True)
class Known:
    """What there is to train on, before anything is drawn from it."""

    rows: int
    labels: int
    duplicates: int = 0  # rows whose text stands in an earlier row
    conflicting: int = 0  # texts that stand there with more than one label

    @property
    def least(self) -> int:
        """Texts that train keeps: one of each label, but a text counts for one label alone."""
        return 1 if self.conflicting else self.labels


def check_room(spec: DataSpec, drawn: Collection[Split], known: Known) -> None:
    """Refuse what `load` is sure to refuse. Raises `TooFewRows`.

    Without duplicates that is all it refuses for its size. With them the run sees more: copies of a
    text stay together, so a part may take fewer rows than it asks for.
    """
    rows, least = known.rows, known.least
    sizes = {Split.TEST: spec.test_size, Split.VALIDATION: spec.validation_size}
    counts = {part: count_of(size, rows) for part, size in sizes.items() if part in drawn}
    asked = sum(counts.values())
    train, rounding = least, 0
    if spec.train_size is not None:
        train = count_of(spec.train_size, rows)
        rounding = 2 if isinstance(spec.train_size, float) else 0  # as in `split.cap`
    if (
        train < least
        or asked + train > rows + known.duplicates + rounding
        or asked + least > rows + known.duplicates
        or max(counts.values(), default=0) + least > rows
        or len(counts) + least > rows - known.duplicates
    ):
        plan = [f"{count:,} for {part.value}" for part, count in counts.items()]
        plan.append(f"{max(train, least):,} for train (at least one of each label)")
        available = f"{rows - known.duplicates:,}"
        raise TooFewRows(available=available, wanted=", ".join(plan))
