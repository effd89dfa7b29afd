"""The one configuration that every description shares."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Strict

# A number is written as one: "8", true and 8.5 are no integers, "0.1" and true no numbers.
Int = Annotated[int, Strict()]
Float = Annotated[float, Strict()]


class Frozen(BaseModel):
    """Immutable, no unknown fields, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
