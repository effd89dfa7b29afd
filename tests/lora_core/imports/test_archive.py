"""Archives that hold what no model holds."""

import gzip
import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lora_core.errors.artifact import ArchiveBroken, ArchiveUnsafe
from lora_core.imports import archive
from lora_core.imports.archive import unpack


@pytest.fixture
def into(tmp_path: Path) -> Iterator[Path]:
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


def packed(
    path: Path, *entries: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT
) -> Path:
    with tarfile.open(path, "w", format=form) as tar:
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content))
    return path


GOOD = entry("m/manifest.json")


def test_plain_files_come_out_as_they_went_in(tmp_path: Path, into: Path) -> None:
    folder = entry("m/merged", b"", type=tarfile.DIRTYPE)
    file = packed(tmp_path / "x.tar", GOOD, folder, entry("m/merged/config.json", b"[1]"))
    directory = unpack(file, into)
    assert directory == into / "m"
    found = {p.relative_to(into).as_posix(): p.read_bytes() for p in into.rglob("*") if p.is_file()}
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
def test_names_that_no_file_of_a_model_has(name: str, tmp_path: Path, into: Path) -> None:
    file = packed(tmp_path / "x.tar", GOOD, entry(name))
    with pytest.raises(ArchiveUnsafe):
        unpack(file, into)


@pytest.mark.parametrize(
    ("kind", "target"),
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
def test_what_is_no_plain_file(kind: bytes, target: str, tmp_path: Path, into: Path) -> None:
    file = packed(tmp_path / "x.tar", GOOD, entry("m/a.json", b"", type=kind, linkname=target))
    with pytest.raises((ArchiveUnsafe, ArchiveBroken)):
        unpack(file, into)


def test_a_sparse_file_cannot_be_a_bomb(tmp_path: Path, into: Path) -> None:
    sparse = entry("m/a.json", b"1\n0\n512\n".ljust(512, b"\0") + bytes(512))
    sparse[0].pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "m/a.json",
        "GNU.sparse.realsize": str(10**15),
    }
    with pytest.raises(ArchiveUnsafe, match="plain file"):
        unpack(packed(tmp_path / "x.tar", GOOD, sparse), into)


def test_a_folder_that_a_link_pretends_to_be(tmp_path: Path, into: Path) -> None:
    link = entry("m/merged", b"", type=tarfile.SYMTYPE, linkname="/tmp")  # noqa: S108
    file = packed(tmp_path / "x.tar", link, entry("m/merged/config.json"))
    with pytest.raises(ArchiveUnsafe):
        unpack(file, into)


def test_the_same_name_twice_or_a_file_where_a_folder_is(tmp_path: Path, into: Path) -> None:
    with pytest.raises(ArchiveUnsafe, match="twice"):
        unpack(packed(tmp_path / "x.tar", GOOD, GOOD), into)
    inside = entry("m/a.json/b.json")
    with pytest.raises((ArchiveUnsafe, ArchiveBroken)):
        unpack(packed(tmp_path / "x.tar", entry("m/a.json"), inside), into)


def test_too_many_files(tmp_path: Path, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "FILES", 3)
    many = [entry(f"m/{i}.json") for i in range(4)]
    with pytest.raises(ArchiveUnsafe, match="3 files"):
        unpack(packed(tmp_path / "x.tar", *many), into)


BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "no tar": lambda _: b"x" * 2000,
    "compressed": gzip.compress,
    "cut": lambda tar: tar[:700],
    "a size beyond the end": lambda tar: tar.replace(b"00000000002\0", b"77777777777\0", 1),
}


@pytest.mark.parametrize("damage", list(BROKEN))
def test_what_is_no_archive(damage: str, tmp_path: Path, into: Path) -> None:
    file = packed(tmp_path / "x.tar", entry("m/a.json", b"12" * 900), form=tarfile.USTAR_FORMAT)
    if damage == "a size beyond the end":
        file = packed(tmp_path / "x.tar", GOOD, form=tarfile.USTAR_FORMAT)
    file.write_bytes(BROKEN[damage](file.read_bytes()))
    with pytest.raises(ArchiveBroken):
        unpack(file, into)


def test_two_folders_or_none(tmp_path: Path, into: Path) -> None:
    with pytest.raises(ArchiveBroken, match="2 folders"):
        unpack(packed(tmp_path / "x.tar", GOOD, entry("n/a.json")), into)
    with pytest.raises(ArchiveBroken, match="0 folders"):
        unpack(packed(tmp_path / "x.tar"), into)
