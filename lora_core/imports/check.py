"""Is a directory from elsewhere a model that can be served, and does it answer as it did there?"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel
from safetensors.torch import load_file
from transformers import PreTrainedModel

from lora_core import manifest
from lora_core.artifact import head_tensors, load_adapter, load_merged
from lora_core.data.tokens import load_tokenizer
from lora_core.encoders import FAMILIES
from lora_core.encoders.load import check as check_base
from lora_core.errors import LoraCoreError
from lora_core.errors.artifact import ArtifactUnfit, GoldenMismatch
from lora_core.imports import metadata
from lora_core.imports.safetensors_header import check_header
from lora_core.imports.tokenizer_trial import try_out
from lora_core.inference.linear import LinearPredictor
from lora_core.inference.predictor import Predictor
from lora_core.methods.lora import Lora
from lora_core.process import is_no_memory
from lora_core.rust_panics import contained
from lora_core.saved_predictions import compare, load_golden

# Settings by which a config can make transformers fetch or run something.
_FOREIGN = re.compile("auto_map|custom|implementation|kernel|quantization")


class Checked(BaseModel):
    """What `check` found out."""

    directory: str
    facts: metadata.Facts
    difference: float


def check(directory: Path) -> Checked:
    """Load the model of an artifact and compute the answers again that were kept with it.

    Raises `ArtifactCorrupt`, `ArtifactUnfit`, `TokenizerUnfit`, `GoldenMismatch`, `HeaderTooLarge`,
    and the kinds of `BaseError` for what no base may be either.
    """
    metadata.check_size(directory)
    listed = manifest.verify(directory)["files"]
    for file in directory.rglob("*.safetensors"):
        check_header(file)
    if manifest.is_linear(listed):
        return _check_linear(directory)
    config = check_base(directory / manifest.MERGED, manifest.MERGED)
    if foreign := [key for key in config if _FOREIGN.search(key)]:
        raise ArtifactUnfit(problem=f"merged/config.json sets {foreign[0][:100]!r}")
    said = metadata.read(directory)
    with _whatever_is_wrong("its tokenizer does not load"):
        tokenizer = load_tokenizer(directory / manifest.MERGED / "tokenizer.json")
    try_out(tokenizer)
    texts, kept = load_golden(directory)
    with _whatever_is_wrong("merged/ does not load or compute"):
        model = load_merged(directory)
        predictor = Predictor.of(model, tokenizer, said.max_length or 0)
        items = predictor.encode(texts)
        logits = predictor.forward(items).numpy()
        served = Predictor.load(directory).forward(items).numpy()  # perhaps by its adapter
    difference = max(_compare(each, kept) for each in (logits, served))
    if (directory / "adapter.json").exists() or (directory / "adapter.safetensors").exists():
        _check_adapter(directory, model, str(config["model_type"]))
    return Checked(directory=directory.name, facts=said, difference=difference)


def _check_linear(directory: Path) -> Checked:
    said = metadata.read(directory)
    texts, kept = load_golden(directory)
    with _whatever_is_wrong("its linear model does not load or compute"):
        predictor = LinearPredictor.load(directory)
        logits = predictor.forward(predictor.encode(texts))
    difference = _compare(logits.astype(np.float32), kept)
    return Checked(directory=directory.name, facts=said, difference=difference)


@contextmanager
def _whatever_is_wrong(problem: str) -> Iterator[None]:
    """Libraries that read what they did not write raise almost anything."""
    try:
        with contained():
            yield
    except (LoraCoreError, MemoryError):
        raise
    except Exception as error:
        if is_no_memory(error):
            raise
        raise ArtifactUnfit(problem=f"{problem} ({type(error).__name__})") from error


def _compare(logits: NDArray[np.float32], kept: NDArray[np.float32]) -> float:
    """The largest difference. Raises `GoldenMismatch`."""
    if not np.isfinite(logits).all():
        raise ArtifactUnfit(problem="it computes something that is no number")
    if logits.shape != kept.shape:
        raise ArtifactUnfit(problem="it has another number of labels than its config")
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
        head = load_file(directory / "head.safetensors")
        wanted = head_tensors(model, FAMILIES[model_type])
        method = Lora(adapter.spec)
        method.prepare(model, FAMILIES[model_type])
    if {n: t.shape for n, t in head.items()} != {n: t.shape for n, t in wanted.items()}:
        raise ArtifactUnfit(problem="its head does not fit its encoder and its labels")
    expected = {name: tensor.shape for name, tensor in method.state(model).items()}
    found = {name: tensor.shape for name, tensor in adapter.tensors.items()}
    if adapter.family != model_type or found != expected:
        raise ArtifactUnfit(problem="its adapter does not fit its model")
    if not all(bool(tensor.isfinite().all()) for tensor in adapter.tensors.values()):
        raise ArtifactUnfit(problem="its adapter holds numbers that are not finite")
