"""Make the artifact of a linear model by a run on a few sentences."""

from pathlib import Path
from typing import Any

from lora_core.specs.train import TrainSpec
from lora_core.training import linear
from tests.recording_observer import RecordingObserver
from tests.tiny_base import make_pairs, make_reviews

LABELS = ("bad", "good")


def make_linear_artifact(
    directory: Path, *, labels: tuple[str, ...] = LABELS, pairs: bool = False, **method: Any
) -> Path:
    """Train on texts whose second to last word is the label, or on `make_pairs`."""
    path = directory.with_name(f"{directory.name}.csv")
    if pairs:
        columns = {"text_column": "first", "text_pair_column": "second"}
        data = {"source": str(make_pairs(path)), **columns}
    else:
        data = {"source": str(make_reviews(path, labels=labels))}
    body = {"method": {"type": "linear", **method}, "data": data}
    listener = RecordingObserver()
    spec = TrainSpec.model_validate(body)
    linear.train_linear(spec, out_dir=directory, observer=listener, stop=listener)
    return directory
