"""Parameters in queries of the Mistral API."""

from typing import Annotated

from fastapi import Query

PageNumber = Annotated[int, Query(ge=0, le=1_000_000, description="The first page is 0.")]
PageSize = Annotated[int, Query(ge=1, le=100, description="Maximum number of items on a page.")]
