"""What a process that computes does about the machine it shares."""

import gc

import pytest

from lora_core.process import exempt_from_collection, importing


def test_nothing_is_collected_while_libraries_are_imported() -> None:
    made: list[list[object]] = []
    try:
        with importing():
            assert not gc.isenabled()
            made.append([])
        assert gc.isenabled()
        assert not any(each is made[0] for each in gc.get_objects())
    finally:
        gc.unfreeze()
    assert any(each is made[0] for each in gc.get_objects())


def test_an_import_that_fails_leaves_the_collector_at_work() -> None:
    try:
        with pytest.raises(ImportError), importing():
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
    exempt_from_collection.cache_clear()
    try:
        exempt_from_collection()
        assert found() == 0
        later = Knot()
        assert found() == 1
        exempt_from_collection()  # once in a process
        assert found() == 1
        del later
        gc.collect()
        assert found() == 0
    finally:
        gc.unfreeze()
    assert found() == len(kept)
