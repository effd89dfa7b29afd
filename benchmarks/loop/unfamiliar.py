"""Texts that are called unfamiliar: of the same distribution, and about something else.

A linear model and a LoRA model are trained with their defaults. Nothing was chosen by these texts.
The vectors of the frozen base are compared with what the LoRA model itself reads.
"""

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from benchmarks.loop import plan, sets
from benchmarks.loop.plan import Cell
from benchmarks.silent import NeverStop
from lora_core import manifest, nearest_examples
from lora_core.data.load import load_splits
from lora_core.data.rows import TextRow
from lora_core.data.split import Example
from lora_core.events import NullObserver
from lora_core.inference.load import load_predictor
from lora_core.nearest_examples import DenseVectors, ExampleIndex
from lora_core.specs.data import Split
from lora_core.specs.train import TrainSpec
from lora_core.tasks.build import build_task

METHODS = ("linear", "lora")


def run(cell: Cell, *, quick: bool) -> dict[str, Any]:
    """Shares of texts that each method, and the frozen base, calls unfamiliar."""
    data, size = sets.load(cell.data, quick=quick), plan.size(quick=quick)
    others = {
        name: sets.load(name, quick=quick)
        for name in (plan.QUICK_SETS if quick else plan.UNFAMILIAR_SETS)
        if name != cell.data
    }
    pool = data.texts.pool[: size.unfamiliar_texts]
    texts = {
        cell.data: data.texts.test,
        **{name: other.texts.test[: size.foreign_texts] for name, other in others.items()},
    }
    found: dict[str, Any] = {"texts": len(pool)}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "pool.jsonl"
        lines = (json.dumps({"text": row.text, "label": row.label}) for row in pool)
        source.write_text("\n".join(lines) + "\n", encoding="utf-8")
        for method in METHODS[:1] if quick else METHODS:
            spec = TrainSpec.model_validate(
                {
                    "method": {"type": method},
                    "data": {"source": str(source), "validation_size": 0.2},
                    "result": {"cross_validation": False},
                }
            )
            out = Path(folder) / method
            started = time.process_time()
            _train(spec, out)
            seconds = time.process_time() - started
            found[method] = {**_shares(out, texts, cell.data), "train_cpu_seconds": seconds}
        index = _index_of_base(spec, data)
    vectors = {cell.data: data.test_vectors} | {
        name: other.test_vectors[: len(texts[name])] for name, other in others.items()
    }
    similarities = {name: index.kth_neighbor_similarities(each) for name, each in vectors.items()}
    found["base"] = _compare(index, similarities, cell.data)
    return found


def _train(spec: TrainSpec, out: Path) -> None:
    from lora_core.training.encoder import train_encoder
    from lora_core.training.linear import train_linear

    train = train_linear if spec.method.type == "linear" else train_encoder
    train(spec, out_dir=out, observer=NullObserver(), stop=NeverStop())


def _shares(out: Path, texts: dict[str, Sequence[TextRow]], own: str) -> dict[str, Any]:
    predictor, index = load_predictor(out), nearest_examples.load_index(out)
    computed = [row.text for row in texts[own]]
    started = time.process_time()
    predictor.states(predictor.encode(computed))
    seconds = (time.process_time() - started) / len(computed)
    similarities = {
        name: index.kth_neighbor_similarities(
            predictor.states(predictor.encode([r.text for r in rows]))
        )
        for name, rows in texts.items()
    }
    size = sum((out / name).stat().st_size for name in manifest.NEAREST_EXAMPLES_FILES)
    # What the run paid for its index, about: the serving engine may be faster than training.
    seconds *= len(index.rows) + len(index.held_out)
    return {**_compare(index, similarities, own), "bytes": size, "index_cpu_seconds": seconds}


def _index_of_base(spec: TrainSpec, data: sets.LoopSet) -> ExampleIndex:
    """The same examples and held-out texts, with vectors of the frozen base."""
    splits = load_splits(spec.data, spec.task)
    train = [splits.train[i] for i in nearest_examples.sample_example_indices(splits.train)]
    task = build_task(spec.task, splits.labels, [each.label for each in splits.train])
    vectors = DenseVectors.from_states(_of(train, data))
    held_out = _of(splits.validation, data)
    return nearest_examples.build_index(train, task, vectors, Split.VALIDATION, held_out)


def _of(examples: Sequence[Example], data: sets.LoopSet) -> NDArray[np.float32]:
    by_text = {row.text: vector for row, vector in zip(data.texts.pool, data.vectors, strict=True)}
    return np.array([by_text[example.text] for example in examples])


def _compare(
    index: ExampleIndex, similarities: dict[str, NDArray[np.float32]], own: str
) -> dict[str, Any]:
    threshold = index.threshold
    assert threshold is not None
    same = similarities[own]
    return {
        "threshold": threshold.similarity,
        "held_out": threshold.held_out,
        "expected_share": threshold.expected_share,
        "texts": len(same),
        "unfamiliar": {
            name: float(np.mean(each < threshold.similarity)) for name, each in similarities.items()
        },
        "auc": {
            name: float(
                roc_auc_score(
                    np.concatenate([np.ones(len(same)), np.zeros(len(each))]),
                    np.concatenate([same, each]),
                )
            )
            for name, each in similarities.items()
            if name != own
        },
    }
