"""Files that a reader has before a document starts."""

import json
from pathlib import Path

from lora_core import manifest
from lora_core.base_files import BASE_DIGEST, restore
from tests.docs.blocks import ROOT

CLONED = (".venv", "Makefile", "benchmarks", "constraints.txt", "docs", "pyproject.toml", "tests")
REVIEWS = """text,label,mood
A warm and funny film.,positive,good
Two hours that I shall not get back.,negative,bad
"""
SPEC = {
    "method": {"type": "lora"},
    "data": {"train_size": 40, "validation_size": 20, "test_size": 20},
    "optim": {"epochs": 1},
}


def make_checkout(folder: Path) -> Path:
    """A clone made of symlinks, with the folders that documents use."""
    folder.mkdir()
    for name in CLONED:
        (folder / name).symlink_to(ROOT / name)
    return folder


def make_files(folder: Path) -> None:
    """The reader's own files that documents mention without creating them."""
    tickets = (folder / "docs/tickets.csv").read_text(encoding="utf-8").replace(",B", ",b")
    files = {
        "reviews.csv": REVIEWS,
        "tickets.csv": tickets,
        "inbox.csv": tickets,
        "run.json": json.dumps(SPEC),
        "spec.json": json.dumps(SPEC),
    }
    for name, text in files.items():
        if not (folder / name).exists():
            (folder / name).write_text(text, encoding="utf-8")
    store = folder / "data/artifacts"
    bases = {manifest.sha256(each / manifest.MANIFEST): each for each in store.glob("bases/*/a*")}
    for artifact in store.glob("jobs/*/a*"):  # of any job
        base = bases.get(manifest.read(artifact).get(BASE_DIGEST, ""))
        if base is None:
            (folder / "model").symlink_to(artifact)
        else:
            restore(artifact, base, folder / "model")
        return
