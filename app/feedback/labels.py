"""Labels of feedback: checked against what the model predicts, and their form in JSON."""

from collections.abc import Sequence

from app.feedback.errors import (
    FeedbackLabelUnknown,
    FeedbackTargetRequired,
    FeedbackTargetUnknown,
    WrongFeedbackField,
)
from app.feedback.schemas import FeedbackItem, LabelValue
from app.registry.model_io_schemas import ModelIOSchema, TargetSchema
from lora_core.data.label_readers import normalize_label_name
from lora_core.specs.encoded_labels import decode_label_set, encode_label, extract_target_label
from lora_core.specs.task import TaskType

MAX_LISTED_LABELS = 20
_FIELDS = {"single_label": "label", "multi_label": "labels", "regression": "value"}


def resolve_feedback_target(
    item: FeedbackItem, outputs: ModelIOSchema, *, version: str, predicted: str | None = None
) -> tuple[str, TargetSchema]:
    """Return the name of the target that feedback is about, empty for the only one, and its
    outputs. `predicted`: the only one that the request asked for.

    Raises `FeedbackTargetRequired`, `FeedbackTargetUnknown`.
    """
    name = item.target or predicted or ""
    if outputs.has_several_targets and not name:
        raise FeedbackTargetRequired(
            version=version, targets=", ".join(outputs.targets), at="target"
        )
    if name not in outputs.targets:
        targets = (
            ", ".join(outputs.targets)
            if outputs.has_several_targets
            else "a single one: omit `target`"
        )
        raise FeedbackTargetUnknown(version=version, target=name, targets=targets, at="target")
    return name, outputs.targets[name]


def validate_and_serialize_label(item: FeedbackItem, outputs: TargetSchema, *, version: str) -> str:
    """Return the label as rows of a dataset have it (`lora_core.data.label_readers`).

    Raises `WrongFeedbackField`, `FeedbackLabelUnknown`.
    """
    field = _FIELDS[outputs.task]
    if getattr(item, field) is None:
        raise WrongFeedbackField(version=version, task=outputs.task, field=field, at=field)
    if item.value is not None:
        return encode_label(item.value)
    # Labels of imported models may have another Unicode form, or white space around them.
    known = {normalize_label_name(label): label for label in outputs.labels}
    sent = [item.label] if item.label is not None else item.labels or []
    names = [known.get(name, name) for name in sent]
    unknown = [name for name in names if name not in outputs.labels]
    if unknown and not item.new_label:
        raise FeedbackLabelUnknown(
            version=version, label=unknown[0], labels=_listed(outputs.labels), at=field
        )
    return encode_label(names[0] if item.label is not None else tuple(names))


def deserialize_label(label: str, task: TaskType) -> LabelValue:
    """Return a label as JSON has it: a name, a list of names, or a number."""
    match task:
        case "multi_label":
            return list(decode_label_set(label))
        case "regression":
            return float(label)
        case _:
            return label


def extract_target_answer(answer: str, target: str, *, several: bool) -> str:
    """Return what was predicted for one target. `several`: whether `answer` has all of them."""
    return extract_target_label(answer, target) if several else answer


def _listed(labels: Sequence[str]) -> str:
    shown = ", ".join(repr(label) for label in labels[:MAX_LISTED_LABELS])
    more = len(labels) - MAX_LISTED_LABELS
    return f"{shown} and {more} more" if more > 0 else shown
