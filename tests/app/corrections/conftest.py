"""Fixtures: datasets with wrong labels."""

import pytest

from app.sandbox import process
from tests.app.datasets.conftest import Upload, stored_files, upload
from tests.in_process_sandbox import run_in_process
from tests.lora_core.data.test_suspect_rows import WRONG, flip, texts

__all__ = ["WRONG", "WRONG_LABELS", "Upload", "in_process", "stored_files", "upload"]

WRONG_LABELS = "text,label\n" + "".join(f"{row.text},{row.label}\n" for row in flip(texts()))


@pytest.fixture(autouse=True)
def in_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read files without a child process, except in tests that say `in_child`."""
    if "in_child" not in request.fixturenames:
        monkeypatch.setattr(process, "run_child", run_in_process)


@pytest.fixture
def in_child() -> None:
    """Read files in a child process with resource limits, as the service does."""
