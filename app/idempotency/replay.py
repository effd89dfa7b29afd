"""An answer that is given again."""

from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from app.idempotency.calls import Replayed


def install(app: FastAPI) -> None:
    """Let routes raise `Replayed`."""
    app.add_exception_handler(Replayed, _respond)


async def _respond(_: Request, saved: Any) -> Response:
    headers = {"Idempotency-Replayed": "true"}
    if saved.location is not None:
        headers["Location"] = saved.location
    return JSONResponse(saved.answer, saved.status, headers)
