"""The number of trainings at the same time."""

import threading

from worker.slots import Slots


def test_no_more_slots_are_taken_than_there_are() -> None:
    slots = Slots(2)
    assert slots.take(0)
    assert slots.take(0)
    assert not slots.take(0.01)
    slots.give()
    assert slots.take(0)


def test_a_slot_that_is_given_back_wakes_who_waits_for_it() -> None:
    slots = Slots(1)
    assert slots.take(0)
    giver = threading.Timer(0.05, slots.give)
    giver.start()
    assert slots.take(10)
    giver.join()


def test_idle_means_that_all_came_back() -> None:
    slots = Slots(1)
    assert slots.wait_idle(0)
    slots.take(0)
    assert not slots.wait_idle(0.01)
    slots.give()
    assert slots.wait_idle(0)
