"""What a process that computes does about the machine it shares."""

import gc

import pytest

from lora_core.process import freeze_gc, imports_without_gc


def test_nothing_is_collected_while_libraries_are_imported() -> None:
    made: list[list[object]] = []
    try:
        with imports_without_gc():
            assert not gc.isenabled()
            made.append([])
        assert gc.isenabled()
        assert not any(each is made[0] for each in gc.get_objects())
    finally:
        gc.unfreeze()
    assert any(each is made[0] for each in gc.get_objects())


def test_an_import_that_fails_leaves_the_collector_at_work() -> None:
    try:
        with pytest.raises(ImportError), imports_without_gc():
            raise ImportError
        assert gc.isenabled()
    finally:
        gc.unfreeze()


def test_what_is_there_is_not_collected_any_more_and_what_comes_later_is() -> None:
    class Knot:
        def __init__(self) -> None:
            self.self = self  # so that counting references does not free it

    def found() -> int:
        return sum(type(each) is Knot for each in gc.get_objects())

    kept = [Knot()]
    assert found() == 1
    freeze_gc.cache_clear()
    try:
        freeze_gc()
        assert found() == 0
        later = Knot()
        assert found() == 1
        freeze_gc()  # once in a process
        assert found() == 1
        del later
        gc.collect()
        assert found() == 0
    finally:
        gc.unfreeze()
    assert found() == len(kept)
