"""Checkpoints that were made by earlier versions, on another machine, go on to the end."""

import json
import shutil
from pathlib import Path

import pytest

from lora_core import manifest
from lora_core.specs.train import TrainSpec
from lora_core.training.run import run
from tests.listener import Listener

ASSETS = Path(__file__).parents[2] / "assets"


@pytest.mark.parametrize("version", [1])
def test_a_run_that_was_stopped_then_is_finished_now(
    version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other versions give other last bits, so the curve is compared within a tolerance."""
    place = tmp_path / "old"
    shutil.copytree(ASSETS / f"checkpoint-v{version}", place)
    monkeypatch.chdir(place)
    spec = TrainSpec.model_validate_json(Path("spec.json").read_bytes())
    heard = Listener()
    run(spec, out_dir=tmp_path / "out", observer=heard, stop=heard, resume=place / "step-7")
    told = heard.all("resumed")[0]
    assert told.step == 7
    assert told.exact == (not told.differences)
    curve = {event.step: event.loss for event in heard.all("step")}
    expected = {
        int(step): loss for step, loss in json.loads(Path("losses.json").read_text()).items()
    }
    assert curve == pytest.approx({step: expected[step] for step in range(8, 16)}, rel=1e-3)
    assert manifest.verify(tmp_path / "out")["metrics"]["steps"] == 15
