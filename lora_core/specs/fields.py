"""The base class and the field types that all specs share."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Strict, StringConstraints

# Strict numbers: "8", true and 8.5 are not integers; "0.1" and true are not numbers.
Int = Annotated[int, Strict()]
Float = Annotated[float, Strict()]


class FrozenModel(BaseModel):
    """An immutable model that rejects unknown fields, NaN and infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class AliasedStoredModel(FrozenModel):
    """A model of stored data. The alias of a field is its stored name."""

    model_config = ConfigDict(validate_by_name=True)


NO_NUL_PATTERN = r"^[^\x00]+$"
DEVICE_PATTERN = r"^(auto|cpu|cuda(:\d{1,2})?)$"
REVISION_PATTERN = r"^[0-9a-f]{40,64}$"
SLUG_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$"

PATTERN_DESCRIPTIONS = {
    NO_NUL_PATTERN: "not contain a NUL character",
    DEVICE_PATTERN: "be auto, cpu, cuda, or one GPU such as cuda:0",
    REVISION_PATTERN: "be a full commit hash: 40 to 64 of the digits 0-9 and a-f",
    SLUG_PATTERN: (
        "be 1 to 64 lowercase letters a-z, digits and hyphens, without a hyphen at either end"
    ),
}


BaseName = Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=NO_NUL_PATTERN)]


def looks_like_path(base: str) -> bool:
    """Return whether a base name is a path to a directory."""
    return base.startswith(("./", "../", "/"))


def looks_like_model_version(base: str) -> bool:
    """Return whether a base name is a model version of a service, such as `name:3`. Names on the
    hub never contain a colon."""
    return ":" in base and not looks_like_path(base)
