"""What a model predicted for a text, in the form in which it is counted and kept."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import prod
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from lora_core.specs.encoded_labels import encode_label, encode_targets, qualified_output_name

if TYPE_CHECKING:  # it needs NumPy and SciPy, which this module does not
    from lora_core.inference.decoding import DecodedOutput
    from lora_core.specs.task import TaskType

MAX_SCORES = 20  # that are kept of each target, the highest
ONE_TARGET = ""  # stands for the target of a model that has only one


@dataclass(frozen=True, slots=True)
class OutputTaskTypes:
    """What the outputs of a prediction are: of a task or, if `targets` is not empty, of several."""

    task: "TaskType"
    targets: "Mapping[str, TaskType]"

    def split_by_target(
        self, row: "Sequence[DecodedOutput]"
    ) -> "Iterator[tuple[str, TaskType, list[DecodedOutput]]]":
        """Yield name, task and outputs of each target; of a single one the name `ONE_TARGET`."""
        if not self.targets:
            yield ONE_TARGET, self.task, list(row)
            return
        for name, outputs in groupby(row, key=attrgetter("target")):
            yield name, self.targets[name], list(outputs)


def encode_predicted_label(predicted: OutputTaskTypes, row: "Sequence[DecodedOutput]") -> str:
    """Return the predicted label as a row of a dataset has it (`lora_core.data.label_readers`)."""
    parts = {name: _answer(task, outputs) for name, task, outputs in predicted.split_by_target(row)}
    if predicted.targets:
        return encode_targets(parts)
    return encode_label(parts[ONE_TARGET])


def predicted_labels(predicted: OutputTaskTypes, row: "Sequence[DecodedOutput]") -> Iterator[str]:
    """Yield the predicted labels to count; of several targets TARGET/LABEL. Numbers have none."""
    for name, task, outputs in predicted.split_by_target(row):
        answer = _answer(task, outputs)
        if not isinstance(answer, float):
            for label in (answer,) if isinstance(answer, str) else answer:
                yield qualified_output_name(name, label) if name else label


def highest_scores(predicted: OutputTaskTypes, row: "Sequence[DecodedOutput]") -> dict[str, float]:
    """Return the scores to keep, by output; of several targets by TARGET/LABEL."""
    return {
        qualified_output_name(name, output.label) if name else output.label: round(output.score, 6)
        for name, _, outputs in predicted.split_by_target(row)
        for output in outputs[:MAX_SCORES]
    }


def confidence_by_target(
    predicted: OutputTaskTypes, row: "Sequence[DecodedOutput]"
) -> dict[str, float]:
    """Return the model's own probability that its answer is right, by target.

    Of a multi-label task it is that of the whole set of labels, as if they were independent.
    Numbers have none.
    """
    found = {}
    for name, task, outputs in predicted.split_by_target(row):
        if task == "single_label":
            found[name] = outputs[0].score
        elif task == "multi_label":
            found[name] = prod(each.score if each.predicted else 1 - each.score for each in outputs)
    return found


def _answer(task: "TaskType", outputs: "Sequence[DecodedOutput]") -> Any:
    """Return a name, a tuple of names, or a number."""
    match task:
        case "multi_label":
            return tuple(sorted(output.label for output in outputs if output.predicted))
        case "regression":
            return float(outputs[0].score) + 0.0  # -0.0 becomes 0.0, as in labels of rows
        case _:
            return outputs[0].label
