"""Is a directory from elsewhere a model that can be served, and does it answer as it did there?"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
)
from transformers import PreTrainedModel

from lora_core import manifest
from lora_core.artifact import FORMAT, compare, load_adapter, load_merged
from lora_core.data.limits import MAX_LABEL
from lora_core.data.tokens import load_tokenizer
from lora_core.encoders import FAMILIES
from lora_core.encoders.load import check as check_base
from lora_core.errors import LoraCoreError
from lora_core.errors.artifact import ArtifactUnfit, GoldenMismatch
from lora_core.fit import read_shape
from lora_core.imports.header import check_header
from lora_core.inference.predictor import Predictor
from lora_core.methods.lora import Lora
from lora_core.process import is_no_memory
from lora_core.specs.base import BaseName
from lora_core.specs.validation import first_fault

MANIFEST_BYTES = 1_000_000
GOLDEN = 64  # most texts whose answers are computed again
# Settings by which a config can make transformers fetch or run something.
_FOREIGN = re.compile("auto_map|custom|implementation|kernel|quantization")


class _Kept(BaseModel):
    """What is kept of an artifact as the facts of a version."""

    model_config = ConfigDict(allow_inf_nan=False)


class Method(_Kept):
    """How it was trained."""

    type: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]


class Spec(_Kept):
    """What it was made of."""

    base: BaseName
    method: Method


class Facts(_Kept):
    """The manifest, as far as others go by it."""

    format: int = Field(ge=FORMAT, le=FORMAT)
    spec: Spec
    max_length: int = Field(ge=8, le=8192, strict=True)
    metrics: dict[str, Any]

    @field_validator("metrics")
    @classmethod
    def _as_they_are_shown(cls, metrics: dict[str, Any]) -> dict[str, Any]:
        """Lists show those of two parts; a database keeps no NaN, NUL or half a character."""
        if not all(isinstance(metrics.get(part, {}), dict) for part in ("validation", "test")):
            raise ValueError("the figures of a part are an object")
        written = json.dumps(metrics, allow_nan=False, ensure_ascii=False)
        if "\\u0000" in written:
            raise ValueError("they hold a NUL character")
        written.encode()  # for its refusal
        return metrics


class Golden(_Kept):
    """A text and the logits of the merged model in float32."""

    text: Annotated[str, StringConstraints(min_length=1, max_length=1_000_000)]
    logits: list[float]


class Checked(BaseModel):
    """What `check` found out."""

    directory: str
    facts: Facts
    difference: float


def check(directory: Path) -> Checked:
    """Load the model of an artifact and compute the answers again that were kept with it.

    Raises `ArtifactCorrupt`, `ArtifactUnfit`, `GoldenMismatch`, `HeaderTooLarge`, and the kinds of
    `BaseError` for what no base may be either.
    """
    listing = directory / manifest.MANIFEST
    if listing.is_file() and listing.stat().st_size > MANIFEST_BYTES:
        raise ArtifactUnfit(problem=f"its manifest is larger than {MANIFEST_BYTES:,} bytes")
    facts = _facts(manifest.verify(directory))
    for file in directory.rglob("*.safetensors"):
        check_header(file)
    config = check_base(directory / manifest.MERGED, manifest.MERGED)
    if foreign := [key for key in config if _FOREIGN.search(key)]:
        raise ArtifactUnfit(problem=f"merged/config.json sets {foreign[0][:100]!r}")
    if facts.max_length > read_shape(config, base=manifest.MERGED).longest:
        raise ArtifactUnfit(problem="max_length is more than the positions of its encoder")
    golden = _golden(directory / "golden.json")
    with _whatever_is_wrong("merged/ does not load or compute"):
        model = load_merged(directory)
        tokenizer = load_tokenizer(directory / manifest.MERGED / "tokenizer.json")
        predictor = Predictor.of(model, tokenizer, facts.max_length)
        items = predictor.encode([row.text for row in golden])
        logits = predictor.forward(items).numpy()
        served = Predictor.load(directory).forward(items).numpy()  # perhaps by its adapter
    labels = set(predictor.labels)
    if len(labels) != logits.shape[1] or len(labels) < 2 or max(map(len, labels)) > MAX_LABEL:
        raise ArtifactUnfit(problem="its labels are not two or more different names")
    if tokenizer.get_vocab_size() > model.config.vocab_size:
        raise ArtifactUnfit(problem="its tokenizer has more words than its encoder")
    difference = max(_compare(each, golden) for each in (logits, served))
    if (directory / "adapter.json").exists() or (directory / "adapter.safetensors").exists():
        _check_adapter(directory, model, str(config["model_type"]))
    return Checked(directory=directory.name, facts=facts, difference=difference)


@contextmanager
def _whatever_is_wrong(problem: str) -> Iterator[None]:
    """Libraries that read what they did not write raise almost anything."""
    try:
        yield
    except (LoraCoreError, MemoryError):
        raise
    except Exception as error:
        if is_no_memory(error):
            raise
        raise ArtifactUnfit(problem=f"{problem} ({type(error).__name__})") from error


def _facts(said: dict[str, Any]) -> Facts:
    try:
        return Facts.model_validate(said)
    except ValidationError as error:
        raise ArtifactUnfit(problem=f"its manifest has {_first(error, Facts)}") from error


def _golden(path: Path) -> list[Golden]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        golden = [Golden.model_validate(row) for row in rows[:GOLDEN]]
    except ValidationError as error:
        raise ArtifactUnfit(problem=f"golden.json has {_first(error, Golden)}") from error
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ArtifactUnfit(problem="golden.json cannot be read") from error
    if not golden:
        raise ArtifactUnfit(problem="golden.json has no text")
    return golden


def _compare(logits: NDArray[np.float32], golden: list[Golden]) -> float:
    """The largest difference. Raises `GoldenMismatch`."""
    if not np.isfinite(logits).all():
        raise ArtifactUnfit(problem="it computes something that is no number")
    if any(len(row.logits) != logits.shape[1] for row in golden):
        raise ArtifactUnfit(problem="golden.json has another number of labels than the model")
    kept = np.array([row.logits for row in golden], dtype=np.float32)
    difference, limit = compare(logits, kept)
    if not difference <= limit:
        raise GoldenMismatch(difference=difference, tolerance=limit)
    return difference


def _check_adapter(directory: Path, model: PreTrainedModel, model_type: str) -> None:
    """Raises `ArtifactUnfit` unless the adapter is of a model like this one, and of numbers.

    The model has adapters afterwards.
    """
    with _whatever_is_wrong("its adapter cannot be read"):
        adapter = load_adapter(directory)
        method = Lora(adapter.spec)
        method.prepare(model, FAMILIES[model_type])
    expected = {name: tensor.shape for name, tensor in method.state(model).items()}
    found = {name: tensor.shape for name, tensor in adapter.tensors.items()}
    if adapter.family != model_type or found != expected:
        raise ArtifactUnfit(problem="its adapter does not fit its model")
    if not all(bool(tensor.isfinite().all()) for tensor in adapter.tensors.values()):
        raise ArtifactUnfit(problem="its adapter holds numbers that are not finite")


def _first(error: ValidationError, kind: type[BaseModel]) -> str:
    place, fault = first_fault(error, kind)
    return f"a wrong {place}: {fault}"
