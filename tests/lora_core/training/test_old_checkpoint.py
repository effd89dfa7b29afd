"""Checkpoints of earlier versions and other machines can be resumed."""

import json
import shutil
from pathlib import Path

import pytest

from lora_core import manifest
from lora_core.specs.train import TrainSpec
from lora_core.training.encoder import train_encoder
from tests.recording_observer import RecordingObserver

ASSETS = Path(__file__).parents[2] / "assets"


@pytest.mark.parametrize("version", [1])
def test_version_1_checkpoint_resumes_to_the_same_losses(
    version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Versions differ in rounding, so losses are compared within a tolerance."""
    place = tmp_path / "old"
    shutil.copytree(ASSETS / f"checkpoint-v{version}", place)
    monkeypatch.chdir(place)
    spec = TrainSpec.model_validate_json(Path("spec.json").read_bytes())
    observer = RecordingObserver()
    train_encoder(
        spec, out_dir=tmp_path / "out", observer=observer, stop=observer, resume=place / "step-7"
    )
    resumed = observer.all("resumed")[0]
    assert resumed.step == 7
    assert resumed.exact == (not resumed.differences)
    curve = {event.step: event.loss for event in observer.all("step")}
    expected = {
        int(step): loss for step, loss in json.loads(Path("losses.json").read_text()).items()
    }
    assert curve == pytest.approx({step: expected[step] for step in range(8, 16)}, rel=1e-3)
    assert manifest.verify(tmp_path / "out")["metrics"]["steps"] == 15
