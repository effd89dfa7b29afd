"""Check that an imported model can be served, and that it reproduces its golden predictions."""

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
from lora_core.artifact import (
    encoder_checkpoint_directory,
    head_tensors,
    load_merged_model,
    read_saved_adapter,
)
from lora_core.artifact_base_sharing import TOKENIZER_FILE
from lora_core.data.tokens import check_tokenizer_adds_special_tokens, load_tokenizer
from lora_core.encoders.encoder_parts import family_of
from lora_core.encoders.load import read_checked_base_config
from lora_core.errors import LoraCoreError
from lora_core.errors.artifact import GoldenPredictionsMismatch, InvalidImportedModel
from lora_core.fine_tuning_methods import LoraMethod
from lora_core.inference.linear import LinearPredictor
from lora_core.inference.predictor import Predictor
from lora_core.model_imports import metadata
from lora_core.model_imports.archive import check_safetensors_header
from lora_core.model_imports.tokenizer import stress_test_tokenizer
from lora_core.process_settings import is_oom_error
from lora_core.rust_panics import convert_panics
from lora_core.saved_predictions import load_golden_predictions, logit_difference_and_limit

# Config settings that make transformers download or run something, and those that only sound like
# them: a flag that transformers 4.46 to 4.51 saved, and the width of a convolution of DeBERTa.
_FORBIDDEN_SETTING = re.compile("auto_map|custom|implementation|kernel|quantization")
_HARMLESS_SETTINGS = frozenset({"_attn_implementation_autoset", "conv_kernel_size"})


class VerifiedModelImport(BaseModel):
    """The result of `check_imported_model`."""

    directory: str
    facts: metadata.UntrustedManifest
    difference: float


def check_imported_model(directory: Path) -> VerifiedModelImport:
    """Load the model of an artifact and recompute its golden predictions.

    Raises `ArtifactCorrupt`, `InvalidImportedModel`, `UnsupportedTokenizer`,
    `GoldenPredictionsMismatch`, `SafetensorsHeaderTooLarge`, and the kinds of `BaseModelError` that
    a base model can raise.
    """
    metadata.check_manifest_size(directory)
    listed = manifest.verify(directory)["files"]
    for file in directory.rglob("*.safetensors"):
        check_safetensors_header(file)
    if manifest.is_linear(listed):
        return _check_linear(directory)
    checkpoint = encoder_checkpoint_directory(directory)
    config = read_checked_base_config(checkpoint, checkpoint.name)
    settings = config.keys() - _HARMLESS_SETTINGS
    if forbidden := sorted(filter(_FORBIDDEN_SETTING.search, settings)):
        problem = f"{checkpoint.name}/config.json sets {forbidden[0][:100]!r}"
        raise InvalidImportedModel(problem=problem)
    facts = metadata.validate_model_metadata(directory)
    with _convert_errors("its tokenizer does not load"):
        tokenizer = load_tokenizer(checkpoint / TOKENIZER_FILE)
    stress_test_tokenizer(tokenizer)
    data = facts.spec.data
    pairs = data.text_pair_column is not None
    check_tokenizer_adds_special_tokens(tokenizer, directory.name, pairs=pairs)
    texts, golden = load_golden_predictions(directory)
    with _convert_errors(f"{checkpoint.name}/ does not load or compute"):
        model = load_merged_model(directory)
        predictor = Predictor.from_model(
            model,
            tokenizer,
            facts.max_length or 0,
            pairs=pairs,
            windows=data.long_texts == "windows",
        )
        items = predictor.encode(texts)
        logits = predictor.forward(items).numpy()
        # may be served through its adapter
        served = Predictor.load(directory).forward(items).numpy()
    difference = max(_compare_logits(each, golden) for each in (logits, served))
    if (directory / "adapter.json").exists() or (directory / "adapter.safetensors").exists():
        _check_adapter(directory, model, str(config["model_type"]))
    return VerifiedModelImport(directory=directory.name, facts=facts, difference=difference)


def _check_linear(directory: Path) -> VerifiedModelImport:
    facts = metadata.validate_model_metadata(directory)
    texts, golden = load_golden_predictions(directory)
    with _convert_errors("its linear model does not load or compute"):
        predictor = LinearPredictor.load(directory)
        logits = predictor.forward(predictor.encode(texts))
    difference = _compare_logits(logits.astype(np.float32), golden)
    return VerifiedModelImport(directory=directory.name, facts=facts, difference=difference)


@contextmanager
def _convert_errors(problem: str) -> Iterator[None]:
    """Convert any exception: libraries raise almost anything on files that they did not write."""
    try:
        with convert_panics():
            yield
    except (LoraCoreError, MemoryError):
        raise
    except Exception as error:
        if is_oom_error(error):
            raise
        raise InvalidImportedModel(problem=f"{problem} ({type(error).__name__})") from error


def _compare_logits(logits: NDArray[np.float32], golden: NDArray[np.float32]) -> float:
    """Return the largest difference.

    Raises `GoldenPredictionsMismatch`, `InvalidImportedModel`.
    """
    if not np.isfinite(logits).all():
        raise InvalidImportedModel(problem="it computes NaN or infinite logits")
    if logits.shape != golden.shape:
        raise InvalidImportedModel(problem="the number of labels differs from its config")
    difference, limit = logit_difference_and_limit(logits, golden)
    if not difference <= limit:
        raise GoldenPredictionsMismatch(difference=difference, tolerance=limit)
    return difference


def _check_adapter(directory: Path, model: PreTrainedModel, model_type: str) -> None:
    """Raise `InvalidImportedModel` unless the adapter fits the model and is finite.

    Adds adapters to the model.
    """
    family = family_of(model)
    with _convert_errors("its adapter cannot be read"):
        adapter = read_saved_adapter(directory)
        is_finite = all(bool(tensor.isfinite().all()) for tensor in adapter.tensors.values())
        head = load_file(directory / "head.safetensors")
        expected_head = head_tensors(model, family)
        method = LoraMethod(adapter.spec)
        method.prepare(model, family)
    if {n: t.shape for n, t in head.items()} != {n: t.shape for n, t in expected_head.items()}:
        raise InvalidImportedModel(problem="its head does not match its encoder and labels")
    full_head = {
        f"{name}.{part}" for name in family.head_module_names for part in ("weight", "bias")
    }
    expected, shapes = (  # a head that was trained in full is in head.safetensors
        {name: tensor.shape for name, tensor in tensors.items() if name not in full_head}
        for tensors in (method.state_dict(model), adapter.tensors)
    )
    if adapter.family != model_type or shapes != expected:
        raise InvalidImportedModel(problem="its adapter does not match its model")
    if not is_finite:
        raise InvalidImportedModel(problem="its adapter contains NaN or infinite values")
