"""Resolve a description into a job that can run. Everything is resolved, nothing is stored."""

import hashlib
import json
import math
from dataclasses import dataclass

from pydantic import ValidationError
from sqlalchemy.orm import Session

from app.database.base import JsonObject
from app.jobs import data_sources, estimate, pretrained_bases, repository
from app.jobs.data_sources import ResolvedData
from app.jobs.errors import GpuIndexNotAllowed, SettingUnfitForTask
from app.jobs.pretrained_bases import ResolvedBase
from app.jobs.schemas import ParameterCountsView
from app.queue.enums import DeviceClass
from app.queue.tables import Job
from app.settings import Settings
from lora_core import compatibility
from lora_core.compatibility import EncoderShape
from lora_core.resolve_defaults import (
    resolve_defaults,
    resolve_epochs_and_batch_size,
    resolve_learning_rates,
)
from lora_core.specs.data import Split
from lora_core.specs.method import AutoSpec, LinearSpec
from lora_core.specs.pooling import Pooling
from lora_core.specs.task import SeveralTargetsSpec, SingleLabelSpec, TaskSpec
from lora_core.specs.train import TrainSpec
from lora_core.specs.validation_problems import first_problem_location_and_message
from lora_core.training_version import TRAINING_VERSION

SPEED_SAMPLE_JOBS = 5  # latest measured jobs whose median speed an estimate uses
_SPEED_CANDIDATES = 50  # latest jobs among which these are searched
# The speed of a shorter training is dominated by its warm-up, that of a smaller one by the steps
# themselves. On a busy machine a small one is not short, so its operations count as well.
_MIN_TRAIN_SECONDS = 10.0
_MIN_TRAIN_SECONDS_AT_DEFAULT_SPEED = 2.5
_UNLIMITED_LENGTH = 1_000_000  # tokens: a linear model does not truncate texts

# Left out of `trial_sha256`: fields that are identified by their content instead, fields that do
# not change the metrics, and the budget, because a trial at any budget is part of the same run.
_EXCLUDED_FIELDS = {"base", "base_revision", "preset", "result", "trial"}
# Version 2 renamed only excluded fields, so results of version 1 are still reused.
_HASHED_SPEC_VERSION = 1
_HASHED_SINGLE_LABEL = "sequence_classification"  # the former name of this task
# These change only the last bits of the metrics.
_EXCLUDED_RUNTIME_FIELDS = ("device", "threads")


@dataclass(frozen=True)
class ResolvedJob:
    """A job that can run, not yet stored."""

    spec: TrainSpec
    base: ResolvedBase | None  # None: the method has no base model
    dataset_ids: dict[str, str]
    device_class: DeviceClass
    parameters: ParameterCountsView
    cost: estimate.JobCost
    trial_sha256: str  # of everything its metrics depend on; the same for every budget of one run

    def columns(self) -> JsonObject:
        """Return the columns of `jobs` that the description determines.

        Owner, name and the like come from the request.
        """
        return {
            "method": self.spec.method.type,
            "device_class": self.device_class.value,
            "spec": self.spec.model_dump(mode="json"),
            "spec_version": self.spec.spec_version,
            "dataset_ids": self.dataset_ids,
            "base": self.spec.base or "",
            "trial_sha256": self.trial_sha256,
            "plan": {
                "parameters": self.parameters.model_dump(),
                "estimated_seconds": self.cost.seconds,
                "flops_per_token": self.cost.flops_per_token,
            },
        }


class JobResolver:
    """Resolves jobs within one transaction. Looks up once what several specs share."""

    def __init__(self, session: Session, settings: Settings) -> None:
        self._session, self._settings = session, settings
        self._shapes: dict[tuple[str, Pooling], EncoderShape] = {}
        self._tasks: dict[str, TaskSpec] = {}
        self._data: dict[tuple[str, str, int], ResolvedData] = {}
        self._speeds: dict[DeviceClass, float] = {}

    def resolve(
        self, spec: TrainSpec, base: ResolvedBase | None, *, completed_share: float = 0.0
    ) -> ResolvedJob:
        """Resolve a spec whose base was looked up by `pretrained_bases.resolve_base`.

        `completed_share` is passed to `estimate.estimate_encoder_cost`.

        Raises `BaseNotFound` when the base was deleted since then, `SettingUnfitForTask` and the
        subclasses of `SpecError` when the spec does not fit its data or its base,
        `GpuIndexNotAllowed`, and what `data_sources.resolve_data` raises.
        """
        spec = self._with_task_of_upload(spec)
        if base is None:
            return self._resolve_linear(spec)
        pretrained_bases.check_base_not_deleted(self._session, base)
        spec = spec.model_copy(update={"base": base.name, "base_revision": base.revision})
        shape = self._shape(base, spec.pooling)
        if isinstance(spec.method, AutoSpec):
            return self._resolve_auto(spec, spec.method, base, shape)
        compatibility.check_compatibility(shape, spec)
        data = self._resolve_data(spec, shape.resolve_max_length(spec.data.max_length))
        spec = spec.model_copy(update={"data": data.spec})
        device_class = _device_class(spec.runtime.device)
        counts = compatibility.count_parameters(shape, spec.encoder_method, data.likely_label_count)
        full_spec, _, _ = resolve_defaults(spec, shape, estimate.split_sizes(data))
        return ResolvedJob(
            spec=spec,
            base=base,
            dataset_ids=data.dataset_ids,
            device_class=device_class,
            parameters=ParameterCountsView(
                trainable=counts.trainable,
                total=counts.total,
                exact=data.label_count is not None and shape.counts_are_exact,
            ),
            cost=estimate.estimate_encoder_cost(
                spec,
                shape=shape,
                data=data,
                speed=self._speed(device_class),
                completed_share=completed_share,
            ),
            trial_sha256=_trial_sha256(full_spec, base, data),
        )

    def default_learning_rates(self, spec: TrainSpec, base: ResolvedBase) -> dict[str, float]:
        """Return the learning rates that the run has by default, as fields of its `optim`.

        Raises what `resolve` raises.
        """
        shape = self._shape(base, spec.pooling)
        rate, head_rate = resolve_learning_rates(spec, shape.width, self._train_texts(spec, shape))
        return {"learning_rate": rate, "head_learning_rate": head_rate}

    def epochs_of_updates(self, spec: TrainSpec, base: ResolvedBase, updates: int) -> int:
        """Return the epochs in which a run makes at least this many updates.

        Raises what `resolve` raises.
        """
        shape = self._shape(base, spec.pooling)
        texts = self._train_texts(spec, shape)
        _, batch_size = resolve_epochs_and_batch_size(spec.optim, texts)
        return math.ceil(updates / math.ceil(max(1, texts) / batch_size))

    def _train_texts(self, spec: TrainSpec, shape: EncoderShape) -> int:
        spec = self._with_task_of_upload(spec)
        data = self._resolve_data(spec, shape.resolve_max_length(spec.data.max_length))
        return estimate.split_sizes(data)[Split.TRAIN]

    def _with_task_of_upload(self, spec: TrainSpec) -> TrainSpec:
        """Return the spec with the task that its dataset was uploaded for, unless it has one.

        Raises `SettingUnfitForTask`.
        """
        if "task" in spec.model_fields_set:
            return spec
        key = spec.data.model_dump_json(include={"source"})
        if key not in self._tasks:
            self._tasks[key] = data_sources.task_of_upload(self._session, spec.data)
        task = self._tasks[key]
        try:
            return spec.with_task(task)
        except ValidationError as error:
            _, problem = first_problem_location_and_message(error, TrainSpec)
            raise SettingUnfitForTask(task=task.type, problem=problem, at="task") from error

    def _resolve_auto(
        self, spec: TrainSpec, auto: AutoSpec, base: ResolvedBase, shape: EncoderShape
    ) -> ResolvedJob:
        """Resolve the method `auto`; its candidates are stored so that a resume tries the same."""
        compatibility.check_method_supports_partial_run(spec)
        data = self._resolve_data(spec, shape.resolve_max_length(spec.data.max_length))
        device_class = _device_class(spec.runtime.device)
        candidates, cost = estimate.plan_auto_candidates(
            spec, auto, shape=shape, data=data, speed=self._speed(device_class)
        )
        for candidate in candidates:
            compatibility.check_compatibility(shape, spec.with_method(candidate.method))
        method = auto.model_copy(update={"candidates": candidates})
        spec = spec.model_copy(update={"data": data.spec, "method": method})
        counts = [
            compatibility.count_parameters(shape, candidate.method, data.likely_label_count)
            for candidate in candidates
            if not isinstance(candidate.method, LinearSpec)
        ]
        linear_count = estimate.estimate_linear_parameters(data, spec.task.type)
        return ResolvedJob(
            spec=spec,
            base=base,
            dataset_ids=data.dataset_ids,
            device_class=device_class,
            parameters=ParameterCountsView(  # of the largest candidate
                trainable=max((each.trainable for each in counts), default=linear_count),
                total=max((each.total for each in counts), default=linear_count),
                exact=False,
            ),
            cost=cost,
            trial_sha256=_trial_sha256(spec, base, data),
        )

    def _resolve_linear(self, spec: TrainSpec) -> ResolvedJob:
        """Resolve the method `linear`, which has no base. Its terms are unknown before the run."""
        compatibility.check_method_supports_partial_run(spec)
        data = self._resolve_data(spec, _UNLIMITED_LENGTH)
        spec = spec.model_copy(update={"data": data.spec})
        count = estimate.estimate_linear_parameters(data, spec.task.type)
        return ResolvedJob(
            spec=spec,
            base=None,
            dataset_ids=data.dataset_ids,
            device_class=_device_class(spec.runtime.device),
            parameters=ParameterCountsView(trainable=count, total=count, exact=False),
            cost=estimate.estimate_linear_cost(data, spec.task.type),
            trial_sha256=_trial_sha256(spec, None, data),
        )

    def _shape(self, base: ResolvedBase, pooling: Pooling) -> EncoderShape:
        key = (base.content_id, pooling)
        if key not in self._shapes:
            self._shapes[key] = compatibility.read_encoder_shape(
                base.config, base=base.name, pooling=pooling
            )
        return self._shapes[key]

    def _resolve_data(self, spec: TrainSpec, max_length: int) -> ResolvedData:
        several = isinstance(spec.task, SeveralTargetsSpec)
        task = spec.task.model_dump_json() if several else spec.task.type
        key = (spec.data.model_dump_json(), task, max_length)
        if key not in self._data:
            self._data[key] = data_sources.resolve_data(
                self._session,
                spec.data,
                spec.task,
                settings=self._settings,
                max_length=max_length,
            )
        return self._data[key]

    def _speed(self, device_class: DeviceClass) -> float:
        """Return the speed of the latest jobs in FLOP/s, each measured with its own spec."""
        if device_class not in self._speeds:
            latest = repository.list_latest_speeds(
                self._session, device_class=device_class, limit=_SPEED_CANDIDATES
            )
            min_flops = _MIN_TRAIN_SECONDS_AT_DEFAULT_SPEED * estimate.DEFAULT_SPEEDS[device_class]
            speeds = [
                speed
                for each in latest
                if each.flops_per_token and each.tokens_per_second  # 0.0: of `auto`
                if not each.features_found
                if (speed := each.flops_per_token * each.tokens_per_second)
                if each.train_seconds is None
                or (
                    each.train_seconds >= _MIN_TRAIN_SECONDS
                    and each.train_seconds * speed >= min_flops
                )
            ]
            self._speeds[device_class] = estimate.median_speed_or_default(
                speeds[:SPEED_SAMPLE_JOBS], device_class
            )
        return self._speeds[device_class]


def read_spec_to_copy(job: Job) -> TrainSpec:
    """Return the spec for another job with the settings of this one.

    Left out are the threads, which the first worker chooses, and the candidates of `auto`, which
    follow from the data, even if the request named them: the spec does not say whether it did.
    """
    spec = TrainSpec.model_validate(job.spec)
    runtime = spec.runtime.model_copy(update={"threads": None})
    method = spec.method
    if isinstance(method, AutoSpec):
        method = method.model_copy(update={"candidates": None})
    return spec.model_copy(update={"method": method, "runtime": runtime})


def sha256_of_json(value: JsonObject) -> str:
    """Return the SHA-256 of the canonical JSON of `value`."""
    canonical = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return hashlib.sha256(canonical.encode()).hexdigest()


def _trial_sha256(spec: TrainSpec, base: ResolvedBase | None, data: ResolvedData) -> str:
    """Return the hash of everything the metrics of a run depend on.

    Names and locations of the base and of the data do not matter, only their content.
    """
    fields = spec.model_dump(mode="json", exclude=_EXCLUDED_FIELDS)
    fields["spec_version"] = _HASHED_SPEC_VERSION
    if isinstance(spec.task, SingleLabelSpec):
        fields["task"]["type"] = _HASHED_SINGLE_LABEL
    fields["data"]["source"] = dict(data.fingerprints)
    fields["runtime"] = {
        name: value
        for name, value in fields["runtime"].items()
        if name not in _EXCLUDED_RUNTIME_FIELDS
    }
    return sha256_of_json(
        {**fields, "base": base and base.content_id, "training_version": TRAINING_VERSION}
    )


def _device_class(device: str) -> DeviceClass:
    """Return the device class of `runtime.device`. Raises `GpuIndexNotAllowed`."""
    match device:
        case "auto":
            return DeviceClass.ANY
        case "cpu":
            return DeviceClass.CPU
        case "cuda":
            return DeviceClass.GPU
        case _:
            raise GpuIndexNotAllowed(device=device, at="runtime.device")
