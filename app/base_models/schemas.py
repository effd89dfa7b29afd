"""Body of the routes of base models."""

from pydantic import Field

from app.http.fields import RequestModel
from lora_core.specs.fields import REVISION_PATTERN, BaseName


class BaseCheckRequest(RequestModel):
    """A base model, named as in a job."""

    base: BaseName = Field(
        description="`minilm-l6`, a model of this installation (`name`, `name@alias`, `name:3`), "
        "a directory that the operator allows, or a hub model that the host of the API has."
    )
    base_revision: str | None = Field(
        default=None, pattern=REVISION_PATTERN, description="Commit of a hub model."
    )
