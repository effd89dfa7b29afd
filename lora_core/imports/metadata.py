"""The figures of an import, typed and bounded: lists and pages show them."""

import json
import unicodedata
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
)

from lora_core import manifest
from lora_core.compatibility import read_shape
from lora_core.data.limits import MAX_LABEL, MAX_LABELS
from lora_core.errors.artifact import ArtifactUnfit
from lora_core.imports import tokenizer
from lora_core.linear.files import FILES
from lora_core.linear.files import read as read_linear
from lora_core.specs.base import BaseName
from lora_core.specs.validation import first_fault

_LARGEST = 1e12  # of any figure


def printable(text: str) -> str:
    """Raises `ValueError` for control characters and lone surrogates."""
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in text):
        raise ValueError("must have no control characters")
    return text


Label = Annotated[
    str, StringConstraints(min_length=1, max_length=MAX_LABEL), AfterValidator(printable)
]
Labels = Annotated[list[Label], Field(min_length=2, max_length=MAX_LABELS)]
Share = Annotated[float, Field(ge=0, le=1)]
Figure = Annotated[float, Field(ge=0, le=_LARGEST)]
Count = Annotated[int, Field(ge=0, le=10**15)]


class Kept(BaseModel):
    """What is kept of an import. Unknown fields are left out."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class LabelFigures(Kept):
    precision: Share | None = None
    recall: Share | None = None
    f1: Share | None = None
    support: Count | None = None


class PartFigures(Kept):
    """Of the validation texts, for example."""

    loss: Figure | None = None
    accuracy: Share | None = None
    balanced_accuracy: Share | None = None
    macro_f1: Share | None = None
    per_class: Annotated[dict[Label, LabelFigures], Field(max_length=MAX_LABELS)] | None = None
    confusion_matrix: Annotated[
        list[Annotated[list[Count], Field(max_length=MAX_LABELS)]], Field(max_length=MAX_LABELS)
    ] | None = None  # fmt: skip


class LinearFigures(Kept):
    """Of the linear model."""

    validation: PartFigures | None = None
    test: PartFigures | None = None
    train_texts: Count | None = None
    seconds: Figure | None = None
    cached: bool | None = None


class Confidence(Kept):
    loss: Figure | None = None
    ece: Share | None = None
    brier: Figure | None = None


class PartCalibration(Kept):
    texts: Count | None = None
    before: Confidence | None = None
    after: Confidence | None = None


class Calibration(Kept):
    """A run fits from 0.05 to 20."""

    temperature: float | None = Field(None, ge=0.01, le=100)
    validation: PartCalibration | None = None
    test: PartCalibration | None = None


class Figures(Kept):
    """The `metrics` of a manifest: those that a run writes."""

    labels: Labels | None = None
    trainable_parameters: Count | None = None
    total_parameters: Count | None = None
    examples: Annotated[
        dict[Annotated[str, StringConstraints(max_length=16)], Count], Field(max_length=8)
    ] | None = None  # fmt: skip
    truncated_share: Share | None = None
    terms: Count | None = None
    steps: Count | None = None
    best_step: Count | None = None
    epochs_run: Figure | None = None
    stopped_early: bool | None = None
    train_seconds: Figure | None = None
    features_found: bool | None = None
    reviews_per_second: Figure | None = None
    tokens_per_second: Figure | None = None
    peak_memory_mb: Figure | None = None
    linear: LinearFigures | None = None
    calibration: Calibration | None = None
    train: PartFigures | None = None
    validation: PartFigures | None = None
    test: PartFigures | None = None
    merge_difference: Figure | None = None
    total_seconds: Figure | None = None


def shown(metrics: Any) -> dict[str, Any]:
    """The figures of a version that came in before they were checked; none if they are wrong."""
    try:
        return Figures.model_validate(metrics).model_dump(exclude_unset=True)
    except ValidationError:
        return {}


# MERGED lora_core.imports.metadata
# What an import says of itself, typed and bounded: its manifest, its labels, its kept answers.
#
# Whatever the service reads of a version later is checked here, before a library reads a file.

MANIFEST_BYTES = 1_000_000
LEVELS = 16  # of a manifest; one of ours has 6
GOLDEN = 64  # most texts with kept answers; a run keeps 16
GOLDEN_BYTES = 8_000_000
_WEIGHTS = (".safetensors", "config.json", "tokenizer.json")
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Kind = TypeVar("Kind", bound=BaseModel)


class Method(Kept):
    """How it was trained."""

    type: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]


class Spec(Kept):
    """What it was made of."""

    base: Annotated[BaseName, AfterValidator(printable)] | None
    method: Method


class File(Kept):
    bytes: Count
    sha256: Digest


class Facts(Kept):
    """The manifest, as far as others go by it."""

    format: int = Field(ge=manifest.FORMAT, le=manifest.FORMAT)
    spec: Spec
    max_length: int | None = Field(default=None, ge=8, le=8192)  # None: a linear model
    base_sha256: Digest | None = None
    labels: Labels | None = None
    calibration: Calibration | None = None
    metrics: dict[str, Any]
    files: Annotated[dict[str, File], Field(max_length=100)]

    @field_validator("metrics", mode="before")
    @classmethod
    def _figures(cls, metrics: Any) -> dict[str, Any]:
        return Figures.model_validate(metrics).model_dump(exclude_unset=True)


class _Golden(Kept):
    """A text and the logits of the merged model in float32."""

    text: Annotated[str, StringConstraints(min_length=1)]
    logits: Annotated[
        list[Annotated[float, Field(ge=-1e6, le=1e6)]], Field(max_length=MAX_LABELS)
    ]  # fmt: skip


class _Answers(Kept):
    rows: Annotated[list[_Golden], Field(min_length=1, max_length=GOLDEN)]


def check_size(directory: Path) -> None:
    """Raises `ArtifactUnfit` for a manifest that is too large to be read."""
    listing = directory / manifest.MANIFEST
    if listing.is_file() and listing.stat().st_size > MANIFEST_BYTES:
        raise ArtifactUnfit(problem=f"its manifest is larger than {MANIFEST_BYTES:,} bytes")


def read(directory: Path) -> Facts:
    """What the files of a model directory say, held against each other; digests are not checked.

    Loads no torch. Raises `ArtifactUnfit`, `TokenizerUnfit`, `ArtifactCorrupt` without a manifest,
    and what `read_shape` raises.
    """
    check_size(directory)
    said = manifest.read(directory)
    if not _is_flat(said, LEVELS):
        raise ArtifactUnfit(problem=f"its manifest is nested more than {LEVELS} levels deep")
    facts = _parsed(Facts, said, "its manifest")
    for name, file in facts.files.items():
        if (directory / name).is_file() and (directory / name).stat().st_size != file.bytes:
            raise ArtifactUnfit(problem=f"its manifest has a wrong size of {name}")
    if manifest.is_linear(facts.files):
        _check_linear(directory, facts)
    else:
        _check_encoder(directory, facts)
    return facts


def _check_linear(directory: Path, facts: Facts) -> None:
    if facts.labels is None or len(set(facts.labels)) != len(facts.labels):
        raise ArtifactUnfit(problem="its manifest has no labels, or one of them twice")
    if odd := [name for name in facts.files if name not in FILES and name.endswith(_WEIGHTS)]:
        raise ArtifactUnfit(problem=f"it is a linear model, and has {odd[0]}")
    _check_golden(directory, len(facts.labels))
    read_linear(directory, len(facts.labels))


def _check_encoder(directory: Path, facts: Facts) -> None:
    if facts.max_length is None or facts.spec.base is None:
        raise ArtifactUnfit(problem="its manifest has no max_length, or no base")
    config = _json(directory, f"{manifest.MERGED}/config.json", MANIFEST_BYTES)
    if not isinstance(config, dict):
        raise ArtifactUnfit(problem="its config is no object")
    if facts.labels not in (None, labels := _labels(config)):
        raise ArtifactUnfit(problem="its manifest and its config have different labels")
    _check_golden(directory, len(labels))
    largest_id = tokenizer.check(directory / manifest.MERGED / "tokenizer.json")
    shape = read_shape(config, base=manifest.MERGED)
    if facts.max_length > shape.longest:
        raise ArtifactUnfit(problem="max_length is more than the positions of its encoder")
    if largest_id >= shape.vocabulary:  # on a GPU it would stop every other model
        raise ArtifactUnfit(problem="its tokenizer has more words than its encoder")


def _check_golden(directory: Path, labels: int) -> None:
    answers = _json(directory, "golden.json", GOLDEN_BYTES)
    golden = _parsed(_Answers, {"rows": answers}, "golden.json").rows
    if any(len(row.logits) != labels for row in golden):
        raise ArtifactUnfit(problem="golden.json has another number of labels than the model")


def _labels(config: dict[str, Any]) -> list[str]:
    """In the order of the logits."""
    names = config.get("id2label", {"0": "LABEL_0", "1": "LABEL_1"})
    if not isinstance(names, dict) or set(names) != {str(i) for i in range(len(names))}:
        raise ArtifactUnfit(problem="its config does not number its labels from 0 on")
    labels = [names[str(i)] for i in range(len(names))]
    found = _parsed(_Named, {"labels": labels}, "its config").labels
    if len(set(found)) != len(found):
        raise ArtifactUnfit(problem="its labels are not two or more different names")
    return found


class _Named(Kept):
    labels: Labels


def _json(directory: Path, name: str, most: int) -> Any:
    try:
        if (directory / name).stat().st_size > most:
            raise ArtifactUnfit(problem=f"{name} is larger than {most:,} bytes")
        return json.loads((directory / name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactUnfit(problem=f"{name} cannot be read") from error


def _is_flat(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels > 0 and all(_is_flat(each, levels - 1) for each in inner)


def _parsed(kind: type[Kind], said: Any, where: str) -> Kind:
    try:
        return kind.model_validate(said)
    except ValidationError as error:
        place, fault = first_fault(error, kind)
        raise ArtifactUnfit(problem=f"{where} has a wrong {place}: {fault}") from error
