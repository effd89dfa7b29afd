"""What pages of lists have in common."""

from typing import Any
from urllib.parse import urlencode

from pydantic import BaseModel, BeforeValidator

from app.http.pagination import After

# A field of a form that was left empty says nothing.
Filled = BeforeValidator(lambda text: text or None)


class Wanted(BaseModel):
    """Which page of a list. What narrows the list stands in subclasses."""

    after: After = None

    @property
    def without_after(self) -> str:
        """The query of the first page."""
        said: dict[str, Any] = self.model_dump(
            mode="json", exclude={"after"}, exclude_defaults=True
        )
        return urlencode(said)
