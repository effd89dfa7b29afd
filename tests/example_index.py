"""Add the index of training examples to an artifact that was made without training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lora_core import manifest, nearest_examples
from lora_core.inference.predictor import Predictor
from lora_core.nearest_examples import DenseVectors, ExampleIndex
from lora_core.specs.data import Split
from lora_core.specs.text_input import TextInput


def add_example_index(
    artifact: Path,
    texts: Sequence[TextInput],
    labels: Sequence[str],
    *,
    held_out: Sequence[float] = (),
) -> ExampleIndex:
    """Store these training texts, which are the rows 1, 2 … of their dataset.

    `held_out`: the similarities of held-out texts, which the threshold comes from.
    """
    predictor = Predictor.load(artifact)
    index = ExampleIndex(
        tuple(range(1, len(texts) + 1)),
        tuple(labels),
        DenseVectors.from_states(predictor.states(predictor.encode(texts))),
        Split.VALIDATION,
        np.sort(np.array(held_out, dtype=np.float32)),
    )
    nearest_examples.save_index(artifact, index)
    facts: dict[str, Any] = manifest.read(artifact)
    del facts["files"]
    (artifact / manifest.MANIFEST_FILE).unlink()
    manifest.create_and_save(artifact, facts)
    return index
