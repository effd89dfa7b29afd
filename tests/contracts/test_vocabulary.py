"""Words and phrases that the code does not use: docs/glossary.md has the terms it uses instead."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BANNED = (
    *("tether", "keeper", "whoever", "linear rival", "in the hands of", "was heard of"),
    *("so many", "is no more", "whole of it", "dearest", "so far as can be told"),
    *("labelled", "colour", "behaviour", "tokenise", "tokenised", "normalise", "normalised"),
)
WORDS = re.compile(rf"\b(?:{'|'.join(BANNED)})\b", re.IGNORECASE)
SUFFIXES = {".py", ".html", ".js", ".css"}
FILES = [
    path
    for package in ("app", "worker", "lora_core")
    for path in sorted((ROOT / package).rglob("*"))
    if path.suffix in SUFFIXES
]
PAGES = [ROOT / "docs" / f"{name}.md" for name in ("index", "glossary", "architecture")]


def banned(text: str) -> list[str]:
    return WORDS.findall(text)


def test_banned_words_are_found() -> None:
    assert banned("The tether, so many.") == ["tether", "so many"]
    assert banned("a labeled text in color, tokenized") == []


@pytest.mark.parametrize("path", [*FILES, *PAGES], ids=lambda path: str(path.relative_to(ROOT)))
def test_no_banned_word_is_used(path: Path) -> None:
    assert banned(path.read_text(encoding="utf-8")) == []
