"""Predictors of encoder models: texts in, labels with probabilities out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedModel

from lora_core import manifest
from lora_core.artifact import model_label_names, read_labels
from lora_core.data.batching import length_sorted_batches, mean_of_windows
from lora_core.inference.decoding import DecodedOutput, decode_label_scores, decode_outputs
from lora_core.inference.engines import EngineCache, InferenceEncoder, build_encoder
from lora_core.inference.tokenization import (
    ModelTokenizer,
    TokenizedText,
    TokenizedWords,
    tokenize_into_words,
)
from lora_core.specs.chat import PromptFormat
from lora_core.specs.predict import ScoreFunction, TruncationSide
from lora_core.specs.text_input import TextInput
from lora_core.tasks.base import UNCALIBRATED, Calibration, Task
from lora_core.tasks.build import restore_task_and_calibration
from lora_core.tasks.single_label import SingleLabel

BATCH_TOKENS = 4096  # padded tokens that `forward` computes at once


@dataclass(frozen=True, eq=False)
class Predictor:
    """A model version that is ready to predict. Several may share an engine."""

    engine: InferenceEncoder
    adapter: Any  # of the engine
    tokenizer: ModelTokenizer
    task: Task
    calibration: Calibration = UNCALIBRATED
    engine_speeds: Mapping[str, float] = field(default_factory=dict)  # tokens/s, if benchmarked
    prompt_format: PromptFormat | None = None  # of the examples in chat form it was trained on
    # that each of several targets was read from; of one task, under None
    label_columns: Mapping[str | None, str] = field(default_factory=lambda: {None: "label"})

    @classmethod
    def from_model(
        cls,
        model: PreTrainedModel,
        tokenizer: Tokenizer,
        max_length: int,
        *,
        pairs: bool = False,
        windows: bool = False,
    ) -> "Predictor":
        """Build a predictor in float32 of a model in memory, with its adapters if it has any."""
        engine = build_encoder(model, torch.float32)
        adapter = engine.extract_adapter(model)
        model_tokenizer = ModelTokenizer(tokenizer, max_length, pairs=pairs, windows=windows)
        return cls(engine, adapter, model_tokenizer, SingleLabel(model_label_names(model)))

    @classmethod
    def load(
        cls,
        directory: Path,
        *,
        base: Path | None = None,
        engine: str = "torch-fp32",
        engine_cache: EngineCache | None = None,
    ) -> "Predictor":
        """Load an artifact directory, checking every digest that is read.

        Args:
            directory: The artifact.
            base: The directory of its base, if it is not in the artifact: see
                `artifact_base_sharing`.
            engine: Name of an engine.
            engine_cache: Encoders and tokenizers in memory that may be shared.

        Raises `ArtifactCorrupt`, `EngineUnavailable`.
        """
        loaded = (engine_cache or EngineCache()).load(directory, engine, base)
        task, calibration = restore_task_and_calibration(loaded.manifest, read_labels(directory))
        return cls(
            loaded.engine,
            loaded.adapter,
            loaded.tokenizer,
            task,
            calibration,
            prompt_format=manifest.prompt_format(loaded.manifest),
            label_columns=manifest.label_columns(loaded.manifest),
        )

    @property
    def labels(self) -> Sequence[str]:
        """The names of the outputs."""
        return self.task.labels

    @property
    def max_length(self) -> int:
        """Maximum tokens that the model reads of a text."""
        return self.tokenizer.max_tokens_read

    @property
    def pairs(self) -> bool:
        """Whether the model reads pairs of texts."""
        return self.tokenizer.pairs

    def encode(
        self, texts: Sequence[TextInput], *, truncate: bool = True, side: TruncationSide = "right"
    ) -> list[TokenizedText]:
        """Tokenize texts, see `ModelTokenizer.encode`."""
        return self.tokenizer.encode(texts, truncate=truncate, side=side)

    def tokenize_into_words(self, text: TextInput) -> TokenizedWords:
        """Return the words that the model reads of a text, see `tokenize_into_words`."""
        return tokenize_into_words(self.tokenizer, text)

    def forward(self, items: Sequence[TokenizedText]) -> Tensor:
        """Return logits (items, classes) in float32, in the order given; computed by length.

        Those of a text in windows are the mean of the windows.
        """
        windows = [window for item in items for window in item.windows]
        logits = torch.empty(len(windows), len(self.labels))
        for indices, texts in _batches(windows):
            logits[indices] = torch.stack(self.engine.logits(texts, [self.adapter] * len(texts)))
        return mean_of_windows(logits, [len(item.windows) for item in items])

    def states(self, items: Sequence[TokenizedText]) -> NDArray[np.float32]:
        """Return what the head reads of each text (items, width), of at least one.

        Those of a text in windows are the mean of the windows.
        """
        windows = [window for item in items for window in item.windows]
        states: dict[int, Tensor] = {}
        for indices, texts in _batches(windows):
            computed = self.engine.logits_and_states(texts, [self.adapter] * len(texts))
            states |= {i: state for i, (_, state) in zip(indices, computed, strict=True)}
        rows = torch.stack([states[i] for i in range(len(windows))])
        counts = [len(item.windows) for item in items]
        by_text: NDArray[np.float32] = mean_of_windows(rows, counts).numpy()
        return by_text

    def decode_label_scores(
        self, logits: Any, function: ScoreFunction | None = None
    ) -> list[list[tuple[str, float]]]:
        """Return all outputs with their scores, the best first; see `decoding.decode_label_scores`.

        `logits` (items, classes) is a tensor or an array.
        """
        return decode_label_scores(logits, self.task, self.calibration, function)

    def decode_outputs(
        self, logits: Any, function: ScoreFunction | None = None
    ) -> list[list[DecodedOutput]]:
        """As `decode_label_scores`, with what the task predicts; see `decoding.decode_outputs`."""
        return decode_outputs(logits, self.task, self.calibration, function)

    def predict(
        self, texts: Sequence[TextInput], *, truncate: bool = True
    ) -> list[list[tuple[str, float]]]:
        """Encode, forward and decode."""
        return self.decode_label_scores(self.forward(self.encode(texts, truncate=truncate)))


def _batches(
    windows: Sequence[TokenizedText],
) -> Iterator[tuple[list[int], list[TokenizedText]]]:
    """Yield indices and texts of batches, by length."""
    lengths = np.array([window.length for window in windows])
    for indices in length_sorted_batches(lengths, BATCH_TOKENS):
        yield indices, [windows[i] for i in indices]
