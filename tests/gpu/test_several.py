"""Two processes of one run: they use two GPUs, and are refused if there is only one."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lora_core import child_protocol, manifest
from lora_core.__main__ import read_input
from lora_core.specs.train import TrainSpec
from tests.lora_core.training.pairs import Pair
from tests.recording_observer import RecordingObserver

pytestmark = pytest.mark.filterwarnings("ignore:.*determinis.*:UserWarning")


@pytest.mark.parametrize("method", [{"type": "lora"}, {"type": "full"}], ids=lambda m: m["type"])
def test_two_gpus_match_a_single_gpu(
    method: dict[str, object],
    spec: Callable[..., TrainSpec],
    train: Callable[..., tuple[RecordingObserver, Path]],
    tmp_path: Path,
) -> None:
    path = tmp_path / "spec.json"
    described = spec(
        method=method,
        optim={"head_dropout": 0.0, "batch_size": 16},
        data={"train_size": 81},  # the last update of an epoch is one text
        runtime={"device": "cuda", "precision": "fp32"},
    )
    path.write_text(described.model_dump_json())
    pair = Pair(path, 300.0)
    statuses, events = pair.both()
    if torch.cuda.device_count() < 2:
        assert statuses == [child_protocol.EXIT_FAILED] * 2
        assert [e.code for e in events if e.event == "failed"] == ["too_few_devices"]
        return
    assert statuses == [0, 0]
    observer, out = train(read_input(path, TrainSpec))
    losses = [event.loss for event in events if event.event == "step"]
    assert losses == pytest.approx([event.loss for event in observer.all("step")], rel=1e-3)
    accuracies = [manifest.verify(o)["metrics"]["test"]["accuracy"] for o in (pair.out, out)]
    assert accuracies[0] == accuracies[1] > 0.9
