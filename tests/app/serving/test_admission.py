"""Tests of admission control and rate limits."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from uuid import UUID, uuid4

import pytest
from dirty_equals import IsPartialDict
from fastapi import FastAPI
from starlette.testclient import TestClient

from app.resources import Resources
from app.serving.admission import (
    BURST_SECONDS,
    MIN_TOKEN_LIMIT,
    AdmissionController,
    KeyRateLimiter,
)
from app.serving.errors import ApiKeyShareExceeded, RateLimitExceeded, ServerOverloaded
from tests.app.serving.conftest import Publish
from tests.app.serving.stub import WAIT, StubPredictor

KEY_ID = uuid4()


def make_controller(
    *, texts: int = 10, seconds: float = 1.0, share: float = 1.0, speed: float | None = None
) -> AdmissionController:
    return AdmissionController(
        max_texts=texts, max_wait_seconds=seconds, key_share=share, tokens_per_second=lambda: speed
    )


def fill(
    reservations: ExitStack, controller: AdmissionController, *requests: tuple[UUID, int, int]
) -> None:
    for key_id, texts, tokens in requests:
        reservations.enter_context(controller.reserve(key_id, texts=texts, tokens=tokens))


def test_reservation_is_released() -> None:
    controller = make_controller(texts=2)
    with ExitStack() as reservations:
        fill(reservations, controller, (KEY_ID, 1, 5), (KEY_ID, 1, 5))
        with pytest.raises(ServerOverloaded), controller.reserve(KEY_ID, texts=1, tokens=1):
            pass
    with pytest.raises(ZeroDivisionError), controller.reserve(KEY_ID, texts=2, tokens=1):
        _ = 1 / 0
    assert (controller.texts, controller.tokens) == (0, 0)


def test_token_limit_follows_throughput() -> None:
    slow, fast = make_controller(), make_controller(seconds=2, speed=MIN_TOKEN_LIMIT)
    for controller, maximum in ((slow, MIN_TOKEN_LIMIT), (fast, 2 * MIN_TOKEN_LIMIT)):
        with ExitStack() as reservations:
            fill(reservations, controller, (KEY_ID, 1, maximum))
            with pytest.raises(ServerOverloaded), controller.reserve(KEY_ID, texts=1, tokens=1):
                pass


def test_wait_is_limited_to_half_of_the_timeout() -> None:
    controller = make_controller(seconds=5, speed=MIN_TOKEN_LIMIT)
    with ExitStack() as reservations:
        fill(reservations, controller, (KEY_ID, 1, MIN_TOKEN_LIMIT))
        with pytest.raises(ServerOverloaded):
            controller.check(KEY_ID, texts=1, tokens=1, timeout=2.0)
        controller.check(KEY_ID, texts=1, tokens=1, timeout=2.1)
        controller.check(KEY_ID, texts=1, tokens=4 * MIN_TOKEN_LIMIT, timeout=30.0)
        with pytest.raises(ServerOverloaded):
            controller.check(KEY_ID, texts=1, tokens=4 * MIN_TOKEN_LIMIT + 1, timeout=30.0)


def test_64_long_texts_are_admitted_on_a_slow_machine() -> None:
    controller = make_controller(texts=512, seconds=5, speed=2500)
    with ExitStack() as reservations:
        fill(reservations, controller, *[(KEY_ID, 1, 512)] * 64)


def test_any_request_is_admitted_while_idle() -> None:
    controller = make_controller(texts=2)
    with controller.reserve(KEY_ID, texts=64, tokens=10 * MIN_TOKEN_LIMIT):
        assert controller.texts == 64


def test_setting_the_token_count_frees_capacity() -> None:
    controller = make_controller()
    with controller.reserve(KEY_ID, texts=1, tokens=MIN_TOKEN_LIMIT) as reservation:
        controller.set_tokens(reservation, KEY_ID, 10)
        with controller.reserve(KEY_ID, texts=1, tokens=MIN_TOKEN_LIMIT - 10):
            pass
    assert controller.tokens == 0


def test_more_tokens_than_estimated_are_admitted_only_if_there_is_room() -> None:
    controller, other = make_controller(share=0.5), uuid4()
    with controller.reserve(KEY_ID, texts=1, tokens=10) as only:
        controller.set_tokens(only, KEY_ID, 2 * MIN_TOKEN_LIMIT)
    with ExitStack() as reservations:
        fill(reservations, controller, (KEY_ID, 1, 10), (other, 1, 10))
        with (
            pytest.raises(ApiKeyShareExceeded),
            controller.reserve(KEY_ID, texts=1, tokens=10) as reservation,
        ):
            controller.set_tokens(reservation, KEY_ID, MIN_TOKEN_LIMIT // 2)
        with (
            pytest.raises(ServerOverloaded),
            controller.reserve(uuid4(), texts=1, tokens=10) as reservation,
        ):
            controller.set_tokens(reservation, uuid4(), MIN_TOKEN_LIMIT)
    assert (controller.texts, controller.tokens) == (0, 0)


def test_key_is_limited_to_its_share() -> None:
    controller, other = make_controller(share=0.5), uuid4()
    with ExitStack() as reservations:
        fill(reservations, controller, (KEY_ID, 5, 1))
        with pytest.raises(ApiKeyShareExceeded), controller.reserve(KEY_ID, texts=1, tokens=1):
            pass
        fill(reservations, controller, (other, 5, 1))
        with pytest.raises(ServerOverloaded), controller.reserve(uuid4(), texts=1, tokens=1):
            pass


@pytest.mark.parametrize(("speed", "minimum", "maximum"), [(1e9, 1, 1), (100, 8, 12), (1, 30, 30)])
def test_retry_after_follows_tokens_in_flight(speed: float, minimum: int, maximum: int) -> None:
    controller = make_controller(texts=1, speed=speed)
    with ExitStack() as reservations:
        fill(reservations, controller, (KEY_ID, 1, 1000))
        for _ in range(20):
            with (
                pytest.raises(ServerOverloaded) as rejected,
                controller.reserve(KEY_ID, texts=1, tokens=1),
            ):
                pass
            assert minimum <= rejected.value.detail["retry_after"] <= maximum


def test_rate_limit_refills_with_time() -> None:
    now = 0.0
    limiter = KeyRateLimiter(2.0, clock=lambda: now)
    limiter.acquire(KEY_ID, int(2 * BURST_SECONDS))
    with pytest.raises(RateLimitExceeded) as rejected:
        limiter.acquire(KEY_ID, 4)
    assert rejected.value.detail["retry_after"] == 2
    limiter.acquire(uuid4(), 4)
    now = 2.0
    limiter.acquire(KEY_ID, 4)
    with pytest.raises(RateLimitExceeded):
        limiter.acquire(KEY_ID, 1)


def test_request_larger_than_the_burst_puts_the_bucket_into_debt() -> None:
    now = 0.0
    limiter = KeyRateLimiter(1.0, clock=lambda: now)
    limiter.acquire(KEY_ID, 60)
    now = 50.0
    with pytest.raises(RateLimitExceeded):
        limiter.acquire(KEY_ID, 1)
    now = 51.0
    limiter.acquire(KEY_ID, 1)


def test_overload_response_has_predict_format(
    app: FastAPI, client: TestClient, publish: Publish, resources: Resources
) -> None:
    publish()
    stub, serving = StubPredictor(), app.state.serving
    stub.engine.gate.clear()
    serving.admission = make_controller(texts=2)
    serving.pool._load_encoder = lambda *_, **__: stub

    def predict() -> int:
        return client.post("/predict", json={"inputs": "a film"}).status_code

    with ThreadPoolExecutor(2) as clients:
        admitted = [clients.submit(predict) for _ in range(2)]
        deadline = time.monotonic() + WAIT
        while serving.admission.texts < 2:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        response = client.post("/predict", json={"inputs": "a film"})
        assert response.status_code == 429
        stub.engine.gate.set()
        assert [call.result() for call in admitted] == [200, 200]
    assert response.json() == IsPartialDict(error_type="Overloaded", code="overloaded")
    assert 1 <= int(response.headers["retry-after"]) <= 30
    assert predict() == 200


def test_rejected_request_does_not_count_toward_rate_limit(
    app: FastAPI, client: TestClient, publish: Publish
) -> None:
    publish()
    serving = app.state.serving
    serving.pool._load_encoder = lambda *_, **__: StubPredictor()
    serving.rate_limiter = KeyRateLimiter(
        2 / BURST_SECONDS, clock=lambda: 0.0
    )  # two texts, and no refill
    serving.admission = make_controller(texts=2)

    def predict() -> str:
        response = client.post("/predict", json={"inputs": ["good", "bad"]})
        return "ok" if response.status_code == 200 else str(response.json()["code"])

    serving.admission.texts = 1
    assert predict() == "overloaded"
    serving.admission.texts = 0
    assert [predict(), predict()] == ["ok", "rate_limit_exceeded"]
    assert serving.admission.texts == 0


def test_instances_of_vertex_are_admitted_together(
    app: FastAPI, client: TestClient, publish: Publish
) -> None:
    publish()
    serving = app.state.serving
    serving.pool._load_encoder = lambda *_, **__: StubPredictor()
    serving.rate_limiter = KeyRateLimiter(1 / BURST_SECONDS, clock=lambda: 0.0)  # a burst of one
    serving.admission = make_controller(texts=2, share=0.5)

    def predict() -> tuple[int, str | None]:
        instances = [{"inputs": ["a", "b"]}, {"inputs": "c"}]
        response = client.post("/vertex", json={"instances": instances})
        return response.status_code, response.json().get("code")

    assert predict() == (200, None)
    assert predict() == (429, "rate_limit_exceeded")
    assert (serving.admission.texts, serving.admission.tokens) == (0, 0)
