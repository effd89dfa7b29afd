"""Runs store vectors of training texts that the served model finds again."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from lora_core import manifest, nearest_examples
from lora_core.cross_validation import AutoSelectionResult
from lora_core.data.load import load_splits
from lora_core.errors.artifact import NoNearestExamples
from lora_core.inference.load import load_predictor
from lora_core.nearest_examples import INDEX_FILE, VECTORS_FILE
from lora_core.results import MethodSelection
from lora_core.specs.data import Split
from lora_core.specs.train import TrainSpec
from lora_core.training.linear import train_linear
from tests.recording_observer import RecordingObserver
from tests.slow import slow_but
from tests.tiny_base import make_pairs, make_reviews

Make = Callable[..., TrainSpec]
Train = Callable[..., tuple[RecordingObserver, Path]]
FP32 = {"precision": "fp32"}


def check_index(out: Path, spec: TrainSpec, held_out: Split = Split.VALIDATION) -> None:
    """Compare the index with what the served model computes of the same texts."""
    index = nearest_examples.load_index(out)
    predictor: Any = load_predictor(out)  # of either kind
    splits = load_splits(spec.data, spec.task)
    by_row = {example.row: example for example in splits.train}
    assert sorted(index.rows) == sorted(by_row)
    task = predictor.task
    for row, label in zip(index.rows, index.labels, strict=True):
        example = by_row[row]
        assert label == task.target_to_label(example.label)
        [nearest, *_] = index.nearest(predictor.states(predictor.encode([example.input])), 3)
        assert nearest.similarity == pytest.approx(1, abs=5e-3)
    others = predictor.encode([example.input for example in splits.examples_of(held_out)])
    expected = np.sort(index.kth_neighbor_similarities(predictor.states(others)))
    assert index.held_out == pytest.approx(expected, abs=5e-3)
    assert index.held_out_split is held_out
    assert manifest.read(out)["nearest_examples"] == index.manifest_entry()


LORA = {"type": "lora", "r": 4}


@pytest.mark.parametrize(
    "method",
    slow_but(
        [LORA, {"type": "baseline"}, {"type": "probe"}, {"type": "full"}], LORA, {"type": "probe"}
    ),
    ids=lambda method: method["type"],
)
def test_index_has_the_states_of_the_served_model(
    spec: Make, train: Train, method: dict[str, Any]
) -> None:
    described = spec(method=method, runtime=FP32, optim={"epochs": 1})
    check_index(train(described)[1], described)


def test_index_of_windows(spec: Make, train: Train) -> None:
    described = spec(
        data={"max_length": 8, "long_texts": "windows"}, runtime=FP32, optim={"epochs": 1}
    )
    check_index(train(described)[1], described)


@pytest.mark.parametrize("method", ["lora", "linear"])
def test_index_of_pairs(spec: Make, train: Train, tmp_path: Path, method: str) -> None:
    data = {
        "source": str(make_pairs(tmp_path / "pairs.csv")),
        "text_column": "first",
        "text_pair_column": "second",
    }
    described = spec(data=data, runtime=FP32, optim={"epochs": 1})
    if method == "linear":
        described = TrainSpec.model_validate({"method": {"type": "linear"}, "data": data})
        out, observer = tmp_path / "linear", RecordingObserver()
        train_linear(described, out_dir=out, observer=observer, stop=observer)
    else:
        _, out = train(described)
    check_index(out, described)


def test_linear_index(tmp_path: Path) -> None:
    described = TrainSpec.model_validate(
        {
            "method": {"type": "linear"},
            "data": {"source": str(make_reviews(tmp_path / "reviews.csv", rows=240))},
        }
    )
    out, observer = tmp_path / "out", RecordingObserver()
    train_linear(described, out_dir=out, observer=observer, stop=observer)
    check_index(out, described)
    threshold = nearest_examples.load_index(out).threshold
    assert threshold is not None
    assert threshold.expected_share == pytest.approx(1 / (threshold.held_out + 1))


def test_cross_validated_run_holds_out_its_test_split(tmp_path: Path) -> None:
    """Its validation texts are also training texts."""
    described = TrainSpec.model_validate(
        {
            "method": {"type": "linear"},
            "data": {"source": str(make_reviews(tmp_path / "reviews.csv", rows=240))},
        }
    )
    splits = load_splits(described.data, described.task)
    together = replace(splits, train=splits.train + splits.validation)
    selected = AutoSelectionResult(
        MethodSelection(texts=len(together.train), chosen=0, candidates=()),
        together,
        np.zeros((len(splits.validation), 2), dtype=np.float32),
        started=time.monotonic(),
    )
    out, observer = tmp_path / "out", RecordingObserver()
    train_linear(described, out_dir=out, observer=observer, stop=observer, selected=selected)
    index = nearest_examples.load_index(out)
    assert index.held_out_split is Split.TEST
    assert len(index.held_out) == len(splits.test)


def test_model_without_terms_has_no_index(tmp_path: Path) -> None:
    source = tmp_path / "texts.csv"
    source.write_text(
        "text,label\n" + "".join(f"{'!' * (i + 1)},{'ab'[i % 2]}\n" for i in range(40))
    )
    described = TrainSpec.model_validate(
        {"method": {"type": "linear"}, "data": {"source": str(source)}}
    )
    out, observer = tmp_path / "out", RecordingObserver()
    train_linear(described, out_dir=out, observer=observer, stop=observer)
    with pytest.raises(NoNearestExamples):
        nearest_examples.load_index(out)


def test_same_run_stores_the_same_bytes_and_no_text(spec: Make, train: Train) -> None:
    described = spec(optim={"epochs": 1})
    (_, one), (_, two) = train(described), train(described)
    for name in (INDEX_FILE, VECTORS_FILE):
        assert (one / name).read_bytes() == (two / name).read_bytes()
    content = (one / INDEX_FILE).read_text(encoding="utf-8")
    example = load_splits(described.data).train[0]
    assert example.text not in content
    assert load_file(one / VECTORS_FILE)["vectors"].dtype == np.float16


def test_run_without_a_model_stores_none(spec: Make, train: Train) -> None:
    described = spec(optim={"epochs": 1}, result={"model": False, "cross_validation": False})
    _, out = train(described)
    assert not (out / INDEX_FILE).exists()
