"""One label per text where several annotators have labeled it."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from app.labeling.repository import AnnotatorLabel
from app.labeling.schemas import ChosenTextReason, LabelingTaskType, ShownValue

LabelValue = str | frozenset[str] | float  # as the library takes it


@dataclass(frozen=True)
class ResolvedLabel:
    """The label of a text, and who gave it."""

    row: int
    value: LabelValue
    annotators: tuple[str, ...]
    is_random: bool  # the text was drawn at random

    def is_of_key(self, name: str) -> bool:
        """Return whether only annotators of an API key of this name gave it."""
        return all(f"{each}/".startswith(f"{name}/") for each in self.annotators)

    @property
    def json_value(self) -> ShownValue:
        """The label as a request has it."""
        return sorted(self.value) if isinstance(self.value, frozenset) else self.value


def resolve_labels(
    labels: Mapping[int, Sequence[AnnotatorLabel]], task: LabelingTaskType
) -> list[ResolvedLabel]:
    """Return one label per text, by row.

    One label: the most frequent, of equally frequent ones the newest. Several labels: those that
    at least half of the annotators gave. A number: the mean.
    """
    return [
        ResolvedLabel(
            row,
            _resolve([parse_stored_label(each.value, task) for each in of_text]),
            tuple(dict.fromkeys(each.annotator for each in of_text)),
            any(each.reason is ChosenTextReason.RANDOM for each in of_text),
        )
        for row, of_text in sorted(labels.items())
    ]


def list_label_pairs_for_kappa(
    labels: Mapping[int, Sequence[AnnotatorLabel]], task: LabelingTaskType
) -> list[tuple[LabelValue, LabelValue]]:
    """Return the first two labels of each text that two annotators have labeled."""
    return [
        (parse_stored_label(of_text[0].value, task), parse_stored_label(of_text[1].value, task))
        for of_text in (sorted(each, key=lambda label: label.annotator) for each in labels.values())
        if len(of_text) > 1
    ]


def parse_stored_label(value: ShownValue, task: LabelingTaskType) -> LabelValue:
    """Return a stored label as the library takes it."""
    match task:
        case "single_label":
            return str(value)
        case "multi_label":
            return frozenset(value if isinstance(value, list) else [str(value)])
        case "regression":
            return float(value)  # type: ignore[arg-type]  # stored as a number


def _resolve(values: Sequence[LabelValue]) -> LabelValue:
    """Return one label for the labels of a text, the oldest first."""
    sets = [each for each in values if isinstance(each, frozenset)]
    if sets:
        return _at_least_half(sets)
    numbers = [each for each in values if isinstance(each, float)]
    if numbers:
        return sum(numbers) / len(numbers)
    counts = Counter(values)
    return max(reversed(values), key=lambda value: counts[value])  # the first of equal ones


def _at_least_half(sets: Collection[frozenset[str]]) -> frozenset[str]:
    counts = Counter(name for each in sets for name in each)
    return frozenset(name for name, count in counts.items() if 2 * count >= len(sets))
