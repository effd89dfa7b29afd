"""The one configuration that every description shares, and what is told of one that is wrong."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Strict, ValidationError

# A number is written as one: "8", true and 8.5 are no integers, "0.1" and true no numbers.
Int = Annotated[int, Strict()]
Float = Annotated[float, Strict()]


class Frozen(BaseModel):
    """Immutable, no unknown fields, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def first_fault(error: ValidationError) -> tuple[str, str]:
    """Where the first thing is wrong, such as `data.source`, and in which way."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return ".".join(str(part) for part in first["loc"]), first["msg"]
