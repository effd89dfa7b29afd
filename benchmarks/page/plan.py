"""What is measured, how much of it, and the targets in seconds."""

from dataclasses import dataclass
from typing import Any

CELLS = ("list", "curves", "live")
# Cell → its metric and the upper limit in seconds.
TARGETS = {
    "list": ("first_paint_median", 1.0),
    "curves": ("seen_median", 1.0),
    "live": ("point_worst", 2.0),
}
BATCH = 16  # texts of an update


@dataclass(frozen=True)
class Size:
    """How much of it."""

    jobs: int  # in the list
    steps: int  # of each of them
    points: int  # of the one long run
    visits: int  # of a page, each with an empty cache
    texts: int  # that the live job learns from

    @property
    def live_job(self) -> dict[str, Any]:
        """LoRA on sentences about films: 200 updates in some two minutes on two cores."""
        sizes = {"train_size": self.texts, "validation_size": 100, "test_size": 100}
        return {
            "method": {"type": "lora"},
            "data": {"source": "rotten-tomatoes", **sizes},
            "optim": {"epochs": 1, "batch_size": BATCH},
        }


FULL = Size(jobs=5000, steps=100, points=100_000, visits=15, texts=3200)
QUICK = Size(jobs=100, steps=20, points=2000, visits=3, texts=160)
