"""What a reader has before a document begins."""

import json
from pathlib import Path

from tests.docs.blocks import ROOT

NOT_CLONED = {".git", "data", "build"}
REVIEWS = """text,label,mood
A warm and funny film.,positive,good
Two hours that I shall not get back.,negative,bad
"""
RUN = {
    "method": {"type": "lora"},
    "data": {"train_size": 40, "validation_size": 20, "test_size": 20},
    "optim": {"epochs": 1},
}


def make_checkout(folder: Path) -> Path:
    """A clone of the working tree, made of links."""
    folder.mkdir()
    for each in ROOT.iterdir():
        if each.name not in NOT_CLONED and not each.name.endswith("_cache"):
            (folder / each.name).symlink_to(each)
    return folder


def make_files(folder: Path) -> None:
    """The files of a reader's own that documents speak of without making them."""
    tickets = (folder / "docs/tickets.csv").read_text(encoding="utf-8").replace(",B", ",b")
    files = {
        "reviews.csv": REVIEWS,
        "tickets.csv": tickets,
        "inbox.csv": tickets,
        "run.json": json.dumps(RUN),
        "spec.json": json.dumps(RUN),
    }
    for name, text in files.items():
        if not (folder / name).exists():
            (folder / name).write_text(text, encoding="utf-8")
    for artifact in (folder / "data/artifacts/jobs").glob("*/a*"):  # of one job or another
        (folder / "model").symlink_to(artifact)
        return
