"""Archives with entries that no model has."""

import gzip
import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lora_core.errors.artifact import InvalidArchive, UnsafeArchive
from lora_core.model_imports import archive
from lora_core.model_imports.archive import unpack_archive


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    """An empty folder, outside of which nothing may appear."""
    folder = tmp_path / "safe" / "into"
    folder.mkdir(parents=True)
    yield folder
    assert {path.name for path in tmp_path.iterdir()} <= {"safe", "x.tar"}
    assert [path.name for path in (tmp_path / "safe").iterdir()] == ["into"]
    assert not [path for path in folder.rglob("*") if path.is_symlink()]


def entry(name: str, content: bytes = b"{}", **facts: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for fact, value in facts.items():
        setattr(info, fact, value)
    return info, content


def write_tar(
    path: Path, *entries: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT
) -> Path:
    with tarfile.open(path, "w", format=form) as tar:
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content))
    return path


GOOD = entry("m/manifest.json")


def test_model_card_is_not_unpacked(tmp_path: Path, target: Path) -> None:
    file = write_tar(tmp_path / "x.tar", GOOD, entry("m/README.md", b"# A model"))
    assert [path.name for path in unpack_archive(file, target).iterdir()] == ["manifest.json"]


@pytest.mark.parametrize(
    "card",
    [
        entry("m/README.md", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        entry("m/merged/README.md"),
        entry("README.md"),
        entry("../README.md"),
        entry("m/OTHER.md"),
    ],
    ids=lambda card: f"{card[0].name} {card[0].type!r}",
)
def test_other_markdown_file_is_refused(
    tmp_path: Path, target: Path, card: tuple[tarfile.TarInfo, bytes]
) -> None:
    with pytest.raises(UnsafeArchive):
        unpack_archive(write_tar(tmp_path / "x.tar", GOOD, card), target)


def test_regular_files_are_unpacked(tmp_path: Path, target: Path) -> None:
    folder = entry("m/merged", b"", type=tarfile.DIRTYPE)
    file = write_tar(tmp_path / "x.tar", GOOD, folder, entry("m/merged/config.json", b"[1]"))
    directory = unpack_archive(file, target)
    assert directory == target / "m"
    found = {
        p.relative_to(target).as_posix(): p.read_bytes() for p in target.rglob("*") if p.is_file()
    }
    assert found == {"m/manifest.json": b"{}", "m/merged/config.json": b"[1]"}


@pytest.mark.parametrize(
    "name",
    [
        "/m/a.json", "../a.json", "m/../../a.json", "m/../a.json", "m/./a.json", "m//a.json",
        "a.json", "m/b/c/a.json", "m\\a.json", "m/.a.json", ".m/a.json", "m/a\n.json",
        "m/a.py", "m/merged/pytorch_model.bin", "m/a.json.exe", "m/" + "a" * 101 + ".json",
        "m/\uff41.json", "C:/a.json", "m/a.json/",
    ],
)  # fmt: skip
def test_invalid_entry_name_is_refused(name: str, tmp_path: Path, target: Path) -> None:
    file = write_tar(tmp_path / "x.tar", GOOD, entry(name))
    with pytest.raises(UnsafeArchive):
        unpack_archive(file, target)


@pytest.mark.parametrize(
    ("kind", "link_target"),
    [
        (tarfile.SYMTYPE, "/etc"),
        (tarfile.SYMTYPE, "manifest.json"),
        (tarfile.LNKTYPE, "m/manifest.json"),
        (tarfile.LNKTYPE, "/etc/passwd"),
        (tarfile.FIFOTYPE, ""),
        (tarfile.CHRTYPE, ""),
        (tarfile.BLKTYPE, ""),
        (tarfile.CONTTYPE, ""),
        (tarfile.GNUTYPE_SPARSE, ""),
    ],
)
def test_special_file_is_refused(
    kind: bytes, link_target: str, tmp_path: Path, target: Path
) -> None:
    file = write_tar(
        tmp_path / "x.tar", GOOD, entry("m/a.json", b"", type=kind, linkname=link_target)
    )
    with pytest.raises((UnsafeArchive, InvalidArchive)):
        unpack_archive(file, target)


def test_sparse_file_is_refused(tmp_path: Path, target: Path) -> None:
    sparse = entry("m/a.json", b"1\n0\n512\n".ljust(512, b"\0") + bytes(512))
    sparse[0].pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "m/a.json",
        "GNU.sparse.realsize": str(10**15),
    }
    with pytest.raises(UnsafeArchive, match="regular file"):
        unpack_archive(write_tar(tmp_path / "x.tar", GOOD, sparse), target)


def test_chain_of_headers_is_refused(tmp_path: Path, target: Path) -> None:
    header, _ = entry("m/a.json", b"", type=tarfile.XHDTYPE)  # describes the next header
    (tmp_path / "x.tar").write_bytes(header.tobuf() * 2_000)
    with pytest.raises(InvalidArchive, match="recursion"):
        unpack_archive(tmp_path / "x.tar", target)


def test_symlinked_folder_is_refused(tmp_path: Path, target: Path) -> None:
    link = entry("m/merged", b"", type=tarfile.SYMTYPE, linkname="/tmp")  # noqa: S108
    file = write_tar(tmp_path / "x.tar", link, entry("m/merged/config.json"))
    with pytest.raises(UnsafeArchive):
        unpack_archive(file, target)


def test_duplicate_or_conflicting_entries_are_refused(tmp_path: Path, target: Path) -> None:
    with pytest.raises(UnsafeArchive, match="duplicated"):
        unpack_archive(write_tar(tmp_path / "x.tar", GOOD, GOOD), target)
    inside = entry("m/a.json/b.json")
    with pytest.raises((UnsafeArchive, InvalidArchive)):
        unpack_archive(write_tar(tmp_path / "x.tar", entry("m/a.json"), inside), target)


def test_too_many_files(tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_FILES", 3)
    many = [entry(f"m/{i}.json") for i in range(4)]
    with pytest.raises(UnsafeArchive, match="3 files"):
        unpack_archive(write_tar(tmp_path / "x.tar", *many), target)


BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "no tar": lambda _: b"x" * 2000,
    "compressed": gzip.compress,
    "cut": lambda tar: tar[:700],
    "a size beyond the end": lambda tar: tar.replace(b"00000000002\0", b"77777777777\0", 1),
}


@pytest.mark.parametrize("damage", list(BROKEN))
def test_invalid_archive_is_refused(damage: str, tmp_path: Path, target: Path) -> None:
    file = write_tar(tmp_path / "x.tar", entry("m/a.json", b"12" * 900), form=tarfile.USTAR_FORMAT)
    if damage == "a size beyond the end":
        file = write_tar(tmp_path / "x.tar", GOOD, form=tarfile.USTAR_FORMAT)
    file.write_bytes(BROKEN[damage](file.read_bytes()))
    with pytest.raises(InvalidArchive):
        unpack_archive(file, target)


def test_exactly_one_folder_is_required(tmp_path: Path, target: Path) -> None:
    with pytest.raises(InvalidArchive, match="2 folders"):
        unpack_archive(write_tar(tmp_path / "x.tar", GOOD, entry("n/a.json")), target)
    with pytest.raises(InvalidArchive, match="0 folders"):
        unpack_archive(write_tar(tmp_path / "x.tar"), target)
