"""The description of a run that computes the vectors of texts."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from lora_core.specs.fields import REVISION_PATTERN, BaseName, FrozenModel
from lora_core.specs.predict import PredictDataSpec, PredictRuntimeSpec

VECTORS_FILE = "vectors.safetensors"
VECTORS = "vectors"  # the name of the tensor: (texts, width) in float32, in the order of the rows


class EmbedSpec(FrozenModel):
    """Compute the vector of every row of a file with one frozen encoder.

    `base` is a sample, a directory, or a model of the hub. A service also accepts one of its model
    versions, and the name of an uploaded dataset as `data.source`.
    """

    spec_version: Literal[1] = 1  # incremented when the meaning of a field changes
    base: BaseName
    base_revision: Annotated[str, StringConstraints(pattern=REVISION_PATTERN)] | None = None
    data: PredictDataSpec
    runtime: PredictRuntimeSpec = Field(default=PredictRuntimeSpec())
