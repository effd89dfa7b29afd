"""Model references: "name" (its production version), "name@alias", "name:3".

The APIs of OpenAI and Mistral name a model after the job that trained it:
"ft:minilm-l6:loraworks:spam:5f…".
"""

import re
from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from pydantic import Field

from app.registry.errors import InvalidModelRef, ModelNotFound
from app.registry.tables import PRODUCTION

_SLUG = r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?"
_REF = re.compile(rf"({_SLUG})(?:@({_SLUG})|:([1-9][0-9]{{0,8}}))?")
_FINE_TUNED = re.compile(r"ft:.*:([0-9a-f]{32})")

MODEL_REF_PATTERN = f"^{_REF.pattern}$"  # for the schema; other values raise `InvalidModelRef`
ModelRefParam = Annotated[
    str,
    Field(
        description="`name` (its production version), `name@alias` or `name:3`.",
        json_schema_extra={"pattern": MODEL_REF_PATTERN},
    ),
]


@dataclass(frozen=True)
class ModelRef:
    """A reference to a version by number, or by a movable alias."""

    name: str
    alias: str | None = None
    number: int | None = None

    def __str__(self) -> str:
        return f"{self.name}:{self.number}" if self.alias is None else f"{self.name}@{self.alias}"


def parse_ref(text: str) -> ModelRef:
    """Parse a model reference. Raises `InvalidModelRef`."""
    match = _REF.fullmatch(text)
    if match is None:
        raise InvalidModelRef(ref=text[:100])
    name, alias, number = match.groups()
    if number is not None:
        return ModelRef(name, number=int(number))
    return ModelRef(name, alias=alias or PRODUCTION)


def job_id_in_model_name(text: str) -> UUID | None:
    """Return the job after which a model is named; None if this is no such name."""
    match = _FINE_TUNED.fullmatch(text)
    return UUID(hex=match[1]) if match else None


def require_model_name_syntax(name: str) -> str:
    """Return the name if it may be one of our models. Raises `ModelNotFound` for all others.

    Scripts that move here may still name a model of another service, such as `gpt-4.1`.
    """
    if job_id_in_model_name(name) is None:
        try:
            parse_ref(name)
        except InvalidModelRef as error:
            raise ModelNotFound(ref=repr(name[:100])) from error
    return name
