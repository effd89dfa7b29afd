"""What a version predicts: its task and labels, and whether it reads pairs. Needs no model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from app.registry.service import ResolvedModel
from app.storage.store import Store, read_artifact_json, read_manifest
from lora_core import manifest
from lora_core.specs.encoded_labels import unqualified_outputs_of_target
from lora_core.specs.task import TaskType

_MAX_CACHED = 256


@dataclass(frozen=True)
class TargetSchema:
    """The task of a target, and its labels; numbers have none."""

    task: TaskType
    labels: Sequence[str]


@dataclass(frozen=True)
class ModelIOSchema:
    """What a version predicts. `targets` has one entry for each of several targets; a model with
    one has an entry with the name `""`."""

    targets: Mapping[str, TargetSchema]
    pairs: bool

    @property
    def has_several_targets(self) -> bool:
        return "" not in self.targets


def read_io_schema(store: Store, resolved: ResolvedModel) -> ModelIOSchema:
    """Return what a version predicts. Its files never change, so the result is cached.

    Raises `StoredArtifactCorrupt`, and the errors of a store.
    """
    return _read_outputs(store, resolved)


@lru_cache(maxsize=_MAX_CACHED)
def _read_outputs(store: Store, resolved: ResolvedModel) -> ModelIOSchema:
    content = read_manifest(store, resolved.artifact, name=f"model {resolved.ref}")
    spec: dict[str, Any] = content["spec"]
    labels = _labels(store, resolved, content)
    task = spec.get("task") or {}
    pairs = spec.get("data", {}).get("text_pair_column") is not None
    if targets := task.get("targets"):
        found = {
            name: TargetSchema(
                target["type"], _names(target["type"], unqualified_outputs_of_target(name, labels))
            )
            for name, target in targets.items()
        }
        return ModelIOSchema(found, pairs)
    task_type = task.get("type", "single_label")
    if task_type == "sequence_classification":  # before tasks had names of their own
        task_type = "single_label"
    return ModelIOSchema({"": TargetSchema(task_type, _names(task_type, labels))}, pairs)


def _labels(store: Store, resolved: ResolvedModel, content: Mapping[str, Any]) -> Sequence[str]:
    """Return the names of the outputs. Manifests of imports may lack them."""
    if labels := content.get("labels") or content.get("metrics", {}).get("labels"):
        return tuple(labels)
    merged = f"{manifest.MERGED_DIR}/config.json"
    file = merged if merged in content["files"] else manifest.CLASSIFIER_FILE
    config = read_artifact_json(store, resolved.artifact, file, name=f"model {resolved.ref}")
    names = config.get("id2label", manifest.DEFAULT_ID2LABEL)
    return tuple(names[str(index)] for index in range(len(names)))


def _names(task: TaskType, outputs: Sequence[str]) -> Sequence[str]:
    return () if task == "regression" else tuple(outputs)
