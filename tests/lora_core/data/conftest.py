from pathlib import Path

import pytest

from lora_core.samples import minilm


@pytest.fixture(scope="session")
def tokenizer_file(session_cache: Path) -> Path:
    return minilm.build_cached_checkpoint() / "tokenizer.json"
