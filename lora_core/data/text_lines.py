"""Lines of a text file: decoded strictly, without NUL, each of bounded length."""

from collections.abc import Iterator
from pathlib import Path

from lora_core.data.encoding import UTF_8, Encoding
from lora_core.data.limits import MAX_LINE
from lora_core.errors.data import DataTooLarge, NulByte, WrongEncoding

HEAD = 65_536  # characters that tell how lines end


class Lines:
    """Iterates over the lines, ends kept. Whoever reads sets `row`, so that errors can name it.

    Raises `WrongEncoding`, `NulByte`, `DataTooLarge`.
    """

    def __init__(self, path: Path, encoding: Encoding = UTF_8, *, end: str = "\n") -> None:
        self.file = path.name
        self.row = 0  # 0: the header
        self._path = path
        self._encoding = encoding
        self._end = end

    def __iter__(self) -> Iterator[str]:
        codec, errors = self._encoding.codec, self._encoding.errors
        with self._path.open(encoding=codec, errors=errors, newline=self._end) as file:
            try:
                while line := file.readline(MAX_LINE + 1):
                    self._check(line)
                    yield line
            except UnicodeDecodeError as error:  # half a character at the end
                raise WrongEncoding(file=self.file, row=self.row) from error

    def _check(self, line: str) -> None:
        if len(line) > MAX_LINE:
            raise DataTooLarge(
                file=self.file, what=f"a line of row {self.row}", limit=f"{MAX_LINE:,} characters"
            )
        if not line.isascii():
            try:
                line.encode()
            except UnicodeEncodeError as error:  # see `Encoding.errors`
                raise WrongEncoding(file=self.file, row=self.row) from error
        if "\0" in line:
            raise NulByte(file=self.file, row=self.row)


def line_end(path: Path, encoding: Encoding) -> str:
    r"""How lines end: "\n", with or without a "\r" before it, or "\r" where there is no "\n"."""
    with path.open(encoding=encoding.codec, errors="replace", newline="") as file:
        head = file.read(HEAD)
    return "\r" if "\r" in head and "\n" not in head else "\n"
