"""Results of a prediction run for Label Studio: tasks with predictions, and a labeling
configuration.

The format: https://labelstud.io/guide/predictions
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, BinaryIO
from xml.etree import ElementTree

from lora_core.data.rows import find_column
from lora_core.specs.predict import (
    LABEL,
    LABELS,
    RESERVED_COLUMNS,
    SCORE,
    SCORES,
    TARGETS,
    PredictDataSpec,
)

TASKS_PER_CHUNK = 200
_CONTROL = "label"  # the name of the choices, unless the model has several targets
_NOT_IN_VARIABLES = re.compile(r"\W", re.ASCII)  # what the name after a `$` cannot have


@dataclass(frozen=True)
class LabelStudioProject:
    """What a project needs to show the results: which texts, and the choices of each target.

    `targets` have `task` and `labels`, as in the manifest of the results; numbers are not shown.
    """

    model: str
    data: PredictDataSpec
    columns: Collection[str]  # of the file
    targets: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of_results(
        cls, manifest: Mapping[str, Any], *, model: str, data: PredictDataSpec
    ) -> "LabelStudioProject | None":
        """Return the project for results; None if nothing but numbers is predicted."""
        # Of several targets, those of each; older runs have no task: all were single-label.
        targets = manifest.get("targets") or {
            _CONTROL: {
                "task": manifest.get("task", "single_label"),
                "labels": manifest["labels"],
            }
        }
        choices = {name: each for name, each in targets.items() if each["labels"]}
        return cls(model, data, manifest["columns"], choices) if choices else None

    @cached_property
    def text_variables(self) -> dict[str, str]:
        """The name that each text column has in the data of a task, such as `Your_review`."""
        columns = (self.data.text_column, self.data.text_pair_column)
        names: dict[str, str] = {}
        for named in filter(None, columns):
            column = find_column(named, self.columns) or named
            name = _NOT_IN_VARIABLES.sub("_", column)
            taken = {*self.columns, *names.values()} - {column}
            names[column] = _unused(name, taken)
        return names

    @property
    def _shown_text(self) -> str:
        """The name of the element that shows the text, which the choices are about."""
        return _unused("text", self.targets)

    def labeling_config(self) -> str:
        """Return the labeling configuration as XML."""
        view = ElementTree.Element("View")
        shown = self._shown_text
        for name, variable in zip(
            (shown, f"{shown}_pair"), self.text_variables.values(), strict=False
        ):
            ElementTree.SubElement(view, "Text", name=name, value=f"${variable}")
        for target, each in self.targets.items():
            if len(self.targets) > 1:
                ElementTree.SubElement(view, "Header", value=target)
            single = each["task"] == "single_label"
            choices = ElementTree.SubElement(
                view,
                "Choices",
                name=target,
                toName=shown,
                choice="single" if single else "multiple",
                required="true" if single else "false",
                showInline="true",
            )
            for label in each["labels"]:
                ElementTree.SubElement(choices, "Choice", value=label)
        ElementTree.indent(view)
        return ElementTree.tostring(view, encoding="unicode") + "\n"

    def stream_tasks_as_json(self, file: BinaryIO) -> Iterator[bytes]:
        """Yield a JSON array with a task for each line of the results, and close the file."""
        with file:
            yield b"["
            separator = "\n"
            while lines := list(islice(file, TASKS_PER_CHUNK)):
                tasks = (json.dumps(self._task(json.loads(line)), ensure_ascii=False)
                         for line in lines)  # fmt: skip
                yield (separator + ",\n".join(tasks)).encode()
                separator = ",\n"
            yield b"\n]\n"

    def _task(self, row: Mapping[str, Any]) -> dict[str, Any]:
        data = {
            self.text_variables.get(name, name): cell
            for name, cell in row.items()
            if name not in RESERVED_COLUMNS
        }
        answers = row.get(TARGETS) or {_CONTROL: row}
        results, confidences = [], []
        for target in self.targets:
            labels, confidence = _predicted(answers[target])
            confidences.append(confidence)
            if labels:
                results.append(
                    {
                        "id": target,  # unique in the task
                        "from_name": target,
                        "to_name": self._shown_text,
                        "type": "choices",
                        "value": {"choices": labels},
                        "score": confidence,
                    }
                )
        # The score sorts tasks in Label Studio: that of the least certain answer.
        prediction = {"model_version": self.model, "score": min(confidences), "result": results}
        return {"data": data, "predictions": [prediction]}


def _predicted(answer: Mapping[str, Any]) -> tuple[list[str], float]:
    """Return the predicted labels, and the probability of the least certain decision."""
    if LABEL in answer:
        return [answer[LABEL]], answer[SCORE]
    labels: list[str] = answer[LABELS]
    scores: dict[str, float] = answer[SCORES]
    return labels, min(p if name in labels else 1 - p for name, p in scores.items())


def _unused(name: str, taken: Collection[str]) -> str:
    while name in taken:
        name += "_"
    return name
