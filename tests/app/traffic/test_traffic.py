"""What is kept of predictions: by default counts only."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock
from uuid import UUID

import pytest
import structlog
from fastapi import FastAPI
from sqlalchemy import select
from sqlalchemy.exc import OperationalError, TimeoutError
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from app.database.base import new_id
from app.database.engines import Database
from app.http.dependencies import get_app_state
from app.serving.loaded_model import LoadedEncoderModel
from app.settings import Settings
from app.table_metadata import metadata
from app.traffic import recorder as recorder_module
from app.traffic.prediction_encoding import OutputTaskTypes
from app.traffic.recorder import AnsweredRequest, TrafficRecorder
from lora_core.inference.decoding import DecodedOutput
from tests.app.traffic.conftest import Publish, Serving
from tests.kept_predictions import counts, kept_predictions
from tests.tiny_artifact import (
    make_multi_label_artifact,
    make_regression_artifact,
    make_several_targets_artifact,
)

CANARY = "the canary sings of blåbær 7261"
HEADER = "x-prediction-id"


def flush(client: TestClient) -> None:
    app: FastAPI = client.app  # type: ignore[assignment]
    get_app_state(app).traffic.flush()


def rows_with(database: Database, text: str) -> list[str]:
    """The tables with a text in any column of any row."""
    found = []
    for table in metadata.sorted_tables:
        with database.read() as session:
            rows = session.execute(select(table)).all()
        if any(text in str(value) for row in rows for value in row):
            found.append(table.name)
    return found


def files_with(folder: Path, text: str) -> list[str]:
    """The files with a text, however JSON or a database writes it."""
    forms = [text.encode(), text.encode("utf-16-le"), ascii(text)[1:-1].encode()]
    return [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and any(form in path.read_bytes() for form in forms)
    ]


REQUESTS: list[tuple[str, Any]] = [
    ("/predict", {"inputs": CANARY}),
    ("/predict", {"inputs": [CANARY, "other"], "parameters": {}}),
    ("/predict", {"inputs": CANARY, "raw_scores": True, "abstain_below": 0.999}),
    ("/models/sentiment/predict", {"inputs": [CANARY]}),
    ("/models/sentiment:1", {"inputs": CANARY}),
    ("/vertex", {"instances": [{"inputs": CANARY}, {"inputs": ["a", CANARY]}]}),
    ("/openai/v1/completions", {"model": "sentiment", "prompt": CANARY}),
    (
        "/openai/v1/chat/completions",
        {"model": "sentiment", "messages": [{"role": "user", "content": CANARY}]},
    ),
    (
        "/openai/v1/chat/completions",
        {"model": "sentiment", "messages": [{"role": "user", "content": CANARY}], "stream": True},
    ),
    ("/mistral/v1/classifications", {"model": "sentiment", "input": [CANARY]}),
    (
        "/mistral/v1/chat/classifications",
        {"model": "sentiment", "input": {"messages": [{"role": "user", "content": CANARY}]}},
    ),
]


def test_nothing_of_a_text_is_kept_by_default(
    client: TestClient, publish: Publish, database: Database, settings: Settings
) -> None:
    publish()
    ids = set()
    for path, body in REQUESTS:
        sent = client.post(path, json=body)
        assert sent.status_code == 200, sent.text
        ids.add(sent.headers[HEADER])
    explained = client.post("/v1/models/sentiment/explain", json={"inputs": CANARY})
    assert explained.status_code == 200, explained.text
    flush(client)
    assert len({UUID(hex=each) for each in ids}) == len(REQUESTS)
    assert rows_with(database, CANARY) == []
    assert files_with(settings.data_dir, CANARY) == []
    assert not (settings.data_dir / "pepper").exists()  # no hash either
    assert kept_predictions(database) == []
    texts = counts(database)["sentiment", 1, "text", ""]
    assert texts == 14
    assert counts(database) == {
        ("sentiment", 1, "text", ""): texts,
        ("sentiment", 1, "label", "good"): texts - 1,
        ("sentiment", 1, "abstained", ""): 1,
    }
    assert "loraworks_traffic_kept_total 0.0" in client.get("/metrics").text


def test_scores_keep_no_text(
    serving: Serving, publish: Publish, database: Database, settings: Settings
) -> None:
    publish()
    client = serving(keep_traffic="scores")
    sent = client.post("/predict", json={"inputs": [CANARY, "other"], "raw_scores": True})
    probabilities = client.post("/predict", json={"inputs": CANARY}).json()
    flush(client)
    assert rows_with(database, CANARY) == []
    assert files_with(settings.data_dir, CANARY) == []
    first, second, third = kept_predictions(database)
    assert first.prediction_id == second.prediction_id == UUID(hex=sent.headers[HEADER])
    assert (first.position, second.position, first.texts, third.texts) == (0, 1, 2, 1)
    assert (first.model, first.number, first.task, first.answer) == (
        *("sentiment", 1, "single_label", "good"),
    )
    expected = {each["label"]: pytest.approx(each["score"], abs=1e-6) for each in probabilities}
    assert first.scores == expected  # probabilities, though the request wanted logits
    assert first.confidence == {"": expected["good"]}
    assert first.text_hash == third.text_hash != second.text_hash
    assert (first.text, first.text_pair, first.first_hash, first.sampled_at) == (None,) * 4
    assert first.created_at == pytest.approx(time.time(), abs=60)


def test_texts_are_kept_as_the_model_read_them(
    keeping: TestClient, publish: Publish, database: Database
) -> None:
    publish()
    for path, body in REQUESTS:
        assert keeping.post(path, json=body).status_code == 200
    flush(keeping)
    rows = kept_predictions(database)
    assert [row.text for row in rows].count(CANARY) == len(REQUESTS) + 1
    vertex = [row for row in rows if row.texts == 3]
    assert [(row.position, row.text) for row in vertex] == [(0, CANARY), (1, "a"), (2, CANARY)]
    assert [row.abstained for row in rows].count(True) == 1
    assert "loraworks_traffic_kept_total 14.0" in keeping.get("/metrics").text


def test_other_tasks(
    keeping: TestClient, publish: Publish, database: Database, tmp_path: Path
) -> None:
    publish("topics", artifact=make_multi_label_artifact(tmp_path / "a"))
    publish("stars", artifact=make_regression_artifact(tmp_path / "b", pairs=True))
    publish("mails", artifact=make_several_targets_artifact(tmp_path / "c"))
    labels = {each["label"]: each for each in _predict(keeping, "topics", "fine")}
    number = _predict(keeping, "stars", {"text": "a query", "text_pair": "a film"})[0]["score"]
    several = _predict(keeping, "mails", "hello")
    keeping.post("/models/mails/predict", params={"target": "topic"}, json={"inputs": "hello"})
    reranked = keeping.post(
        "/models/stars/rerank", json={"query": "a query", "texts": ["a film", "b"]}
    )
    assert reranked.status_code == 200, reranked.text
    body = {"model": "topics", "input": "fine"}
    moderated = keeping.post("/openai/v1/moderations", json=body)
    assert moderated.status_code == 200, moderated.text
    flush(keeping)
    topic, star, mail, mail_topic, first, second, category = kept_predictions(database)
    ids = [first.prediction_id, second.prediction_id, category.prediction_id]
    assert ids == [UUID(hex=each.headers[HEADER]) for each in (reranked, reranked, moderated)]
    assert (topic.task, topic.answer) == ("multi_label", '["acting"]')
    expected = math.prod(
        each["score"] if each["predicted"] else 1 - each["score"] for each in labels.values()
    )
    assert topic.confidence == {"": pytest.approx(expected)}
    assert (star.text, star.text_pair, float(star.answer)) == ("a query", "a film", number)
    assert star.confidence == {}
    assert len({star.text_hash, star.first_hash, star.second_hash}) == 3
    assert first.text_hash == star.text_hash
    assert (second.first_hash, second.position) == (star.first_hash, 1)
    assert (mail.task, mail.target) == ("several_targets", None)
    flags = sorted(each["label"] for each in several["flags"] if each["predicted"])
    stars = several["stars"][0]["score"]
    assert mail.answer == f'{{"flags": {flags}, "stars": {stars!r}, "topic": "refund"}}'.replace(
        "'", '"'
    )
    assert mail.confidence.keys() == {"flags", "topic"}
    assert mail.scores["topic/refund"] == pytest.approx(several["topic"][0]["score"], abs=1e-6)
    assert (mail_topic.task, mail_topic.target, mail_topic.answer) == (
        *("single_label", "topic", "refund"),
    )
    assert counts(database)["mails", 1, "label", "topic/refund"] == 2
    assert [counts(database)["mails", 1, "text", asked] for asked in ("", "topic")] == [1, 1]
    assert ("stars", 1, "label", "value") not in counts(database)


def _predict(client: TestClient, model: str, inputs: Any) -> Any:
    sent = client.post(f"/models/{model}/predict", json={"inputs": inputs})
    assert sent.status_code == 200, sent.text
    return sent.json()


# -- The recorder by itself ------------------------------------------------------------------------

NewRecorder = Callable[..., TrafficRecorder]
Outage = Callable[[Exception], AbstractContextManager[None]]
GONE = OperationalError("BEGIN", {}, Exception("the server is gone"))


class Numbers(list[int]):
    """Numbers of texts that were reported."""

    def __call__(self, number: int) -> None:
        self.append(number)


@pytest.fixture
def kept() -> Numbers:
    return Numbers()


@pytest.fixture
def dropped() -> Numbers:
    return Numbers()


@pytest.fixture
def new_recorder(
    settings: Settings,
    database: Database,
    kept: Numbers,
    dropped: Numbers,
    monkeypatch: pytest.MonkeyPatch,
) -> NewRecorder:
    """Makes recorders that write only when they are flushed or closed."""
    monkeypatch.setattr(recorder_module, "WRITE_SECONDS", 3600.0)

    def make(**changes: Any) -> TrafficRecorder:
        changed = settings.model_copy(update={"keep_traffic": "texts", **changes})
        return TrafficRecorder(database, changed, on_kept=kept, on_dropped=dropped)

    return make


def answered(texts: Sequence[str]) -> AnsweredRequest:
    return AnsweredRequest(
        prediction_id=new_id(),
        position=0,
        texts_in_request=len(texts),
        version="sentiment:1",
        predicted=OutputTaskTypes("single_label", {}),
        target=None,
        texts=texts,
        rows=[[DecodedOutput("good", 0.9), DecodedOutput("bad", 0.1)]] * len(texts),
        abstained=[False] * len(texts),
    )


def test_counts_name_the_only_target_that_was_asked_for(
    new_recorder: NewRecorder, database: Database
) -> None:
    recorder = new_recorder(keep_traffic="off")
    one = replace(answered(["a", "b", "c"]), target="topic", abstained=[True, False, False])
    recorder.record(one)
    recorder.close()
    assert counts(database) == {
        ("sentiment", 1, "text", "topic"): 3,
        ("sentiment", 1, "abstained", "topic"): 1,
        ("sentiment", 1, "label", "topic/good"): 2,
    }


def test_a_share_is_a_fair_sample(new_recorder: NewRecorder, database: Database) -> None:
    """Within four standard errors of the binomial distribution, in each half of a request."""
    recorder = new_recorder(keep_traffic_share=0.2)
    for _ in range(200):
        recorder.record(answered([f"text {i}" for i in range(20)]))
    recorder.close()
    rows = kept_predictions(database)
    for half in (0, 1):
        found = sum(row.position // 10 == half for row in rows)
        assert found == pytest.approx(400, abs=4 * math.sqrt(2000 * 0.2 * 0.8))
    assert counts(database)["sentiment", 1, "label", "good"] == 4000  # all are counted


def test_share_of_nothing_needs_no_pepper(new_recorder: NewRecorder, settings: Settings) -> None:
    recorder = new_recorder(keep_traffic_share=0.0)
    recorder.record(answered(["a"]))
    recorder.close()
    assert not recorder.keeps_scores
    assert not (settings.data_dir / "pepper").exists()


def test_share_of_nothing_needs_no_probabilities(
    serving: Serving, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish()
    client = serving(keep_traffic="scores", keep_traffic_share=0.0)
    body = {"inputs": "a", "raw_scores": True}
    client.post("/predict", json=body).raise_for_status()
    decode, functions = LoadedEncoderModel.decode, []

    def spy(model: LoadedEncoderModel, computed: Any, function: Any, target: Any) -> Any:
        functions.append(function)
        return decode(model, computed, function, target)

    monkeypatch.setattr(LoadedEncoderModel, "decode", spy)
    client.post("/predict", json=body).raise_for_status()
    assert functions == ["none"]


@pytest.mark.parametrize(
    ("limit", "value"),
    [("MAX_QUEUED_TEXTS", 5), ("MAX_QUEUED_CHARACTERS", 5), ("MAX_QUEUED_OUTPUTS", 10)],
)
def test_a_full_queue_drops_and_counts(
    limit: str,
    value: int,
    new_recorder: NewRecorder,
    dropped: Numbers,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recorder_module, limit, value)
    recorder = new_recorder()
    for _ in range(3):
        recorder.record(answered(["a", "b"]))
    assert dropped == [2]
    recorder.flush()
    recorder.record(answered(["a", "b"]))  # there is room again
    recorder.close()
    assert (len(kept_predictions(database)), dropped) == (6, [2])


@pytest.fixture
def outage(database: Database) -> Outage:
    """Lets transactions fail with an error."""

    @contextmanager
    def fail(error: Exception) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(database), "write", Mock(side_effect=error))
            yield

    return fail


@pytest.mark.parametrize("limit", ["MAX_QUEUED_TEXTS", "MAX_QUEUED_CHARACTERS"])
def test_rows_that_wait_for_the_database_count_as_queued(
    limit: str,
    new_recorder: NewRecorder,
    dropped: Numbers,
    database: Database,
    outage: Outage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recorder_module, limit, 5)
    recorder = new_recorder()
    with outage(GONE):
        for _ in range(3):
            recorder.record(answered(["a", "b"]))
            recorder.flush()
    assert dropped == [2]
    recorder.flush()
    recorder.record(answered(["a", "b"]))  # there is room again
    recorder.close()
    assert (len(kept_predictions(database)), dropped) == (6, [2])


@pytest.mark.parametrize("error", [GONE, TimeoutError("all connections are busy")])
def test_an_outage_loses_nothing_that_fits(
    error: Exception,
    new_recorder: NewRecorder,
    kept: Numbers,
    dropped: Numbers,
    database: Database,
    outage: Outage,
) -> None:
    recorder = new_recorder()
    recorder.record(answered(["a"]))
    with outage(error), structlog.testing.capture_logs() as logs:
        recorder.flush()
    assert [(each["event"], each["reason"]) for each in logs] == [
        ("traffic_not_written", str(error).partition("\n")[0])
    ]
    recorder.record(answered(["b"]))
    recorder.close()
    assert [row.text for row in kept_predictions(database)] == ["a", "b"]
    assert counts(database)["sentiment", 1, "text", ""] == 2
    assert (sum(kept), dropped) == (2, [])


def test_a_commit_without_an_answer_loses_nothing(
    new_recorder: NewRecorder,
    kept: Numbers,
    dropped: Numbers,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorder = new_recorder()
    write = type(database).write

    @contextmanager
    def lose_answer(of: Database) -> Iterator[Session]:
        with write(of) as session:
            yield session
        raise OperationalError("COMMIT", {}, Exception("the server is gone"))

    recorder.record(answered(["a", "b"]))
    with monkeypatch.context() as patch:
        patch.setattr(type(database), "write", lose_answer)
        recorder.flush()
    recorder.record(answered(["c"]))
    recorder.close()
    assert [row.text for row in kept_predictions(database)] == ["a", "b", "c"]
    assert (sum(kept), dropped) == (3, [])


def test_rows_that_cannot_be_stored_do_not_block_others(
    new_recorder: NewRecorder, dropped: Numbers, database: Database
) -> None:
    recorder = new_recorder()
    recorder.record(answered(["a"]))
    recorder.flush()
    recorder.record(replace(answered(["not null"]), texts_in_request=cast(int, None)))
    recorder.flush()
    recorder.record(answered(["b"]))
    recorder.close()
    assert dropped == [1]
    assert [row.text for row in kept_predictions(database)] == ["a", "b"]


def test_large_batches(new_recorder: NewRecorder, database: Database) -> None:
    recorder = new_recorder()
    for _ in range(3):
        recorder.record(answered([f"{i}" for i in range(400)]))
    recorder.close()
    assert len(kept_predictions(database)) == 1200
