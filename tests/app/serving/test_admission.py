"""A bounded number of texts and tokens is let in; the others are refused at once."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from uuid import UUID, uuid4

import pytest
from dirty_equals import IsPartialDict
from fastapi import FastAPI
from starlette.testclient import TestClient

from app.resources import Resources
from app.serving.admission import BURST_SECONDS, FLOOR_TOKENS, Admission, Quota
from app.serving.errors import Busy, KeyBusy, QuotaUsed
from tests.app.serving.conftest import Publish
from tests.app.serving.stub import WAIT, StubPredictor

KEY = uuid4()


def admission(
    *, texts: int = 10, seconds: float = 1.0, share: float = 1.0, speed: float | None = None
) -> Admission:
    return Admission(
        most_texts=texts, most_seconds=seconds, share=share, tokens_per_second=lambda: speed
    )


def fill(inside: ExitStack, made: Admission, *calls: tuple[UUID, int, int]) -> None:
    for caller, texts, tokens in calls:
        inside.enter_context(made.place(caller, texts=texts, tokens=tokens))


def test_a_place_is_given_back() -> None:
    made = admission(texts=2)
    with ExitStack() as inside:
        fill(inside, made, (KEY, 1, 5), (KEY, 1, 5))
        with pytest.raises(Busy), made.place(KEY, texts=1, tokens=1):
            pass
    with pytest.raises(ZeroDivisionError), made.place(KEY, texts=2, tokens=1):
        _ = 1 / 0
    assert (made.texts, made.tokens) == (0, 0)


def test_tokens_are_bounded_by_what_can_be_computed_in_time() -> None:
    slow, fast = admission(), admission(seconds=2, speed=FLOOR_TOKENS)
    for made, most in ((slow, FLOOR_TOKENS), (fast, 2 * FLOOR_TOKENS)):
        with ExitStack() as inside:
            fill(inside, made, (KEY, 1, most))
            with pytest.raises(Busy), made.place(KEY, texts=1, tokens=1):
                pass


def test_nobody_is_let_in_who_would_wait_for_more_than_half_of_a_timeout() -> None:
    made = admission(seconds=5, speed=FLOOR_TOKENS)
    with ExitStack() as inside:
        fill(inside, made, (KEY, 1, FLOOR_TOKENS))
        with pytest.raises(Busy):
            made.check(KEY, texts=1, tokens=1, timeout=2.0)
        made.check(KEY, texts=1, tokens=1, timeout=2.1)
        made.check(KEY, texts=1, tokens=4 * FLOOR_TOKENS, timeout=30.0)
        with pytest.raises(Busy):
            made.check(KEY, texts=1, tokens=4 * FLOOR_TOKENS + 1, timeout=30.0)


def test_64_long_texts_may_wait_however_slow_the_machine() -> None:
    made = admission(texts=512, seconds=5, speed=2500)
    with ExitStack() as inside:
        fill(inside, made, *[(KEY, 1, 512)] * 64)


def test_with_nothing_under_way_everything_is_let_in() -> None:
    made = admission(texts=2)
    with made.place(KEY, texts=64, tokens=10 * FLOOR_TOKENS):
        assert made.texts == 64


def test_a_corrected_place_makes_room() -> None:
    made = admission()
    with made.place(KEY, texts=1, tokens=FLOOR_TOKENS) as place:
        made.correct(place, KEY, 10)
        with made.place(KEY, texts=1, tokens=FLOOR_TOKENS - 10):
            pass
    assert made.tokens == 0


def test_one_key_gets_a_share_and_others_the_rest() -> None:
    made, other = admission(share=0.5), uuid4()
    with ExitStack() as inside:
        fill(inside, made, (KEY, 5, 1))
        with pytest.raises(KeyBusy), made.place(KEY, texts=1, tokens=1):
            pass
        fill(inside, made, (other, 5, 1))
        with pytest.raises(Busy), made.place(uuid4(), texts=1, tokens=1):
            pass


@pytest.mark.parametrize(("speed", "least", "most"), [(1e9, 1, 1), (100, 8, 12), (1, 30, 30)])
def test_the_advice_follows_what_waits(speed: float, least: int, most: int) -> None:
    made = admission(texts=1, speed=speed)
    with ExitStack() as inside:
        fill(inside, made, (KEY, 1, 1000))
        for _ in range(20):
            with pytest.raises(Busy) as refused, made.place(KEY, texts=1, tokens=1):
                pass
            assert least <= refused.value.detail["retry_after"] <= most


def test_a_quota_refills_with_time() -> None:
    now = 0.0
    quota = Quota(2.0, clock=lambda: now)
    quota.take(KEY, int(2 * BURST_SECONDS))
    with pytest.raises(QuotaUsed) as refused:
        quota.take(KEY, 4)
    assert refused.value.detail["retry_after"] == 2
    quota.take(uuid4(), 4)
    now = 2.0
    quota.take(KEY, 4)
    with pytest.raises(QuotaUsed):
        quota.take(KEY, 1)


def test_a_call_larger_than_the_burst_is_paid_for_afterwards() -> None:
    now = 0.0
    quota = Quota(1.0, clock=lambda: now)
    quota.take(KEY, 60)
    now = 50.0
    with pytest.raises(QuotaUsed):
        quota.take(KEY, 1)
    now = 51.0
    quota.take(KEY, 1)


def test_too_many_texts_are_refused_in_the_dialect(
    app: FastAPI, client: TestClient, publish: Publish, resources: Resources
) -> None:
    publish()
    stub, serving = StubPredictor(), app.state.serving
    stub.engine.gate.clear()
    serving.admission = admission(texts=2)
    serving.pool._load = lambda *_, **__: stub

    def ask() -> int:
        return client.post("/predict", json={"inputs": "a film"}).status_code

    with ThreadPoolExecutor(2) as callers:
        accepted = [callers.submit(ask) for _ in range(2)]
        deadline = time.monotonic() + WAIT
        while serving.admission.texts < 2:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        answer = client.post("/predict", json={"inputs": "a film"})
        assert answer.status_code == 429
        stub.engine.gate.set()
        assert [call.result() for call in accepted] == [200, 200]
    assert answer.json() == IsPartialDict(error_type="Overloaded", code="overloaded")
    assert 1 <= int(answer.headers["retry-after"]) <= 30
    assert ask() == 200


def test_what_finds_no_room_uses_up_no_quota(
    app: FastAPI, client: TestClient, publish: Publish
) -> None:
    publish()
    serving = app.state.serving
    serving.pool._load = lambda *_, **__: StubPredictor()
    serving.quota = Quota(2 / BURST_SECONDS, clock=lambda: 0.0)  # two texts, and no more for now
    serving.admission = admission(texts=2)

    def ask() -> str:
        answer = client.post("/predict", json={"inputs": ["good", "bad"]})
        return "answered" if answer.status_code == 200 else str(answer.json()["code"])

    serving.admission.texts = 1
    assert ask() == "overloaded"
    serving.admission.texts = 0
    assert [ask(), ask()] == ["answered", "quota_used"]
    assert serving.admission.texts == 0
