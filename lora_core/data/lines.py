"""Lines of a text file: strict UTF-8 without NUL, each of bounded length."""

from collections.abc import Iterator
from pathlib import Path

from lora_core.data.limits import MAX_LINE
from lora_core.errors.data import DataTooLarge, NulByte, WrongEncoding

BOM = b"\xef\xbb\xbf"


class Lines:
    """Iterates over the lines, ends kept. Whoever reads sets `row`, so that errors can name it.

    Raises `WrongEncoding`, `NulByte`, `DataTooLarge`.
    """

    def __init__(self, path: Path) -> None:
        self.file = path.name
        self.row = 0  # 0: the header
        self._path = path

    def __iter__(self) -> Iterator[str]:
        with self._path.open("rb") as file:
            start = file.read(len(BOM))
            if start != BOM:
                file.seek(0)
            while raw := file.readline(MAX_LINE + 1):
                yield self._decoded(raw)

    def _decoded(self, raw: bytes) -> str:
        if len(raw) > MAX_LINE:
            raise DataTooLarge(
                file=self.file, what=f"a line of row {self.row}", limit=f"{MAX_LINE:,} bytes"
            )
        try:
            line = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise WrongEncoding(file=self.file, row=self.row) from error
        if "\0" in line:
            raise NulByte(file=self.file, row=self.row)
        return line
