"""Hashes of texts: they recognize a text without revealing it.

A plain hash of a short text can be guessed. These are HMACs with a key that is derived from the
pepper of the server, which also protects its API keys (`app.auth.secrets`): with the database
alone, nobody can test guesses of texts or learn anything about the pepper. A changed pepper makes
all stored hashes meaningless.
"""

import hashlib
import hmac
from typing import NamedTuple

from app.auth.secrets import load_or_create_pepper
from app.settings import Settings
from lora_core.data.stratify import normalize_text
from lora_core.specs.text_input import TextInput, texts_of_input

HASH_LENGTH = 32  # hex digits: 128 bits
_PURPOSE = b"hashes of texts"  # separates this key from all other uses of the pepper


class InputHashes(NamedTuple):
    """The hash of what a model reads; of a pair also those of its two texts."""

    whole: str
    first: str | None = None
    second: str | None = None

    @property
    def all(self) -> tuple[str, ...]:
        return tuple(each for each in self if each is not None)


class TextHasher:
    """Hashes texts. Like all comparisons of texts, it ignores white space around them and the
    difference between Unicode forms."""

    def __init__(self, pepper: bytes) -> None:
        self._key = hmac.digest(pepper, _PURPOSE, hashlib.sha256)

    @classmethod
    def from_settings(cls, settings: Settings) -> "TextHasher":
        """Raises `PepperFileInvalid`."""
        return cls(load_or_create_pepper(settings))

    def hash_text(self, text: str) -> str:
        """Return the hash of one text."""
        return self._hash(normalize_text(text))

    def hash_input(self, text: TextInput) -> InputHashes:
        """Return the hashes of a text, or of a pair of texts."""
        sides = [normalize_text(each) for each in texts_of_input(text)]
        if len(sides) == 1:
            return InputHashes(self._hash(sides[0]))
        # No text contains a NUL, so no text has the hash of a pair.
        return InputHashes(self._hash("\0".join(sides)), *map(self._hash, sides))

    def _hash(self, text: str) -> str:
        return hmac.digest(self._key, text.encode(), hashlib.sha256).hex()[:HASH_LENGTH]
