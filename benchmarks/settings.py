"""What a result depends on, by which a stored one is known to be stale."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from lora_core import compatibility
from lora_core.data import linear_baseline
from lora_core.encoders.load import resolve_base
from lora_core.resolve_defaults import resolve_defaults
from lora_core.specs.data import DataSpec, Split
from lora_core.specs.pooling import Pooling
from lora_core.specs.train import TrainSpec
from lora_core.training_version import TRAINING_VERSION

# The last TRAINING_VERSION by which a classifier got other weights; 5 changed regressions only.
CLASSIFICATION_VERSION = 4 if TRAINING_VERSION == 5 else TRAINING_VERSION


def settings(
    spec: TrainSpec | DataSpec, texts: Mapping[Split, int] | None = None
) -> dict[str, Any]:
    """All settings as JSON, with today's defaults filled in, and the version of the training.

    Of data alone, those of the linear model. `texts` is the size of each split, on which epochs,
    batches and rates depend, unless the data says it. Of the runtime settings only the seed is
    included; a cell stores the rest.
    """
    if isinstance(spec, DataSpec):
        return {
            "data": spec.model_dump(mode="json"),
            "linear": linear_baseline.SPEC.model_dump(mode="json"),
        }
    texts = texts or {split: getattr(spec.data, f"{split}_size") for split in Split}
    described = resolve_defaults(spec, _shape(spec.encoder_base, spec.pooling), texts)[0]
    is_regression = spec.task.type == "regression"
    return {
        **described.model_dump(mode="json", exclude={"result", "trial"}),
        "runtime": {"seed": spec.runtime.seed},
        "training_version": TRAINING_VERSION if is_regression else CLASSIFICATION_VERSION,
    }


@cache
def _shape(base: str, pooling: Pooling) -> compatibility.EncoderShape:
    return compatibility.read_encoder_shape(resolve_base(base).config, base=base, pooling=pooling)
