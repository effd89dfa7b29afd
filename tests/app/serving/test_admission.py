"""A bounded number of calls wait; the others are refused at once."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from dirty_equals import IsPartialDict
from fastapi import FastAPI
from starlette.testclient import TestClient

from app.resources import Resources
from app.serving.admission import Admission
from app.serving.errors import Busy
from app.serving.pool import Pool
from tests.app.serving.conftest import Publish
from tests.app.serving.stub import WAIT, Loader, StubPredictor


def test_a_place_is_given_back() -> None:
    admission = Admission(2)
    with ExitStack() as inside:
        inside.enter_context(admission.place())
        inside.enter_context(admission.place())
        with pytest.raises(Busy), admission.place():
            pass
    with pytest.raises(ZeroDivisionError), admission.place():
        _ = 1 / 0
    with admission.place(), admission.place():
        pass


@pytest.mark.parametrize(("seconds", "advice"), [(0.0, 1), (0.5, 5), (60.0, 30)])
def test_the_advice_follows_what_calls_take(seconds: float, advice: int) -> None:
    admission = Admission(10)
    for _ in range(200):
        admission.took(seconds)
    with ExitStack() as inside:
        for _ in range(10):
            inside.enter_context(admission.place())
        with pytest.raises(Busy) as refused, admission.place():
            pass
    assert refused.value.detail["retry_after"] == advice


def test_too_many_calls_are_refused_in_the_dialect(
    app: FastAPI, client: TestClient, publish: Publish, resources: Resources
) -> None:
    directory = publish()
    loader = Loader()
    stub = loader.stubs[directory] = StubPredictor()
    stub.gate.clear()
    serving = app.state.serving
    serving.admission = Admission(2)
    serving.pool = Pool(database=resources.database, store=resources.store, most=1, load=loader)

    def ask() -> int:
        return client.post("/predict", json={"inputs": "a film"}).status_code

    with ThreadPoolExecutor(2) as callers:
        accepted = [callers.submit(ask) for _ in range(2)]
        deadline = time.monotonic() + WAIT
        while serving.admission.taken < 2:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        answer = client.post("/predict", json={"inputs": "a film"})
        assert answer.status_code == 429
        stub.gate.set()
        assert [call.result() for call in accepted] == [200, 200]
    assert answer.json() == IsPartialDict(error_type="Overloaded", code="overloaded")
    assert 1 <= int(answer.headers["retry-after"]) <= 30
    assert ask() == 200
