"""What a process writes is moved out of its reach without following its links."""

from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest

from lora_core.errors.artifact import ArtifactCorrupt
from worker.workdir import AttemptDir


@pytest.fixture
def attempt_dir(tmp_path: Path) -> AttemptDir:
    """An attempt with a checkpoint of two files."""
    made = AttemptDir(UUID(int=1), 1, tmp_path / "attempt")
    made.path.mkdir()
    made.reset_workspace()
    (made.checkpoints / "step-2" / "base").mkdir(parents=True)
    (made.checkpoints / "step-2" / "state").write_text("2")
    (made.checkpoints / "step-2" / "base" / "config").write_text("{}")
    return made


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory that only the worker can reach; it has a checkpoint, too."""
    directory = tmp_path / "outside"
    (directory / "step-2").mkdir(parents=True)
    (directory / "step-2" / "state").write_text("other")
    return directory


def test_moved_directory_is_out_of_reach(attempt_dir: AttemptDir) -> None:
    moved = attempt_dir.move_out_of_workspace("checkpoints", "step-2")
    assert not moved.is_relative_to(attempt_dir.workspace)
    assert moved.is_relative_to(attempt_dir.path)
    assert (moved / "state").read_text() == "2"
    assert list(attempt_dir.checkpoints.iterdir()) == []


def link_parent(checkpoints: Path, outside: Path) -> None:
    checkpoints.rename(checkpoints.with_name("away"))
    checkpoints.symlink_to(outside)


def link_directory(checkpoints: Path, outside: Path) -> None:
    (checkpoints / "step-2").rename(checkpoints / "away")
    (checkpoints / "step-2").symlink_to(outside / "step-2")


def link_file(checkpoints: Path, outside: Path) -> None:
    (checkpoints / "step-2" / "state").unlink()
    (checkpoints / "step-2" / "state").symlink_to(outside / "step-2" / "state")


def link_inner_directory(checkpoints: Path, outside: Path) -> None:
    (checkpoints / "step-2" / "more").symlink_to(outside)


@pytest.mark.parametrize("attack", [link_parent, link_directory, link_file, link_inner_directory])
def test_links_are_refused(
    attempt_dir: AttemptDir, outside: Path, attack: Callable[[Path, Path], None]
) -> None:
    attack(attempt_dir.checkpoints, outside)
    with pytest.raises((OSError, ArtifactCorrupt)):
        attempt_dir.move_out_of_workspace("checkpoints", "step-2")
    assert (outside / "step-2" / "state").read_text() == "other"
    assert list(attempt_dir.path.iterdir()) == [attempt_dir.workspace]


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_directory_itself_is_not_moved(attempt_dir: AttemptDir, name: str) -> None:
    with pytest.raises(OSError, match=r"directory|busy"):
        attempt_dir.move_out_of_workspace("checkpoints", name)
    assert (attempt_dir.checkpoints / "step-2" / "state").read_text() == "2"


def test_next_process_of_an_attempt_starts_with_an_empty_workspace(
    attempt_dir: AttemptDir, outside: Path
) -> None:
    attempt_dir.out.symlink_to(outside)
    attempt_dir.tmp.rmdir()
    attempt_dir.tmp.symlink_to(outside)
    attempt_dir.reset_workspace()
    assert list(attempt_dir.workspace.iterdir()) == [attempt_dir.tmp]
    assert list(attempt_dir.tmp.iterdir()) == []
    assert (outside / "step-2" / "state").read_text() == "other"
