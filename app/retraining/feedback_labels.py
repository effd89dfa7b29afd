"""The labels of live texts: one for each text, and which of them versions are evaluated on.

Texts that people volunteer are those on which they saw an error of production. Any other model
looks better on them, so they are only trained on. Versions are evaluated on texts that were drawn
at random: half of these is held out for good, by a hash of the text, and never trained on.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from app.feedback.tables import Feedback
from app.retraining.schemas import TextExclusionReason
from lora_core.data.stratify import normalize_text
from lora_core.specs.encoded_labels import LabelValue, decode_label, encode_label, encode_targets
from lora_core.specs.task import SeveralTargetsSpec, TaskSpec, TaskTypeOfTarget

_HELD_OUT = b"held out of retraining\0"  # so that other draws by hash are independent of this one
ONLY_TARGET = ""  # the target of a model with one


@dataclass(frozen=True)
class LiveText:
    """A text with feedback. `label` is in the form of `lora_core.data.label_readers`."""

    text: str
    pair: str | None
    label: str
    sampled: bool  # drawn at random for a review

    @property
    def key(self) -> bytes:
        return hash_normalized_text(self.text, self.pair)


@dataclass(frozen=True)
class TaskIOSchema:
    """What the version in production reads and predicts: the type of each target, and pairs."""

    tasks: Mapping[str, TaskTypeOfTarget]
    pairs: bool

    @classmethod
    def of_task(cls, task: TaskSpec, *, pairs: bool) -> "TaskIOSchema":
        if isinstance(task, SeveralTargetsSpec):
            return cls({name: each.type for name, each in task.targets.items()}, pairs)
        return cls({ONLY_TARGET: task.type}, pairs)


def hash_normalized_text(text: str, pair: str | None) -> bytes:
    """Return what texts are compared by: a hash of the normalized text, or of both of a pair."""
    sides = [normalize_text(each) for each in (text, pair) if each is not None]
    return hashlib.sha256("\0".join(sides).encode()).digest()[:16]


def is_held_out(key: bytes) -> bool:
    """Return whether a text, if it is drawn at random, is for evaluation and never for training."""
    return hashlib.sha256(_HELD_OUT + key).digest()[0] % 2 == 0


def resolve_feedback_labels(
    feedback: Iterable[Feedback], form: TaskIOSchema
) -> tuple[list[LiveText], Counter[TextExclusionReason]]:
    """Return the label of each text, and how many texts were left out for which reason.

    Of each author, the newest feedback on a text counts; that on versions with another task does
    not. Where authors disagree, the text is left out; of numbers, the mean counts. `feedback` has
    texts, the oldest first.
    """
    by_text: dict[bytes, list[Feedback]] = defaultdict(list)
    left_out = Counter[TextExclusionReason]()
    for row in feedback:
        if row.text is not None:
            by_text[hash_normalized_text(row.text, row.text_pair)].append(row)
    texts = []
    for rows in by_text.values():
        label = _resolve(rows, form)
        if isinstance(label, TextExclusionReason):
            left_out[label] += 1
            continue
        newest = rows[-1]
        sampled = any(row.sampled for row in rows)
        texts.append(LiveText(newest.text or "", newest.text_pair, label, sampled))
    return texts, left_out


def _resolve(rows: Sequence[Feedback], form: TaskIOSchema) -> str | TextExclusionReason:
    """Return the label of a text, or why there is none."""
    labels: dict[str, dict[str, str]] = defaultdict(dict)  # by target, then by author
    for row in rows:
        if form.tasks.get(row.target) == row.task and (row.text_pair is not None) == form.pairs:
            labels[row.target][row.author] = row.label
    if not labels:
        return TextExclusionReason.OTHER_TASK
    if labels.keys() != form.tasks.keys():
        return TextExclusionReason.INCOMPLETE
    values: dict[str, LabelValue] = {}
    for target, by_author in labels.items():
        value = _agreed(list(by_author.values()), form.tasks[target])
        if value is None:
            return TextExclusionReason.DISAGREEMENT
        values[target] = value
    only = values.get(ONLY_TARGET)
    return encode_targets(values) if only is None else encode_label(only)


def _agreed(labels: Sequence[str], task: TaskTypeOfTarget) -> LabelValue | None:
    """Return the label that all authors give, of numbers the mean; None if they disagree."""
    if task == "regression":
        numbers = [float(label) for label in labels]
        return sum(numbers) / len(numbers)
    return decode_label(labels[0], task) if len(set(labels)) == 1 else None
