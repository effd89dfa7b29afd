"""Fixtures: the unmodified Mistral client, and files for it."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from mistralai.client import Mistral

from tests.app.cli.conftest import serving
from tests.app.serving.conftest import publish
from tests.mistral_files import examples

__all__ = ["publish"]


@pytest.fixture
def url(app: FastAPI) -> Iterator[str]:
    """The server URL of the running application for the client."""
    with serving(app) as address:
        yield f"{address}/mistral"


@pytest.fixture
def sdk(url: str) -> Iterator[Any]:
    """A `Mistral`. Every answer is of one of several types, which tests need not distinguish."""
    with Mistral(server_url=url, api_key="none") as client:
        yield client


def upload(client: Any, name: str = "mails.jsonl", content: bytes | None = None) -> str:
    """Upload a file; return its id. Different names are different datasets."""
    file = {"file_name": name, "content": examples() if content is None else content}
    return str(client.files.upload(file=file).id)
