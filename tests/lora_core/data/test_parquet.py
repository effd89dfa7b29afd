import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
import pytest

from lora_core.data import files
from lora_core.data.label_readers import LabelFormat
from lora_core.data.rows import ColumnSelection, TextRow
from lora_core.errors import LoraCoreError
from lora_core.errors.data import (
    DataTooLarge,
    EmptyData,
    MalformedRow,
    MissingColumn,
    MissingLabel,
    MissingText,
    NulByte,
    UndecodableText,
    UnsupportedFormat,
)
from tests.slow import slow_but

# Parses the file given as argument in an address space of 2 GiB, as a service does.
LIMITED = """
import resource, sys, time
from pathlib import Path
from lora_core.data import checks, file_inspection
from lora_core.data.rows import ColumnSelection
from lora_core.errors import LoraCoreError
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
start = time.monotonic()
try:
    found = file_inspection.read_contents(Path(sys.argv[1]), ColumnSelection())
    file_inspection.build_profile(found)
    checks.check_data(found)
except LoraCoreError as error:
    print(error.code, time.monotonic() - start < 10)
"""


def write(tmp_path: Path, columns: dict[str, Any], **options: Any) -> Path:
    path = tmp_path / "reviews.parquet"
    pq.write_table(pa.table(columns), path, **options)
    return path


def test_row_numbers_continue_across_row_groups(tmp_path: Path) -> None:
    n = 700
    columns = {
        "other": list(range(n)),
        "label": pa.array([i % 2 == 0 for i in range(n)]),
        "text": pa.array([f"text {i}" for i in range(n)], pa.large_string()),
        "split": pa.array(["train", "test"] * (n // 2)).dictionary_encode(),
    }
    rows = files.read_rows(write(tmp_path, columns, row_group_size=300), ColumnSelection())
    assert len(rows) == n
    assert rows[301] == TextRow(302, "text 301", "false", "test")


def test_integer_labels(tmp_path: Path) -> None:
    path = write(tmp_path, {"text": ["a", "b"], "label": pa.array([0, 12], pa.int8())})
    assert [row.label for row in files.read_rows(path, ColumnSelection())] == ["0", "12"]


NOT_UTF8 = pa.array([b"a", b"\xe9"], pa.binary()).view(pa.string())

BAD: list[tuple[dict[str, Any], type[LoraCoreError], dict[str, object]]] = [
    ({"text": pa.array([], pa.string()), "label": pa.array([], pa.string())}, EmptyData, {}),
    ({"text": ["a"], "sentiment": [1]}, MissingColumn, {"available": "text, sentiment"}),
    ({"text": [1, 2], "label": [0, 1]}, MalformedRow, {"row": 1}),
    ({"text": [["a"], ["b"]], "label": [0, 1]}, MalformedRow, {"row": 1}),
    ({"text": ["a", "b"], "label": [0.0, 1.0]}, MalformedRow, {"row": 1}),
    ({"text": ["a", "b"], "label": [0, 1], "split": [1, 2]}, MalformedRow, {"row": 1}),
    ({"text": ["a", None], "label": [0, 1]}, MissingText, {"rows": "2"}),
    ({"text": ["a", "b"], "label": [None, 1]}, MissingLabel, {"rows": "1"}),
    ({"text": ["a", "b\0"], "label": [0, 1]}, NulByte, {"row": 2}),
    ({"text": NOT_UTF8, "label": [0, 1]}, UndecodableText, {"row": 2}),
]


@pytest.mark.parametrize(("columns", "error", "detail"), BAD)
def test_invalid_row_is_reported(
    tmp_path: Path,
    columns: dict[str, Any],
    error: type[LoraCoreError],
    detail: dict[str, object],
) -> None:
    with pytest.raises(error) as refused:
        files.read_rows(write(tmp_path, columns), ColumnSelection())
    assert refused.value.detail | detail == refused.value.detail


@pytest.mark.parametrize("items", [pa.list_, pa.large_list])
def test_string_views_are_read(tmp_path: Path, items: Callable[[pa.DataType], pa.DataType]) -> None:
    columns = {
        "text": pa.array(["a", "b" * 100, "c"], pa.string_view()),
        "label": pa.array([["x"], [], ["x", "y"]], items(pa.string_view())),
        "split": pa.array(["train", "train", "test"], pa.string_view()),
    }
    path = write(tmp_path, columns)
    rows = files.read_rows(path, ColumnSelection(label_format=LabelFormat("multi_label")))
    assert rows[1:] == [
        TextRow(2, "b" * 100, "[]", "train"), TextRow(3, "c", '["x", "y"]', "test")
    ]  # fmt: skip
    assert [row.cells["label"] for row in files.iter_whole_rows(path, "text")] == [
        ["x"], [], ["x", "y"]
    ]  # fmt: skip
    path = write(tmp_path, {"text": pa.array(["a", "b" * 4_000_001], pa.string_view())})
    with pytest.raises(DataTooLarge, match="a cell in row 2"):
        files.read_rows(path, ColumnSelection(label=None))


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:4] + b"\xff" * 30 + content[34:],
        lambda content: content[:-12] + b"\xff" * 4 + content[-8:],
        lambda _: b"PAR1",
        lambda _: b"text,label\na,1\n",
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = write(tmp_path, {"text": ["a", "b"] * 50, "label": [0, 1] * 50})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UnsupportedFormat, match=r"reviews\.parquet"):
        files.read_rows(path, ColumnSelection())


class Keys(pe.KmsClient):  # type: ignore[misc]  # pyarrow has no types
    """A key service that stores nothing safely."""

    def wrap_key(self, key_bytes: bytes, _: str) -> bytes:
        return key_bytes.hex().encode()

    def unwrap_key(self, wrapped_key: bytes, _: str) -> bytes:
        return bytes.fromhex(wrapped_key.decode())


@pytest.mark.parametrize("plaintext_footer", [False, True])
def test_an_encrypted_file_is_refused(tmp_path: Path, plaintext_footer: bool) -> None:
    settings = pe.EncryptionConfiguration(
        footer_key="f", column_keys={"t": ["text"]}, plaintext_footer=plaintext_footer
    )
    connection = pe.KmsConnectionConfig(kms_instance_url="http://127.0.0.1:9/keys")
    properties = pe.CryptoFactory(lambda _: Keys()).file_encryption_properties(connection, settings)
    path = write(tmp_path, {"text": ["a", "b"], "label": [0, 1]}, encryption_properties=properties)
    with pytest.raises(UnsupportedFormat, match="encrypted"):
        files.read_rows(path, ColumnSelection())


def repeated_text(text: str, rows: int) -> pa.Array:
    """A text that the file holds once, whatever the number of rows."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([text]))


BOMBS: dict[str, Callable[[], pa.Array]] = {
    "too many rows": lambda: repeated_text("x", 1_000_001),
    "the same long text in many rows": lambda: repeated_text("x" * 900_000, 100_000),
    "one cell": lambda: pa.array(["x" * 20_000_000]),
}


# Each starts a process. The limits of the others are checked below, too.
@pytest.mark.parametrize("bomb", slow_but(BOMBS, "the same long text in many rows"))
def test_decompression_bomb_is_refused(tmp_path: Path, bomb: str) -> None:
    texts = BOMBS[bomb]()
    path = write(
        tmp_path,
        {"text": texts, "label": pa.array([0] * len(texts))},
        use_dictionary=pa.types.is_dictionary(texts.type),
        write_statistics=False,
        compression="zstd",
    )
    assert path.stat().st_size < 1_000_000
    answer = subprocess.run(
        [sys.executable, "-c", LIMITED, path], capture_output=True, text=True, timeout=60
    )
    assert answer.stdout == "data_too_large True\n", answer.stderr


def test_limits_are_checked_before_and_while_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, {"text": ["a" * 100, "b" * 10] * 50, "label": [0, 1] * 50})
    for place, name, limit, what in (
        ("arrow", "MAX_ROWS", 99, "the number of rows"),
        ("arrow", "MAX_BYTES", 50, "its decoded size"),
        ("arrow", "MAX_CELL_CHARACTERS", 20, "a cell in row 1"),
        ("arrow", "MAX_BYTES", 5000, "the sum of cells"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(f"lora_core.data.{place}.{name}", limit)
            with pytest.raises(DataTooLarge, match=what):
                files.read_rows(path, ColumnSelection())
