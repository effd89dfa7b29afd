"""Fixtures: datasets with wrong labels."""

from tests.app.datasets.conftest import Upload, stored_files, upload
from tests.lora_core.data.test_suspect_rows import WRONG, flip, texts

__all__ = ["WRONG", "WRONG_LABELS", "Upload", "stored_files", "upload"]

WRONG_LABELS = "text,label\n" + "".join(f"{row.text},{row.label}\n" for row in flip(texts()))
