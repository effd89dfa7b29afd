"""What a reader has before a document begins."""

import json
from pathlib import Path

from tests.docs.blocks import ROOT

NOT_CLONED = {".git", "data", "build"}
REVIEWS = """text,label
A warm and funny film.,positive
Two hours that I shall not get back.,negative
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
    """The files that reference documents speak of without making them."""
    (folder / "reviews.csv").write_text(REVIEWS, encoding="utf-8")
    for name in ("run.json", "spec.json"):
        (folder / name).write_text(json.dumps(RUN), encoding="utf-8")
