"""`POST /v1/models/{ref}/explain`, compared with what `/predict` says to the texts themselves."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from itertools import permutations
from statistics import fmean
from typing import Any

import pytest
from dirty_equals import IsPartialDict
from fastapi import FastAPI
from starlette.testclient import TestClient

from app.auth.tables import LOCAL_KEY_ID
from app.serving.admission import BURST_SECONDS, Quota
from app.serving.attribution import orders
from app.serving.explanation import CHUNK_TOKENS, MOST_WORDS
from app.serving.request_formats import RefPredict, understand
from app.serving.service import MOST_TEXTS, Answer, Serving
from tests.app.serving.conftest import Publish
from tests.app.serving.stub import WAIT, StubPredictor

CLOSE = 1e-5  # captum adds up in float32
LONG = "a good film that was not dull " * 20


def explain(client: TestClient, inputs: str, ref: str = "sentiment", **more: Any) -> Any:
    answer = client.post(f"/v1/models/{ref}/explain", json={"inputs": inputs, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


def refusal(client: TestClient, ref: str = "sentiment", **body: Any) -> tuple[int, Any]:
    answer = client.post(f"/v1/models/{ref}/explain", json=body)
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()


def probability(client: TestClient, text: str, label: str) -> float:
    rows = client.post("/predict", json={"inputs": text}).json()
    return next(float(row["score"]) for row in rows if row["label"] == label)


def shapley(client: TestClient, found: Any, text: str, tried: Any) -> list[float]:
    """By hand, from the words of `found` and the answers to texts that lack some of them.

    Only the score of the empty text is taken over: /predict refuses to read one.
    """
    known: dict[frozenset[int], float] = {frozenset(): found["empty_score"]}

    def score(kept: frozenset[int]) -> float:
        if kept not in known:
            left = text
            for number in reversed(range(len(found["words"]))):
                if number not in kept:
                    word = found["words"][number]
                    left = left[: word["start"]] + left[word["end"] :]
            known[kept] = probability(client, left, found["label"])
        return known[kept]

    values: list[list[float]] = [[] for _ in found["words"]]
    for order in tried:
        for place, number in enumerate(order):
            before = frozenset(order[:place])
            values[number].append(score(before | {number}) - score(before))
    return [fmean(each) for each in values]


@pytest.mark.parametrize(
    "text",
    [
        "a good film",
        "not good good not",
        "unwatchably boringly, isn't it?",
        "naïve 😀 电影",
        "  awful  ",
        "the good.",
    ],
)
def test_few_words_are_worth_what_predict_says(
    client: TestClient, publish: Publish, text: str
) -> None:
    publish()
    found = explain(client, text)
    assert [text[word["start"] : word["end"]] for word in found["words"]] == [
        word["text"] for word in found["words"]
    ]
    assert "".join(word["text"] for word in found["words"]) == "".join(text.split())
    expected = shapley(client, found, text, permutations(range(len(found["words"]))))
    assert [word["score"] for word in found["words"]] == pytest.approx(expected, abs=CLOSE)
    assert found["score"] == pytest.approx(probability(client, text, found["label"]), abs=CLOSE)
    assert found["texts"] == 2 ** len(found["words"])
    assert not found["grouped"]


def test_more_words_are_worth_what_predict_says(client: TestClient, publish: Publish) -> None:
    publish()
    text = "the film was not very good and the plot is awful"
    found = explain(client, text)
    expected = shapley(client, found, text, orders(11, 13))
    assert [word["score"] for word in found["words"]] == pytest.approx(expected, abs=CLOSE)
    total = sum(word["score"] for word in found["words"])
    assert total == pytest.approx(found["score"] - found["empty_score"], abs=CLOSE)
    again = explain(client, text)
    for word, other in zip(found["words"], again["words"], strict=True):
        assert word == {**other, "score": pytest.approx(other["score"], abs=CLOSE)}


def test_a_label_may_be_chosen(client: TestClient, publish: Publish) -> None:
    publish()
    good, bad = (explain(client, "a dull film", label=label) for label in ("good", "bad"))
    assert explain(client, "a dull film")["label"] == good["label"] == "good"
    assert bad["label"] == "bad"
    assert good["score"] + bad["score"] == pytest.approx(1)
    for word, other in zip(good["words"], bad["words"], strict=True):
        assert word["score"] == pytest.approx(-other["score"], abs=CLOSE)


def test_the_answer_says_which_version_it_explains(client: TestClient, publish: Publish) -> None:
    publish()
    publish(favours="bad", promote=False)
    for ref, version, label in (
        ("sentiment", 1, "good"),
        ("sentiment@production", 1, "good"),
        ("sentiment:2", 2, "bad"),
    ):
        answer = client.post(f"/v1/models/{ref}/explain", json={"inputs": "a film"})
        assert answer.headers["x-model-version"] == f"sentiment:{version}"
        assert answer.headers["x-engine"] == "torch-fp32"
        assert answer.json()["label"] == label


def test_many_words_are_taken_together(client: TestClient, publish: Publish) -> None:
    publish()
    text = "a good film that was not dull " * 6  # 42 words
    found = explain(client, text)
    assert found["grouped"]
    assert len(found["words"]) == MOST_WORDS
    assert " ".join(word["text"] for word in found["words"]) == text.strip()


def test_only_what_the_model_reads_is_explained(client: TestClient, publish: Publish) -> None:
    publish()
    answer = client.post("/v1/models/sentiment/explain", json={"inputs": LONG})
    found = answer.json()
    assert answer.headers["x-truncated"] == "1"
    assert found["score"] == pytest.approx(probability(client, LONG, "good"), abs=CLOSE)
    assert found["words"][-1]["end"] < len(LONG) / 2
    short = client.post("/v1/models/sentiment/explain", json={"inputs": "a film"})
    assert "x-truncated" not in short.headers


def test_a_text_without_words_has_none(client: TestClient, publish: Publish) -> None:
    publish()
    found = explain(client, "\u200b")
    assert (found["words"], found["texts"]) == ([], 1)
    assert found["score"] == found["empty_score"]


def test_what_cannot_be_explained_is_refused(client: TestClient, publish: Publish) -> None:
    publish()
    for text in ("", " \n"):
        status, problem = refusal(client, inputs=text)
        assert (status, problem["code"]) == (400, "empty_input")
    status, problem = refusal(client, inputs="a film", label="<b>")
    assert (status, problem) == (422, IsPartialDict(code="label_unknown"))
    assert problem["errors"][0]["at"] == "label"
    assert problem["detail"] == "sentiment:1 has no such label. It has: bad, good."
    for body in ({"inputs": ["a", "b"]}, {"inputs": "a\x00"}, {"inputs": "a", "top": 3}, {}):
        assert refusal(client, **body)[0] == 422
    for ref in ("other", "sentiment:7"):
        assert refusal(client, ref, inputs="a film")[0] == 404


def test_the_key_must_be_allowed_to_predict(locked_client: TestClient, new_key: Any) -> None:
    def asked(*scopes: str) -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {new_key(*scopes).text}"}
        answer = locked_client.post(
            "/v1/models/other/explain", json={"inputs": "x"}, headers=headers
        )
        return answer.status_code, answer.json()["code"]

    assert asked("models:read") == (403, "scope_missing")
    assert asked("predict") == (404, "model_not_found")


Compute = Callable[[Any], Awaitable[Any]]
Before = Callable[[list[int]], Awaitable[None]]
LETTERS = "twelve char " * 16  # for a stub, to which each letter is a token: many parts


@pytest.fixture
def parts(app: FastAPI, client: TestClient, publish: Publish) -> Callable[..., list[int]]:
    """A stub serves from now on: tokens of each part that waits, and what is done before it."""
    publish()
    app.state.serving.pool._load = lambda *_, **__: StubPredictor()
    batcher, tokens = app.state.serving.batcher, list[int]()
    compute: Compute = batcher.compute

    def watch(before: Before | None = None) -> list[int]:
        async def watched(tickets: Any) -> Any:
            tokens.append(sum(len(ticket.ids) for ticket in tickets))
            if before is not None:
                await before(tokens)
            return await compute(tickets)

        batcher.compute = watched
        return tokens

    return watch


def test_a_part_of_it_waits_at_a_time(client: TestClient, parts: Callable[..., list[int]]) -> None:
    tokens = parts()
    explain(client, LETTERS)
    assert len(tokens) > 3
    assert max(tokens) <= CHUNK_TOKENS


def test_others_are_answered_in_between(
    app: FastAPI, client: TestClient, parts: Callable[..., list[int]]
) -> None:
    serving: Serving = app.state.serving
    question = understand(RefPredict.model_validate({"inputs": "a film"}), None, most=1)
    asked: list[asyncio.Task[Answer]] = []

    async def before(tokens: list[int]) -> None:
        if len(tokens) == 1:  # of this part, while it begins to wait
            deadline = time.monotonic() + WAIT
            work = serving.ask(question, "sentiment", caller=LOCAL_KEY_ID, deadline=deadline)
            asked.append(asyncio.create_task(work))
        elif len(tokens) == 3:  # the other one was the second to wait
            await asyncio.wait(asked, timeout=WAIT)
            assert asked[0].result().version == "sentiment:1"

    parts(before)
    explain(client, LETTERS)
    assert asked[0].done()


def test_it_ends_at_its_deadline(client: TestClient, parts: Callable[..., list[int]]) -> None:
    async def before(tokens: list[int]) -> None:
        if len(tokens) == 2:
            await asyncio.sleep(0.7)

    tokens = parts(before)
    explain(client, "x")
    tokens.clear()
    answer = client.post(
        "/v1/models/sentiment/explain",
        json={"inputs": LETTERS},
        headers={"X-Request-Timeout": "0.6"},
    )
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline_passed")
    assert len(tokens) <= 2


def test_it_finds_no_room_under_overload(
    app: FastAPI, client: TestClient, parts: Callable[..., list[int]]
) -> None:
    serving: Serving = app.state.serving

    async def before(tokens: list[int]) -> None:
        if len(tokens) == 2:
            serving.admission.texts += MOST_TEXTS  # others come

    parts(before)
    for _ in ("in the middle", "at the door"):
        answer = client.post("/v1/models/sentiment/explain", json={"inputs": LETTERS})
        assert (answer.status_code, answer.json()["code"]) == (429, "overloaded")
        assert int(answer.headers["Retry-After"]) >= 1
    assert serving.admission.texts == MOST_TEXTS


def test_each_text_counts_in_the_quota(
    app: FastAPI, client: TestClient, parts: Callable[..., list[int]]
) -> None:
    parts()
    quota = app.state.serving.quota = Quota(1.0, clock=lambda: 0.0)  # ten at once
    found = explain(client, "a good film")
    assert quota._buckets[LOCAL_KEY_ID].level == BURST_SECONDS - found["texts"] == 2
    answer = client.post("/v1/models/sentiment/explain", json={"inputs": "a good film"})
    assert (answer.status_code, answer.json()["code"]) == (429, "quota_used")
