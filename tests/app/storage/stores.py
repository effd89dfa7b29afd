"""Helpers: directories to store, and processes that store them."""

import os
import subprocess
import sys
from pathlib import Path

from app.storage.store import ArtifactRef
from lora_core import manifest

KEY = "jobs/0197c5d2-7a3e-7000-8000-000000000001/a1"
WEIGHTS = "merged/model.safetensors"

# Puts a directory under KEY, like a worker: python -c PUT DIRECTORY KEY
# `app.resources` has `open_store`, but also imports Celery and SQLAlchemy.
PUT = """
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit
from app.storage.errors import ArtifactExists
from app.settings import Settings
settings = Settings()
url = urlsplit(settings.store_url or "")
if url.scheme == "s3":
    from app.storage.s3 import S3Store
    from app.storage.verified_cache import VerifiedCache
    cache = VerifiedCache(settings.data_dir / "cache" / "store", limit=settings.store_cache_bytes)
    store = S3Store(url.netloc, url.path.strip("/"), cache=cache)
else:
    from app.storage.local import LocalStore
    store = LocalStore(Path(unquote(url.path)) if url.path else settings.artifacts_dir)
print("ready", flush=True)
sys.stdin.readline()
try:
    print(store.move_directory_into_store(Path(sys.argv[1]), sys.argv[2]).manifest_sha256)
except ArtifactExists:
    print("taken")
"""


def made(directory: Path, text: str = "weights") -> Path:
    """Create a directory with a manifest. One of its files has a difficult name."""
    for name in (WEIGHTS, "a file, 100% + é.json"):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    manifest.create_and_save(directory, {"format": 1})
    return directory


def ref_of(directory: Path, key: str = KEY) -> ArtifactRef:
    """Return the reference that the directory will have in the store."""
    return ArtifactRef(
        key, manifest.file_sha256(directory / manifest.MANIFEST_FILE), bytes_of(directory)
    )


def bytes_of(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def putting(directory: Path, key: str = KEY, **environment: str) -> subprocess.Popen[str]:
    """Start a process that puts a directory once it reads a line on its standard input."""
    process = subprocess.Popen(
        [sys.executable, "-c", PUT, str(directory), key],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process
