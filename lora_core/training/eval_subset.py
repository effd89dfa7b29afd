"""The texts that a run is evaluated on at its end."""

import numpy as np
from numpy.typing import NDArray

from lora_core.specs.data import Split
from lora_core.specs.train import TrainSpec


def texts(spec: TrainSpec, split: Split, there: int) -> NDArray[np.int64]:
    """Numbers of the texts of a part of `there`, ascending: all of them; of a trial so many.

    These are drawn at random, since a part may stand in the order of its labels, and the same for
    every cell of a sweep.
    """
    every = np.arange(there)
    asked = spec.trial.validation_texts if spec.trial else None
    if split is not Split.VALIDATION or asked is None or asked >= there:
        return every
    return np.sort(np.random.default_rng(0).permutation(every)[:asked])
