"""From the settings of a cell to the columns of its job; what fits nothing is told as a problem."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import ValidationError

from app.database.base import JsonObject
from app.errors import AppError
from app.jobs.bases import Base
from app.jobs.draft import Draft, Drafter
from app.sweeps.errors import InvalidCells, UnknownField
from app.sweeps.space import Settings, Space, applied, ends, named
from app.sweeps.strategies import Halving, Strategy, shares
from lora_core.errors import LoraCoreError
from lora_core.specs.data import DataSpec
from lora_core.specs.train import TrainSpec, TrialSpec
from lora_core.specs.validation import faults, first_fault

SHOWN = 10  # cells that are named when some could never run
LONGEST = 64  # characters of a value, or of a field's name, that is named
OWN = {"spec_version", "preset", "trial", "result"}  # fields that a sweep decides on

REFUSALS = (AppError, LoraCoreError)  # of a description that could never run
Find = Callable[[str | None, str | None], Base | None]


@dataclass
class Pinned:
    """What names meant when the sweep was made, so that they mean it to its end."""

    bases: dict[str, Base] = field(default_factory=dict)
    sources: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, kept: JsonObject) -> "Pinned":
        bases = {name: Base(**facts) for name, facts in kept["bases"].items()}
        return cls(bases, dict(kept["sources"]))

    def as_json(self) -> JsonObject:
        bases = {name: asdict(base) for name, base in self.bases.items()}
        return {"bases": bases, "sources": self.sources}

    def base(self, spec: TrainSpec) -> Base | None:
        return self.bases[base_name(spec)] if spec.base else None

    def look_up(self, specs: Iterable[TrainSpec], find: Find) -> dict[str, Exception]:
        """Find the bases that are not known yet; by name, why one cannot be had.

        Called outside of a transaction: `find` may ask the hub.
        """
        missing: dict[str, Exception] = {}
        for spec in specs:
            name = base_name(spec)
            if name in self.bases or name in missing:
                continue
            try:
                if (base := find(spec.base, spec.base_revision)) is not None:
                    self.bases[name] = base
            except REFUSALS as error:
                missing[name] = error
        return missing

    def draft(self, drafter: Drafter, asked: TrainSpec, *, since: float = 0.0) -> Draft:
        """Raises what `Drafter.draft` raises."""
        source = named(asked.data.model_dump(mode="json")["source"])
        if source in self.sources:
            said = asked.data.model_dump(exclude_unset=True)
            pinned = DataSpec.model_validate({**said, "source": self.sources[source]})
            asked = asked.model_copy(update={"data": pinned})
        made = drafter.draft(asked, self.base(asked), since=since)
        self.sources[source] = made.spec.data.model_dump(mode="json")["source"]
        return made


def check_fields(job: TrainSpec, space: Space) -> None:
    """Raises `UnknownField`."""
    description = job.model_dump(mode="json", exclude_unset=True)
    first = next(ends(space))
    for name in space.fields:
        told = name[:LONGEST]
        if name.partition(".")[0] in OWN:
            raise UnknownField(field=told, reason="a sweep decides on that itself", at="space")
        if not all(part.isidentifier() for part in name.split(".")):
            raise UnknownField(field=told, reason="a field looks like `method.r`", at="space")
        try:
            TrainSpec.model_validate(applied(description, {name: first[name]}))
        except ValidationError as error:
            for fault in faults(error.errors(include_url=False), TrainSpec):
                inside = name.startswith(f"{fault.at}.")  # of what is no object
                if inside or (fault.at == name and fault.code == "extra_forbidden"):
                    raise UnknownField(field=told, reason=fault.message, at="space") from error


def specs(job: TrainSpec, cells: Sequence[Settings]) -> list[TrainSpec | Exception]:
    """The description of each cell, whole runs that keep no model, or what is wrong with it."""
    description = job.model_dump(mode="json", exclude_unset=True)
    result = job.result.model_copy(update={"model": False})
    found: list[TrainSpec | Exception] = []
    for settings in cells:
        try:
            spec = TrainSpec.model_validate(applied(description, settings))
            found.append(spec.model_copy(update={"result": result}))
        except ValidationError as error:
            found.append(error)
    return found


def at_rung(spec: TrainSpec, strategy: Strategy, rung: int) -> TrainSpec:
    """The same run up to the end of a rung."""
    share = shares(strategy)[rung]
    texts = strategy.validation_texts if isinstance(strategy, Halving) else None
    trial = None if share == 1.0 else TrialSpec(share=share, validation_texts=texts)
    return spec.model_copy(update={"trial": trial})  # which tells what was said from defaults


def refuse(cells: Sequence[Settings], outcomes: Sequence[object]) -> None:
    """Raises `InvalidCells` if some outcomes are errors; where all are the same one, that."""
    wrong = [
        (number, settings, outcome)
        for number, (settings, outcome) in enumerate(zip(cells, outcomes, strict=True), start=1)
        if isinstance(outcome, Exception)
    ]
    if not wrong:
        return
    first = wrong[0][2]
    same = {(type(error), str(error)) for _, _, error in wrong}
    if len(wrong) == len(cells) and len(same) == 1 and not isinstance(first, ValidationError):
        raise first
    raise InvalidCells(
        count=len(wrong),
        total=len(cells),
        at="space",
        cells=[
            {"number": number, "settings": shown(settings), "reason": reason(error).rstrip(".")}
            for number, settings, error in wrong[:SHOWN]
        ],
    )


def reason(error: Exception) -> str:
    """Why a cell cannot run, in a sentence."""
    if isinstance(error, ValidationError):
        place, fault = first_fault(error, TrainSpec)
        return f"{place}: {fault}."
    return str(error)


def base_name(spec: TrainSpec) -> str:
    """What a base is kept under."""
    name = spec.base or ""
    return name if spec.base_revision is None else f"{name}@{spec.base_revision}"


def shown(settings: Mapping[str, Any]) -> str:
    """`method.r=8, method.targets=query+value`."""
    return ", ".join(f"{name}={_short(value)}" for name, value in settings.items())


def _short(value: Any) -> str:
    if isinstance(value, list):
        text = "+".join(str(each) for each in value)
    else:
        text = value if isinstance(value, str) else named(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
