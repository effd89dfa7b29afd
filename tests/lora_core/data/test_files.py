import subprocess
import sys
from pathlib import Path

import pytest

from lora_core.data import files
from lora_core.data.rows import ColumnSelection
from lora_core.errors.data import DataNotFound, DataTooLarge, UnsupportedFormat


@pytest.mark.parametrize("name", ["reviews.txt", "reviews", "reviews.csv.gz", "reviews.jsonc"])
def test_unsupported_suffix_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("text,label\na,1\n")
    with pytest.raises(UnsupportedFormat, match=r"Supported: \.csv, \.tsv, \.xlsx, \.jsonl"):
        files.read_rows(tmp_path / name, ColumnSelection())


@pytest.mark.parametrize("name", ["reviews.xls", "reviews.xlsm", "reviews.ods"])
def test_unsupported_spreadsheet_error_gives_advice(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\xd0\xcf\x11\xe0")
    with pytest.raises(UnsupportedFormat, match=r"save it as \.xlsx"):
        files.read_rows(tmp_path / name, ColumnSelection())


@pytest.mark.parametrize(
    ("start", "reason"),
    [(b"PAR1", "Parquet"), (b"PK\x03\x04", "spreadsheet"), (b"\x1f\x8b", "compressed")],
)
@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_content_must_match_the_suffix(
    tmp_path: Path, start: bytes, reason: str, ending: str
) -> None:
    path = tmp_path / f"reviews{ending}"
    path.write_bytes(start + b"rest")
    with pytest.raises(UnsupportedFormat, match=reason):
        files.read_rows(path, ColumnSelection())


def test_suffix_is_case_insensitive(tmp_path: Path) -> None:
    path = tmp_path / "REVIEWS.CSV"
    path.write_text("text,label\na,1\n")
    assert len(files.read_rows(path, ColumnSelection())) == 1


def test_directory_and_missing_file_have_different_errors(tmp_path: Path) -> None:
    with pytest.raises(DataNotFound, match="no such file"):
        files.read_rows(tmp_path / "none.csv", ColumnSelection())
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataNotFound, match="it is a directory"):
        files.read_rows(tmp_path / "folder.csv", ColumnSelection())
    with pytest.raises(DataNotFound, match="no such file"):
        files.read_rows(tmp_path / ("x" * 1000), ColumnSelection())


def test_large_file_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "reviews.csv"
    path.write_bytes(b"\xff" * 101)
    monkeypatch.setattr(files, "MAX_BYTES", 100)
    with pytest.raises(DataTooLarge, match="its size exceeds the limit of 100 bytes"):
        files.read_rows(path, ColumnSelection())


def test_dangling_symlink_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "link.csv").symlink_to(tmp_path / "none.csv")
    with pytest.raises(DataNotFound):
        files.read_rows(tmp_path / "link.csv", ColumnSelection())


def test_out_of_memory_is_reported_as_too_large(tmp_path: Path) -> None:
    path = tmp_path / "reviews.csv"
    with path.open("w") as file:
        file.write("text,label\n")
        file.writelines(f"{i} {'many words ' * 90},{i % 2}\n" for i in range(50_000))
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from lora_core.data import file_inspection\n"
        "from lora_core.data.rows import ColumnSelection\n"
        "from lora_core.errors.data import DataTooLarge\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (32 << 20),) * 2)\n"
        "try: file_inspection.read_contents(Path(sys.argv[1]), ColumnSelection())\n"
        "except DataTooLarge as error: print(error)"
    )
    answer = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert "exceeds the limit of the available memory" in answer.stdout, answer.stderr
