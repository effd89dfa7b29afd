"""A method that cross-validation chose, and what the whole run makes of that."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_core.data.records import Splits
from lora_core.model_selection import Selection
from lora_core.verdict import Rival


@dataclass(frozen=True)
class Chosen:
    """The parts that it is trained and judged on.

    Where the data name no validation part, it is trained on all texts that are not for testing, and
    validation figures are those of cross-validation: `cross_validated` are the logits (texts,
    classes) of the validation part, whose texts are in the training part as well.
    """

    selection: Selection
    splits: Splits
    cross_validated: NDArray[np.float32] | None
    probe: Rival | None = None  # a probe beside it, where a run of the method itself can make none

    def summary(self) -> dict[str, Any]:
        """What the summary of the run says of it."""
        return {"selection": self.selection.model_dump(mode="json")}
