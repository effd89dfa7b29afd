"""A manifest that verifies means that the artifact is complete and unchanged."""

from pathlib import Path

import pytest

from lora_core import manifest
from lora_core.errors.artifact import ArtifactCorrupt
from tests.starved import no_descriptors, unprivileged


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "sub" / "b.txt").write_text("bb")
    manifest.create_and_save(tmp_path, {"kind": "test"})
    return tmp_path


def test_written_artifact_verifies(directory: Path) -> None:
    facts = manifest.verify(directory)
    assert facts["kind"] == "test"
    assert {name: entry["bytes"] for name, entry in facts["files"].items()} == {
        "a.txt": 1,
        "sub/b.txt": 2,
    }


def test_manifest_does_not_list_an_older_manifest(directory: Path) -> None:
    manifest.create_and_save(directory, {"kind": "new"})
    assert manifest.verify(directory)["kind"] == "new"


def test_changed_missing_or_extra_file_is_reported(directory: Path) -> None:
    (directory / "sub" / "b.txt").write_text("bc")
    with pytest.raises(ArtifactCorrupt, match=r"sub/b\.txt has changed"):
        manifest.verify(directory)
    (directory / "sub" / "b.txt").unlink()
    with pytest.raises(ArtifactCorrupt, match=r"missing or extra: sub/b\.txt"):
        manifest.verify(directory)
    (directory / "sub" / "b.txt").write_text("bb")
    (directory / "c.txt").write_text("c")
    with pytest.raises(ArtifactCorrupt, match=r"missing or extra: c\.txt"):
        manifest.verify(directory)


def test_model_card_may_be_added_and_edited(directory: Path) -> None:
    for text in ("# A model", "# My model"):
        (directory / "README.md").write_text(text)
        assert "README.md" not in manifest.verify(directory)["files"]
    (directory / "sub" / "README.md").write_text("# Other")
    with pytest.raises(ArtifactCorrupt, match=r"missing or extra: sub/README\.md"):
        manifest.verify(directory)


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"files": 3}', "\udcff", "[" * 100_000])
def test_unreadable_manifest_is_refused(directory: Path, content: str | None) -> None:
    path = directory / "manifest.json"
    path.unlink()
    if content is not None:
        path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ArtifactCorrupt, match="no readable manifest"):
        manifest.verify(directory)


def test_unreadable_file_is_not_reported_as_damaged(directory: Path) -> None:
    with no_descriptors(), pytest.raises(OSError, match="Too many open files"):
        manifest.read(directory)
    (directory / "sub").chmod(0)
    with unprivileged(directory), pytest.raises(PermissionError):
        manifest.verify(directory)
    (directory / "sub").chmod(0o755)
    manifest.verify(directory)


def test_manifest_is_not_written_through_a_symlink(directory: Path) -> None:
    (directory / ".manifest.json").symlink_to(directory / "a.txt")
    with pytest.raises(FileExistsError):
        manifest.save(directory, {"files": {}})
    assert (directory / "a.txt").read_text() == "a"


def test_symlink_or_second_manifest_is_refused(directory: Path) -> None:
    (directory / "sub" / "manifest.json").write_text("{}")
    with pytest.raises(ArtifactCorrupt, match=r"missing or extra: sub/manifest\.json"):
        manifest.verify(directory)
    (directory / "sub" / "manifest.json").unlink()
    (directory / "a.txt").unlink()
    (directory / "a.txt").symlink_to(directory / "sub" / "b.txt")
    with pytest.raises(ArtifactCorrupt, match=r"a\.txt has changed"):
        manifest.verify(directory)
