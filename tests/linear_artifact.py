"""A linear model of a few sentences, made as a run makes it."""

from pathlib import Path
from typing import Any

from lora_core.specs.train import TrainSpec
from lora_core.training import linear
from tests.listener import Listener
from tests.tiny_base import make_reviews

LABELS = ("bad", "good")


def make_linear_artifact(
    directory: Path, *, labels: tuple[str, ...] = LABELS, **method: Any
) -> Path:
    """The last word but one of each of its texts is its label."""
    reviews = make_reviews(directory.with_name(f"{directory.name}.csv"), labels=labels)
    body = {"method": {"type": "linear", **method}, "data": {"source": str(reviews)}}
    listener = Listener()
    spec = TrainSpec.model_validate(body)
    linear.run(spec, out_dir=directory, observer=listener, stop=listener)
    return directory
