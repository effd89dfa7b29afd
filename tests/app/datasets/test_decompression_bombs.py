"""Files made to exhaust the parser: rejected in time, while the service stays responsive."""

import gzip
import io
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xlsxwriter
from starlette.testclient import TestClient

from tests.app.datasets.conftest import REVIEWS, Upload

pytestmark = pytest.mark.usefixtures("in_child")
SECONDS = 10
GROWTH = 200 * 2**20  # bytes by which resident memory may grow; the test client is included
PAGE_BYTES = 4096


def repeated(value: str, times: int) -> pa.DictionaryArray:
    """One value, repeated many times, encoded in a few bytes."""
    return pa.DictionaryArray.from_arrays(
        pa.array(np.zeros(times, dtype=np.int32)), pa.array([value])
    )


def parquet_rows(file: Path) -> None:
    column = repeated("good", 4_000_000)
    table = pa.table({"text": column, "label": column})
    with pq.ParquetWriter(file, table.schema, compression="zstd") as writer:
        for _ in range(5):
            writer.write_table(table, row_group_size=4_000_000)


def parquet_cells(file: Path) -> None:
    times = 90_000
    labels = pa.array(["a", "b"] * (times // 2))
    table = pa.table({"text": repeated("x" * 900_000, times), "label": labels})
    pq.write_table(table, file, compression="zstd")  # 81 GB of text in 2 kB


def parquet_cell(file: Path) -> None:
    table = pa.table({"text": ["x" * 30_000_000, "b"], "label": ["a", "b"]})
    pq.write_table(table, file, compression="zstd")


def parquet_columns(file: Path) -> None:
    pq.write_table(pa.table({f"c{i}": ["a"] for i in range(5_000)}), file)


def parquet_locked(file: Path) -> None:
    pq.write_table(pa.table({"text": ["a"], "label": ["b"]}), file)
    file.write_bytes(file.read_bytes()[:-4] + b"PARE")


def csv_cell(file: Path) -> None:
    file.write_text(f'{REVIEWS}"{"x" * 30_000_000}",pos\n')


def csv_line(file: Path) -> None:
    file.write_text("x" * 30_000_000)


def csv_columns(file: Path) -> None:
    file.write_text(",".join(f"c{i}" for i in range(500_000)) + "\n")


def csv_labels(file: Path) -> None:
    file.write_text("text,label\n" + "".join(f"a,{i}\n" for i in range(500_000)))


def jsonl_deep(file: Path) -> None:
    file.write_text('{"text":' + "[" * 2_000_000)


def jsonl_number(file: Path) -> None:
    file.write_text('{"text": "a", "label": ' + "9" * 1_000_000 + "}\n")


def zip_as_csv(file: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.csv", bytes(50_000_000))
    file.write_bytes(packed.getvalue())


def gzip_as_csv(file: Path) -> None:
    file.write_bytes(gzip.compress(bytes(50_000_000)))


def text_as_parquet(file: Path) -> None:
    file.write_text(REVIEWS)


def parquet_as_csv(file: Path) -> None:
    parquet_locked(file)


def xlsx_part(file: Path, sheet: bytes) -> None:
    """A workbook whose sheet contains this XML."""
    with xlsxwriter.Workbook(file) as made:
        made.add_worksheet("S").write_row(0, 0, ["text", "label"])
    with zipfile.ZipFile(file) as archive:
        parts = {each: archive.read(each) for each in archive.namelist()}
    name = "xl/worksheets/sheet1.xml"
    head, _, tail = parts[name].partition(b"<sheetData>")
    parts[name] = head + b"<sheetData>" + sheet + tail.partition(b"</row>")[2]
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for each, content in parts.items():
            archive.writestr(each, content)


CELL = b'<c t="inlineStr"><is><t>%b</t></is></c>'
HEADER = b"<row>" + CELL % b"text" + CELL % b"label" + b"</row>"


def xlsx_unpacked(file: Path) -> None:
    xlsx_part(file, HEADER)
    content = bytearray(file.read_bytes())
    claim = (
        content.rindex(b"PK\x01\x02") + 24
    )  # uncompressed size of the last part in the central directory
    content[claim : claim + 4] = (501_000_000).to_bytes(4, "little")
    file.write_bytes(content)


def xlsx_cell(file: Path) -> None:
    xlsx_part(file, HEADER + b"<row>" + CELL % (b"x" * 100_000_000) + b"</row>")


def xlsx_far_cell(file: Path) -> None:
    with xlsxwriter.Workbook(file) as made:
        sheet = made.add_worksheet()
        sheet.write_row(0, 0, ["text", "label"])
        sheet.write(1_048_575, 16_383, "a slip")


def xlsx_columns(file: Path) -> None:
    xlsx_part(file, b"<row>" + CELL % b"c" * 50_000 + b"</row>")


def xlsx_rows(file: Path) -> None:
    xlsx_part(file, HEADER + b'<row r="99999999999">' + CELL % b"x" + b"</row>")


def xlsx_password(file: Path) -> None:
    file.write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(10_000))


BOMBS: dict[Callable[[Path], None], tuple[str, str]] = {
    parquet_rows: (".parquet", "data_too_large"),
    parquet_cells: (".parquet", "data_too_large"),
    parquet_cell: (".parquet", "data_too_large"),
    parquet_columns: (".parquet", "data_too_large"),
    parquet_locked: (".parquet", "unsupported_format"),
    csv_cell: (".csv", "data_too_large"),
    csv_line: (".csv", "data_too_large"),
    csv_columns: (".csv", "data_too_large"),
    csv_labels: (".csv", "data_too_large"),
    jsonl_deep: (".jsonl", "malformed_row"),
    jsonl_number: (".jsonl", "malformed_row"),
    xlsx_unpacked: (".xlsx", "data_too_large"),
    xlsx_cell: (".xlsx", "data_too_large"),
    xlsx_far_cell: (".xlsx", "malformed_row"),
    xlsx_columns: (".xlsx", "data_too_large"),
    xlsx_rows: (".xlsx", "data_too_large"),
    xlsx_password: (".xlsx", "unsupported_format"),
    zip_as_csv: (".csv", "unsupported_format"),
    gzip_as_csv: (".csv", "unsupported_format"),
    text_as_parquet: (".parquet", "unsupported_format"),
    parquet_as_csv: (".csv", "unsupported_format"),
}


class LivenessProbe:
    """Polls `/livez`, and records the longest wait and the maximum of resident memory."""

    def __init__(self, client: TestClient) -> None:
        self._client = client
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.responses = 0
        self.longest_wait = 0.0  # seconds
        self.min_memory, self.max_memory = _resident_bytes(), 0  # bytes

    def __enter__(self) -> "LivenessProbe":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(0.02):
            sent_at = time.monotonic()
            assert self._client.get("/livez").status_code == 200
            self.longest_wait = max(self.longest_wait, time.monotonic() - sent_at)
            self.max_memory = max(self.max_memory, _resident_bytes())
            self.responses += 1


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


# A binary format and one of lines. The readers refuse all of them in tests/lora_core/data.
QUICK = {parquet_rows, csv_line}


@pytest.fixture(
    params=[
        pytest.param(each, marks=() if each in QUICK else pytest.mark.slow, id=each.__name__)
        for each in BOMBS
    ]
)
def bomb(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, str]]:
    ending, code = BOMBS[request.param]
    file = tmp_path / f"bomb{ending}"
    request.param(file)
    yield file, code
    file.unlink()


def test_a_bomb_is_rejected_while_the_service_responds(
    client: TestClient,
    upload: Upload,
    stored_files: Callable[[], list[str]],
    bomb: tuple[Path, str],
) -> None:
    file, code = bomb
    content = file.read_bytes()
    started = time.monotonic()
    with LivenessProbe(client) as probe:
        response = upload(content, f"bomb{file.suffix}")
    assert (response.status_code, response.json()["code"]) == (422, code), response.text
    assert time.monotonic() - started < SECONDS
    assert probe.responses > 0
    assert probe.longest_wait < SECONDS / 2  # it never blocked; busy machines are slow
    assert probe.max_memory - probe.min_memory < GROWTH
    assert stored_files() == []
