"""The learning curve of a run on a base: would more labels help?

It is the probe's, which needs one pass of the frozen base over the texts, where that pass is cheap,
else that of the linear model.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from lora_core import compatibility, distributed, flops
from lora_core.data import learning_curve as curve
from lora_core.data.batching import by_length
from lora_core.data.more_labels import MoreLabels, without_curve
from lora_core.data.rows import Row
from lora_core.events import Phase
from lora_core.progress_reporter import Pulse, while_beating
from lora_core.specs.data import Split
from lora_core.training.linear_learning_curve import distinct_texts, of_splits
from lora_core.training.prepare import Prepared

# Of one pass of the base: about two seconds of two idle cores, or of a GPU.
PASS_FLOPS = {"cpu": 1e12, "cuda": 1e14}


def of_run(prepared: Prepared, pulse: Pulse) -> MoreLabels | None:
    """Of a run that has not begun to train: its base is as it came. None for a trial, and in all
    processes but the first. Raises `DiskFull`, `Stopped`.
    """
    if prepared.spec.trial is not None or not distributed.is_main():
        return None
    distinct = distinct_texts(prepared.splits)
    answer = without_curve([row.label for row in distinct])
    if answer is not None:
        return answer
    used = curve.pool(distinct, curve.MAX_TEXTS)
    if not _is_cheap(prepared, used):
        return of_splits(prepared.splits, pulse)
    pulse.enter(Phase.LEARNING_CURVE)
    facts = {
        "basis": "probe",
        "data": prepared.splits.digest,
        "base": prepared.base_sha256,
        "max_length": prepared.max_length,
        "precision": prepared.runtime.precision,
    }

    def measure() -> MoreLabels:
        vectors = _vectors(prepared, used, pulse)
        if not np.isfinite(vectors).all():  # training fails with an error of its own
            return of_splits(prepared.splits, pulse)
        truth = curve.labels_of(used)
        learner = curve.probe(vectors, truth)
        return while_beating(
            pulse,
            lambda: curve.estimate(learner, truth, texts=len(distinct), basis="probe"),
        )

    return curve.cached(facts, measure)


def _is_cheap(prepared: Prepared, rows: list[Row]) -> bool:
    """Whether a pass of the base over these texts takes no more than some seconds."""
    lengths = prepared.parts[Split.TRAIN].lengths[[row.number for row in rows]].astype(float)
    shape = compatibility.read_shape(
        prepared.model.config.to_dict(), base=prepared.family.model_type
    )
    cost = flops.forward(shape, length=(lengths**2).sum() / lengths.sum()) * lengths.sum()
    limit = PASS_FLOPS["cpu" if prepared.runtime.device == "cpu" else "cuda"]
    return bool(cost <= limit)


@torch.no_grad()
def _vectors(prepared: Prepared, rows: list[Row], pulse: Pulse) -> NDArray[np.float32]:
    """What the head reads of each text (texts, width), of a mean norm of 1."""
    model, part = prepared.model, prepared.parts[Split.TRAIN]
    numbers = np.array([row.number for row in rows])
    trains = model.training
    model.eval()
    x = torch.zeros(len(rows), model.config.hidden_size)
    for places in by_length(part.lengths[numbers], prepared.spec.optim.micro_batch_tokens):
        x[places] = prepared.forward.pooled(part, numbers[places].tolist()).float().cpu()
        pulse.beat()
    model.train(trains)
    norm = float(x.norm(dim=1).mean()) or 1.0
    vectors: NDArray[np.float32] = (x / norm).numpy()
    return vectors
