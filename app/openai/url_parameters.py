"""Parameters in paths and queries of the OpenAI API."""

from typing import Annotated

from fastapi import Query
from pydantic import Field

from app.http.fields import CleanText

# For the schema only: other values raise errors of their own.
FILE_ID_PATTERN = "^file-(result-)?[0-9a-f]{32}$"
JOB_ID_PATTERN = "^ftjob-[0-9a-f]{32}$"
AFTER_PATTERN = "^(file|file-result|ftjob|ftevent|ftckpt)-[0-9a-f]{32}(-[0-9]+)?$"

FileIdParam = Annotated[
    str,
    Field(
        description="`file-…` or, for the metrics of a job, `file-result-…`.",
        json_schema_extra={"pattern": FILE_ID_PATTERN},
    ),
]
JobIdParam = Annotated[
    str,
    Field(description="`ftjob-…`.", json_schema_extra={"pattern": JOB_ID_PATTERN}),
]
AfterId = Annotated[
    Annotated[str, CleanText(64), Field(json_schema_extra={"pattern": AFTER_PATTERN})] | None,
    Query(description="Id of the last item of the previous page."),
]
