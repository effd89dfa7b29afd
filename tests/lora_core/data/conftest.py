from collections.abc import Iterator
from pathlib import Path

import pytest

from lora_core.samples import minilm


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One cache for the data tests, apart from that of the user."""
    directory = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORAWORKS_CACHE", str(directory))
        yield directory


@pytest.fixture(scope="session")
def tokenizer_file(cache: Path) -> Path:
    return minilm.directory() / "tokenizer.json"
