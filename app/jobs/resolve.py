"""From a description to a job that could run: everything resolved, nothing stored."""

import hashlib
import json
from dataclasses import dataclass

from sqlalchemy.orm import Session

from app.database.base import JsonObject
from app.jobs import base_models, data_sources, estimate, repository
from app.jobs.base_models import Base
from app.jobs.data_sources import Data
from app.jobs.schemas import Parameters
from app.queue.states import Lane
from app.settings import Settings
from lora_core import compatibility
from lora_core.compatibility import Shape
from lora_core.defaults import settled
from lora_core.specs.method import AutoSpec, LinearSpec
from lora_core.specs.train import TrainSpec
from lora_core.training_version import TRAINING_VERSION

LAST_JOBS = 5  # whose speed an estimate goes by
SHORT_SECONDS = 10.0  # a training below it has hardly got going, and its speed tells nothing
WHOLE_TEXTS = 1_000_000  # tokens: a linear model cuts none
GUESSED_LABELS = 2  # of a hub data set, which is not read before the job runs

# Of a description: what is known by its content instead, and what changes no figure but the last
# bits. Trials are parts of the same run.
_NAMES = {"base", "base_revision", "preset", "result", "trial"}
_PLACE = ("device", "threads")


@dataclass(frozen=True)
class Draft:
    """A job that could run."""

    spec: TrainSpec
    base: Base | None  # None: the method has none
    dataset_ids: dict[str, str]
    lane: Lane
    parameters: Parameters
    cost: estimate.Cost
    cell_sha256: str  # of all that its figures depend on; trials of one run share it

    def columns(self) -> JsonObject:
        """Those of a row in `jobs` that it knows; the rest is whose it is and what it is called."""
        return {
            "method": self.spec.method.type,
            "lane": self.lane.value,
            "spec": self.spec.model_dump(mode="json"),
            "spec_version": self.spec.spec_version,
            "dataset_ids": self.dataset_ids,
            "base": self.spec.base or "",
            "cell_sha256": self.cell_sha256,
            "plan": {
                "parameters": self.parameters.model_dump(),
                "estimated_seconds": self.cost.seconds,
                "flops_per_token": self.cost.flops_per_token,
            },
        }


class Drafter:
    """Drafts within one transaction. What many descriptions share is looked up once."""

    def __init__(self, session: Session, settings: Settings) -> None:
        self._session, self._settings = session, settings
        self._data: dict[tuple[str, int], Data] = {}
        self._speeds: dict[Lane, float] = {}

    def draft(self, asked: TrainSpec, base: Base | None, *, since: float = 0.0) -> Draft:
        """`base` was looked up by `bases.find`; `since`: as `estimate.cost` has it.

        Raises `BaseNotFound` when it was deleted since, the kinds of `SpecError` when the spec does
        not fit it, and what `data.resolve` raises.
        """
        if base is None:
            return self._linear(asked)
        base_models.check_there(self._session, base)
        asked = asked.model_copy(update={"base": base.name, "base_revision": base.revision})
        shape = compatibility.read_shape(base.config, base=base.name, pooling=asked.pooling)
        if isinstance(asked.method, AutoSpec):
            return self._auto(asked, asked.method, base, shape)
        compatibility.check(shape, asked)
        found = self._resolved(asked, shape.max_length(asked.data.max_length))
        spec = asked.model_copy(update={"data": found.spec})
        lane = _lane(spec.runtime.device)
        census = compatibility.census(
            shape, spec.encoder_method, found.label_count or GUESSED_LABELS
        )
        parameters = Parameters(
            trainable=census.trainable, total=census.total, exact=found.label_count is not None
        )
        speed = self._speed(lane)
        resolved, _, _ = settled(spec, shape, estimate.parts(found))
        return Draft(
            spec=spec,
            base=base,
            dataset_ids=found.dataset_ids,
            lane=lane,
            parameters=parameters,
            cost=estimate.cost(spec, shape=shape, data=found, speed=speed, since=since),
            cell_sha256=_cell(resolved, base, found),
        )

    def _auto(self, asked: TrainSpec, auto: AutoSpec, base: Base, shape: Shape) -> Draft:
        """With the list of its candidates, so that a resume tries the same ones."""
        compatibility.check_steps(asked)
        found = self._resolved(asked, shape.max_length(asked.data.max_length))
        lane = _lane(asked.runtime.device)
        candidates, cost = estimate.auto_plan(
            asked, auto, shape=shape, data=found, speed=self._speed(lane)
        )
        for candidate in candidates:
            compatibility.check(shape, asked.of(candidate.method))
        method = auto.model_copy(update={"candidates": candidates})
        spec = asked.model_copy(update={"data": found.spec, "method": method})
        labels = found.label_count or GUESSED_LABELS
        sizes = [
            compatibility.census(shape, each.method, labels)
            for each in candidates
            if not isinstance(each.method, LinearSpec)
        ]
        weights = estimate.linear_weights(found, labels)
        return Draft(
            spec=spec,
            base=base,
            dataset_ids=found.dataset_ids,
            lane=lane,
            parameters=Parameters(  # of the largest that may be chosen
                trainable=max((each.trainable for each in sizes), default=weights),
                total=max((each.total for each in sizes), default=weights),
                exact=False,
            ),
            cost=cost,
            cell_sha256=_cell(spec, base, found),
        )

    def _linear(self, asked: TrainSpec) -> Draft:
        """Of the method without a base. Which terms there are is known once the texts are read."""
        compatibility.check_steps(asked)
        found = self._resolved(asked, WHOLE_TEXTS)
        spec = asked.model_copy(update={"data": found.spec})
        weights = estimate.linear_weights(found, found.label_count or GUESSED_LABELS)
        return Draft(
            spec=spec,
            base=None,
            dataset_ids=found.dataset_ids,
            lane=_lane(spec.runtime.device),
            parameters=Parameters(trainable=weights, total=weights, exact=False),
            cost=estimate.linear_cost(found, found.label_count or GUESSED_LABELS),
            cell_sha256=_cell(spec, None, found),
        )

    def _resolved(self, asked: TrainSpec, max_length: int) -> Data:
        key = (asked.data.model_dump_json(), max_length)
        if key not in self._data:
            self._data[key] = data_sources.resolve(
                self._session, asked.data, settings=self._settings, max_length=max_length
            )
        return self._data[key]

    def _speed(self, lane: Lane) -> float:
        """FLOP/s that the last jobs reached, each with its own spec."""
        if lane not in self._speeds:
            reached = [
                plan["flops_per_token"] * summary["tokens_per_second"]
                for plan, summary in repository.finished(self._session, lane=lane, limit=LAST_JOBS)
                if summary.get("tokens_per_second") and "flops_per_token" in plan
                if summary.get("train_seconds", SHORT_SECONDS) >= SHORT_SECONDS
                if not summary.get("features_found")
            ]
            self._speeds[lane] = estimate.speed(reached, lane)
        return self._speeds[lane]


def digest(value: JsonObject) -> str:
    """Names the content of a description."""
    canonical = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return hashlib.sha256(canonical.encode()).hexdigest()


def _cell(spec: TrainSpec, base: Base | None, found: Data) -> str:
    """Names the figures of a run, wherever its base and data lie and however they are called."""
    told = spec.model_dump(mode="json", exclude=_NAMES)
    told["data"]["source"] = dict(found.content)
    told["runtime"] = {name: v for name, v in told["runtime"].items() if name not in _PLACE}
    return digest({**told, "base": base and base.content, "training_version": TRAINING_VERSION})


def _lane(device: str) -> Lane:
    if device == "auto":
        return Lane.ANY
    return Lane.GPU if device.startswith("cuda") else Lane.CPU
