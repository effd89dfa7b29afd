"""Fixtures: upload a file, and list the files that are stored."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.settings import Settings

REVIEWS = "text,label\n" + "".join(
    f"film {i} was {word},{label}\n"
    for i in range(10)
    for word, label in (("good", "pos"), ("bad", "neg"))
)
Upload = Callable[..., Any]


@pytest.fixture
def upload(client: TestClient) -> Upload:
    """Upload a file, with form fields as keyword arguments."""

    def post(content: str | bytes | Path = REVIEWS, filename: str = "a.csv", **fields: str) -> Any:
        data = content.read_bytes() if isinstance(content, Path) else content
        return client.post("/v1/datasets", files={"file": (filename, data)}, data=fields)

    return post


@pytest.fixture
def stored_files(settings: Settings) -> Callable[[], list[str]]:
    """Names of all files in the upload directory and in the store."""
    folders = (settings.uploads_dir, settings.artifacts_dir)

    def names() -> list[str]:
        files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
        return sorted(path.name for path in files if not path.name.startswith("."))

    return names
