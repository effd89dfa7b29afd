"""A tiny base, tiny reviews, and a run over them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_core.specs.train import TrainSpec
from lora_core.training.encoder import train_encoder
from tests.lora_core.training.pairs import LORA, ODD, RANDOM
from tests.recording_observer import RecordingObserver
from tests.tiny_base import make_base, make_reviews


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAWORKS_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """A run sets them for the process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_base(tmp_path / "base")


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    return make_reviews(tmp_path / "reviews.csv")


@pytest.fixture
def spec(base: Path, reviews: Path) -> Callable[..., TrainSpec]:
    """The spec of a run that takes a second; keyword arguments replace sections."""

    def make(**changes: Any) -> TrainSpec:
        body: dict[str, Any] = {
            "method": {"type": "lora", "r": 4, "targets": ["query", "value", "mlp"]},
            "base": str(base),
            "data": {"source": str(reviews)},
            "optim": {"epochs": 3, "learning_rate": 0.01, "batch_size": 8},
            "runtime": {"threads": 1, "seed": 3},
            "result": {"cross_validation": False},  # otherwise each run does five more fits
        }
        for name, value in changes.items():
            both = isinstance(value, dict) and name != "method"
            body[name] = {**body.get(name, {}), **value} if both else value
        return TrainSpec.model_validate(body)

    return make


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., tuple[RecordingObserver, Path]]:
    """Run a spec; returns its observer and the artifact."""
    counter = iter(range(100))

    def go(spec: TrainSpec, stop_at: int | None = None) -> tuple[RecordingObserver, Path]:
        listener, out = RecordingObserver(stop_at), tmp_path / f"artifact-{next(counter)}"
        train_encoder(spec, out_dir=out, observer=listener, stop=listener)
        return listener, out

    return go


@pytest.fixture
def write(spec: Callable[..., TrainSpec], tmp_path: Path) -> Callable[..., Path]:
    """The file of a spec for two processes."""
    counter = iter(range(100))
    runtime = {"device": "cpu", "precision": "fp32"}

    def make(**changes: Any) -> Path:
        path = tmp_path / f"spec-{next(counter)}.json"
        path.write_text(spec(**{"runtime": runtime, **changes}).model_dump_json())
        return path

    return make


@pytest.fixture
def random(write: Callable[..., Path]) -> Callable[..., Path]:
    """The same for two epochs of six updates, with all sources of randomness."""

    def make(**optim: int) -> Path:
        method, stop = {**LORA, "dropout": 0.1}, {"select_by": "loss"}
        return write(method=method, optim={**RANDOM, **optim}, stop=stop, data=ODD)

    return make
