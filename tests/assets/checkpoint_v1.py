"""Made checkpoint-v1/ once, with the first form: `python -m tests.assets.checkpoint_v1`.

Do not regenerate it. Later versions must resume from it, or report why they cannot.
"""

import json
import os
import shutil
from pathlib import Path

from lora_core.errors.training import StopRequested
from lora_core.specs.train import TrainSpec
from lora_core.training.checkpoint_schedule import CheckpointSettings
from lora_core.training.encoder import train_encoder
from tests.recording_observer import RecordingObserver
from tests.tiny_base import make_base, make_reviews

PLACE = Path(__file__).parent / "checkpoint-v1"
STEP = 7  # of 15: within the second epoch

# Nothing is random, so that other versions and machines compute nearly the same curve.
SPEC = {
    "method": {"type": "lora", "r": 2, "targets": ["query", "value"]},
    "base": "./base",
    "data": {"source": "reviews.csv"},
    "optim": {"epochs": 3, "learning_rate": 0.005, "batch_size": 8, "head_dropout": 0.0},
    "runtime": {"device": "cpu", "precision": "fp32", "threads": 1, "seed": 3},
}


def main() -> None:
    """The base, the data, the spec, the checkpoint, and the losses of the uninterrupted run."""
    shutil.rmtree(PLACE, ignore_errors=True)
    PLACE.mkdir()
    os.chdir(PLACE)  # so that no absolute path is stored
    make_base(Path("base"), dim=16, hidden_dim=16, n_heads=2, max_position_embeddings=32)
    make_reviews(Path("reviews.csv"), rows=56)
    Path("spec.json").write_text(json.dumps(SPEC, indent=1) + "\n")
    spec = TrainSpec.model_validate(SPEC)
    uninterrupted = RecordingObserver()
    train_encoder(spec, out_dir=Path("out"), observer=uninterrupted, stop=uninterrupted)
    losses = {event.step: event.loss for event in uninterrupted.all("step")}
    Path("losses.json").write_text(json.dumps(losses, indent=1) + "\n")
    stopped = RecordingObserver(stop_at=STEP)
    try:
        train_encoder(
            spec,
            out_dir=Path("out"),
            observer=stopped,
            stop=stopped,
            checkpoint_settings=CheckpointSettings(Path(), 300.0),
        )
    except StopRequested:
        shutil.rmtree("out")


if __name__ == "__main__":
    main()
