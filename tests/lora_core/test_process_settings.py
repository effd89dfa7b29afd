"""Process-wide settings for training."""

import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from lora_core.process_settings import (
    available_cores,
    collect_and_freeze_gc_once,
    disable_gc_then_freeze_imports,
)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("1000 100000\n", 1),
        ("max 100000\n", 8),
        ("", 8),
    ],
)
def test_cores_are_limited_by_the_quota_of_a_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, expected: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    (tmp_path / "cgroup").write_text("0::/\n")
    (tmp_path / "cpu.max").write_text(limit)
    assert available_cores(tmp_path, tmp_path / "cgroup") == expected


def test_the_smallest_quota_of_nested_containers_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    (tmp_path / "cgroup").write_text("0::/outer/inner\n")
    (tmp_path / "outer/inner").mkdir(parents=True)
    (tmp_path / "outer/inner/cpu.max").write_text("max 100000\n")
    (tmp_path / "outer/cpu.max").write_text("300000 100000\n")
    assert available_cores(tmp_path, tmp_path / "cgroup") == 3


@pytest.fixture(autouse=True)
def _frozen() -> Iterator[None]:
    """Freeze what is there, as tests/conftest.py does: to search or collect it takes seconds."""
    gc.freeze()
    yield
    gc.freeze()


def test_garbage_collector_is_off_during_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[list[object]] = []
    try:
        with disable_gc_then_freeze_imports():
            assert not gc.isenabled()
            monkeypatch.setitem(sys.modules, "imported", ModuleType("imported"))
            made.append([])
        assert gc.isenabled()
        assert not any(each is made[0] for each in gc.get_objects())
    finally:
        gc.unfreeze()
    assert any(each is made[0] for each in gc.get_objects())


def test_repeated_import_freezes_nothing() -> None:
    frozen = gc.get_freeze_count()
    with disable_gc_then_freeze_imports():
        import gc as _  # noqa: F401
    assert gc.get_freeze_count() <= frozen


def test_failed_import_reenables_the_garbage_collector() -> None:
    try:
        with pytest.raises(ImportError), disable_gc_then_freeze_imports():
            raise ImportError
        assert gc.isenabled()
    finally:
        gc.unfreeze()


def test_imported_objects_are_frozen_and_later_ones_collected() -> None:
    class Knot:
        def __init__(self) -> None:
            self.self = self  # so that counting references does not free it

    def found() -> int:
        return sum(type(each) is Knot for each in gc.get_objects())

    kept = [Knot()]
    assert found() == 1
    collect_and_freeze_gc_once.cache_clear()
    try:
        collect_and_freeze_gc_once()
        assert found() == 0
        later = Knot()
        assert found() == 1
        collect_and_freeze_gc_once()  # once in a process
        assert found() == 1
        del later
        gc.collect()
        assert found() == 0
    finally:
        gc.unfreeze()
    assert found() == len(kept)
