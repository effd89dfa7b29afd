"""What sets a training and a prediction run apart. All else of their life is the same."""

from pathlib import Path
from typing import NamedTuple

from app.queue.states import Kind
from app.storage.tables import MODEL, RESULTS
from lora_core import manifest


class Work(NamedTuple):
    """How one kind of work is done, and where its result goes."""

    command: str  # of `python -m lora_core`
    model: str  # what its description calls the model to begin with
    merged: bool  # reads the plain checkpoint alone, not the whole artifact
    artifact: str  # kind of its result
    shelf: str  # first part of the key of its result

    def of(self, artifact: Path) -> Path:
        """What it reads of a model version."""
        return artifact / manifest.MERGED if self.merged else artifact


WORK = {
    Kind.TRAINING: Work("train", "base", merged=True, artifact=MODEL, shelf="jobs"),
    Kind.PREDICTION: Work(
        "predict-file", "model", merged=False, artifact=RESULTS, shelf="predictions"
    ),
}
