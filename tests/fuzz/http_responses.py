"""Readers of HTTP responses: those of MLflow."""

import re
from collections import deque
from collections.abc import Callable
from functools import cache
from pathlib import Path

import httpx2

from app.mlflow.client import Metric, MlflowClient
from app.mlflow.connection import MlflowConnection
from app.mlflow.errors import MlflowError

TOKEN = "example-token"
CONNECTION = MlflowConnection("https://mlflow.example", "loraworks", f"Bearer {TOKEN}")

CALLS: tuple[Callable[[MlflowClient], str | None], ...] = (
    lambda client: client.get_or_create_experiment("loraworks"),
    lambda client: client.find_run_id_by_tag("1", "loraworks.job", "x"),
    lambda client: client.create_run("1", name="job", start_time=0, tags={}),
    lambda client: client.log_metrics("1", [Metric("loss", 0.5, 0, 1)]),
    lambda client: client.update_run("1", status="FINISHED", end_time=None),
    lambda client: client.ensure_model("spam"),
    lambda client: client.find_version("spam", "loraworks.version", "1"),
    lambda client: client.create_version("spam", source="x", run_id=None, description="", tags={}),
    lambda client: client.delete_alias("spam", "production"),
)


def mlflow(data: bytes, directory: Path) -> None:
    """Read a response: its status, and in the next lines its body."""
    del directory
    line, _, content = data.partition(b"\n")
    status = int(line) if re.fullmatch(rb"[2-5]\d\d", line) else 200
    client, responses = _client_and_responses()
    responses.append(lambda: httpx2.Response(status, content=content))
    for call in CALLS:
        found = error = ""
        try:
            found = call(client) or ""
        except MlflowError as raised:
            error = str(raised)
        # An id becomes part of a filter; an error is stored and shown.
        assert re.fullmatch(r"[\w-]{0,64}", found, re.ASCII)
        assert error.isprintable()
        assert TOKEN not in error


@cache
def _client_and_responses() -> tuple[MlflowClient, deque[Callable[[], httpx2.Response]]]:
    """Return a client that gets the last of these responses to each request."""
    client = MlflowClient(CONNECTION)
    client._http.close()
    responses: deque[Callable[[], httpx2.Response]] = deque(maxlen=1)
    client._http = httpx2.Client(transport=httpx2.MockTransport(lambda _: responses[0]()))
    return client, responses
