"""Parameters in paths and queries of the OpenAI API."""

from typing import Annotated

from fastapi import Query
from pydantic import Field

from app.http.fields import CleanText

# The patterns are for the schema only: other values give 404.
FileIdParam = Annotated[
    str,
    Field(
        description="`file-…` or, for the metrics of a job, `file-result-…`.",
        json_schema_extra={"pattern": "^file-(result-)?[0-9a-f]{32}$"},
    ),
]
JobIdParam = Annotated[
    str,
    Field(description="`ftjob-…`.", json_schema_extra={"pattern": "^ftjob-[0-9a-f]{32}$"}),
]
AfterId = Annotated[
    Annotated[str, CleanText(64)] | None,
    Query(description="Id of the last item of the previous page."),
]
