"""Which encoding a table in a text file has: UTF-8, UTF-16 with a mark, or Windows-1252.

Spreadsheets save CSV in the encoding of the system and nowhere say which. Of these only
Windows-1252, that of Western Europe and America, is read, and only where nothing speaks against
it: read as another one than it is, a file would hold other words, and nobody would learn of it.
"""

import codecs
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_PIECE = 1 << 20  # bytes
_ASCII_LETTERS = bytes(range(ord("A"), ord("Z") + 1)) + bytes(range(ord("a"), ord("z") + 1))
_HIGH = bytes(range(0x80, 0x100))
_UNDEFINED = b"\x81\x8d\x8f\x90\x9d"
_SEQUENCE = re.compile(
    rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}"
)
# What Western texts have next to never: four accented letters in a row (Cyrillic, Greek), a capital
# with an accent after a small letter (Mac Roman), a superscript or a currency sign inside a word
# (Polish), what UTF-8 looks like (a file that is both).
_FOREIGN = re.compile(
    rb"[\xc0-\xff]{4}|[a-z][\x8a\x8c\x8e\x9f\xc0-\xd6\xd8-\xde]"
    rb"|[A-Za-z\xc0-\xff][\xa3\xa5\xa7\xaf\xb3\xb9\xbc\xbe\xbf][a-z\x80-\xff]"
    rb"|[\xc2\xc3][\x80-\xbf]|\xe2\x80[\x80-\xbf]"
)
MOST_HIGH = 0.3  # of the letters: French has 5 %, German 3 %


class Encoding(NamedTuple):
    """One that is read. `errors`: what is not valid becomes half a surrogate pair, which `Lines`
    finds, so that it can name the row."""

    name: str  # for people
    codec: str
    errors: str = "surrogateescape"


UTF_8 = Encoding("UTF-8", "utf-8-sig")
UTF_16 = Encoding("UTF-16", "utf-16", "surrogatepass")
WINDOWS_1252 = Encoding("Windows-1252", "cp1252")


def detect(path: Path) -> Encoding:
    """The encoding of a file. One that is none of the three is given as UTF-8, where it fails."""
    with path.open("rb") as file:
        if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            return UTF_16
    if _is_utf_8(path) or not _is_western(path):
        return UTF_8
    return WINDOWS_1252


def _is_utf_8(path: Path) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for piece in _pieces(path):
            decoder.decode(piece)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _is_western(path: Path) -> bool:
    """Whether nothing speaks against Windows-1252. A file that is mostly UTF-8 is damaged."""
    letters = high = sequences = foreign = 0
    for piece in _pieces(path):
        if any(byte in piece for byte in (b"\0", *(bytes([each]) for each in _UNDEFINED))):
            return False
        letters += len(piece) - len(piece.translate(None, _ASCII_LETTERS))
        high += len(piece) - len(piece.translate(None, _HIGH))
        sequences += sum(len(found) for found in _SEQUENCE.findall(piece))
        foreign += sum(1 for _ in _FOREIGN.finditer(piece))
    return high <= MOST_HIGH * (letters + high) and 2 * sequences <= high and 100 * foreign <= high


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece
