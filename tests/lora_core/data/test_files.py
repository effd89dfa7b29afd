import subprocess
import sys
from pathlib import Path

import pytest

from lora_core.data import files
from lora_core.data.rows import Columns
from lora_core.errors.data import DataNotFound, DataTooLarge, UnsupportedFormat


@pytest.mark.parametrize("name", ["reviews.txt", "reviews", "reviews.csv.gz", "reviews.json"])
def test_other_endings_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("text,label\na,1\n")
    with pytest.raises(UnsupportedFormat, match=r"Supported: \.csv, \.tsv, \.xlsx, \.jsonl"):
        files.read(tmp_path / name, Columns())


@pytest.mark.parametrize("name", ["reviews.xls", "reviews.xlsm", "reviews.ods"])
def test_spreadsheets_of_other_kinds_are_refused_with_what_to_do(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\xd0\xcf\x11\xe0")
    with pytest.raises(UnsupportedFormat, match=r"save it as \.xlsx"):
        files.read(tmp_path / name, Columns())


@pytest.mark.parametrize(
    ("start", "reason"),
    [(b"PAR1", "Parquet"), (b"PK\x03\x04", "spreadsheet"), (b"\x1f\x8b", "compressed")],
)
@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_a_file_is_not_what_its_ending_says(
    tmp_path: Path, start: bytes, reason: str, ending: str
) -> None:
    path = tmp_path / f"reviews{ending}"
    path.write_bytes(start + b"rest")
    with pytest.raises(UnsupportedFormat, match=reason):
        files.read(path, Columns())


def test_the_ending_may_be_in_capitals(tmp_path: Path) -> None:
    path = tmp_path / "REVIEWS.CSV"
    path.write_text("text,label\na,1\n")
    assert len(files.read(path, Columns())) == 1


def test_a_directory_and_a_missing_file_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(DataNotFound, match="no such file"):
        files.read(tmp_path / "none.csv", Columns())
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataNotFound, match="it is a directory"):
        files.read(tmp_path / "folder.csv", Columns())
    with pytest.raises(DataNotFound, match="no such file"):
        files.read(tmp_path / ("x" * 1000), Columns())


def test_a_file_over_the_limit_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "reviews.csv"
    path.write_bytes(b"\xff" * 101)
    monkeypatch.setattr(files, "MAX_BYTES", 100)
    with pytest.raises(DataTooLarge, match="its size is over the limit of 100 bytes"):
        files.read(path, Columns())


def test_a_link_to_nowhere_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "link.csv").symlink_to(tmp_path / "none.csv")
    with pytest.raises(DataNotFound):
        files.read(tmp_path / "link.csv", Columns())


def test_a_file_that_needs_more_memory_than_there_is_is_too_large(tmp_path: Path) -> None:
    path = tmp_path / "reviews.csv"
    with path.open("w") as file:
        file.write("text,label\n")
        file.writelines(f"{i} {'many words ' * 90},{i % 2}\n" for i in range(50_000))
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from lora_core.data import contents; from lora_core.data.rows import Columns\n"
        "from lora_core.errors.data import DataTooLarge\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (32 << 20),) * 2)\n"
        "try: contents.read(Path(sys.argv[1]), Columns())\n"
        "except DataTooLarge as error: print(error)"
    )
    answer = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert "over the limit of the memory here" in answer.stdout, answer.stderr
