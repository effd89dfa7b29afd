"""Text files: detect the encoding, and read lines strictly.

The encodings are UTF-8, UTF-16 with a byte order mark, and Windows-1252. Spreadsheets save CSV in
the encoding of the system and do not record which. Of these only Windows-1252, for Western Europe
and America, is read, and only if nothing contradicts it: a wrong guess would change words silently.
"""

import codecs
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lora_core.data.limits import MAX_LINE_CHARACTERS
from lora_core.errors.data import DataTooLarge, NulByte, WrongEncoding

_CHUNK_BYTES = 1 << 20  # bytes
_ASCII_LETTERS = bytes(range(ord("A"), ord("Z") + 1)) + bytes(range(ord("a"), ord("z") + 1))
_HIGH_BYTES = bytes(range(0x80, 0x100))
_UNDEFINED_BYTES = b"\x81\x8d\x8f\x90\x9d"
_UTF_8_SEQUENCE = re.compile(
    rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}"
)
# Rare in Western text: four accented letters in a row (Cyrillic, Greek), an accented capital after
# a lowercase letter (Mac Roman), a superscript or currency sign inside a word (Polish), bytes that
# look like UTF-8 (a file of mixed encodings).
_NOT_WESTERN = re.compile(
    rb"[\xc0-\xff]{4}|[a-z][\x8a\x8c\x8e\x9f\xc0-\xd6\xd8-\xde]"
    rb"|[A-Za-z\xc0-\xff][\xa3\xa5\xa7\xaf\xb3\xb9\xbc\xbe\xbf][a-z\x80-\xff]"
    rb"|[\xc2\xc3][\x80-\xbf]|\xe2\x80[\x80-\xbf]"
)
MAX_HIGH_SHARE = 0.3  # of the letters: French has 5 %, German 3 %


class Encoding(NamedTuple):
    """A supported encoding.

    With `errors`, invalid bytes become lone surrogates, which `TextLines` finds, so that it can
    report the row.
    """

    name: str  # shown to users
    codec: str
    errors: str = "surrogateescape"


UTF_8 = Encoding("UTF-8", "utf-8-sig")
UTF_16 = Encoding("UTF-16", "utf-16", "surrogatepass")
WINDOWS_1252 = Encoding("Windows-1252", "cp1252")


def detect_encoding(path: Path) -> Encoding:
    """Return the encoding of a file. An unknown one is returned as UTF-8, where decoding fails."""
    with path.open("rb") as file:
        if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            return UTF_16
    if _is_utf_8(path) or not _is_western(path):
        return UTF_8
    return WINDOWS_1252


def _is_utf_8(path: Path) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for chunk in _read_chunks(path):
            decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _is_western(path: Path) -> bool:
    """Return whether nothing contradicts Windows-1252. A file that is mostly UTF-8 is damaged."""
    letters = high_bytes = sequences = unlikely = 0
    for chunk in _read_chunks(path):
        if any(byte in chunk for byte in (b"\0", *(bytes([each]) for each in _UNDEFINED_BYTES))):
            return False
        letters += len(chunk) - len(chunk.translate(None, _ASCII_LETTERS))
        high_bytes += len(chunk) - len(chunk.translate(None, _HIGH_BYTES))
        sequences += sum(len(found) for found in _UTF_8_SEQUENCE.findall(chunk))
        unlikely += sum(1 for _ in _NOT_WESTERN.finditer(chunk))
    return (
        high_bytes <= MAX_HIGH_SHARE * (letters + high_bytes)
        and 2 * sequences <= high_bytes
        and 100 * unlikely <= high_bytes
    )


def _read_chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


# -- Lines ----------------------------------------------------------------------------------------

HEAD_CHARACTERS = 65_536  # used to detect the line ending


class TextLines:
    """Iterates over the lines of a text file, line endings included. The caller maintains `row`, so
    that errors can report it.

    Raises `WrongEncoding`, `NulByte`, `DataTooLarge`.
    """

    def __init__(self, path: Path, encoding: Encoding = UTF_8, *, line_end: str = "\n") -> None:
        self.file = path.name
        self.row = 0  # 0: the header
        self._path = path
        self._encoding = encoding
        self._end = line_end

    def __iter__(self) -> Iterator[str]:
        codec, errors = self._encoding.codec, self._encoding.errors
        with self._path.open(encoding=codec, errors=errors, newline=self._end) as file:
            try:
                while line := file.readline(MAX_LINE_CHARACTERS + 1):
                    self._check(line)
                    yield line
            except UnicodeDecodeError as error:  # a truncated character at the end
                raise WrongEncoding(file=self.file, row=self.row) from error

    def _check(self, line: str) -> None:
        if len(line) > MAX_LINE_CHARACTERS:
            raise DataTooLarge(
                file=self.file,
                what=f"a line of row {self.row}",
                limit=f"{MAX_LINE_CHARACTERS:,} characters",
            )
        if not line.isascii():
            try:
                line.encode()
            except UnicodeEncodeError as error:  # see `Encoding.errors`
                raise WrongEncoding(file=self.file, row=self.row) from error
        if "\0" in line:
            raise NulByte(file=self.file, row=self.row)


def detect_line_end(path: Path, encoding: Encoding) -> str:
    r"""Return "\n" for lines that end in LF or CR LF, "\r" if the file has no LF."""
    with path.open(encoding=encoding.codec, errors="replace", newline="") as file:
        head = file.read(HEAD_CHARACTERS)
    return "\r" if "\r" in head and "\n" not in head else "\n"
