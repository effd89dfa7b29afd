"""Nearest training examples in explanations, and predictions that abstain on unfamiliar texts."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from fastapi import FastAPI
from scipy.sparse import csr_matrix
from sqlalchemy import update
from starlette.testclient import TestClient

from app.database.base import new_id
from app.database.engines import Database
from app.datasets.files import FileInspector
from app.http.dependencies import get_app_state
from app.queue.enums import JobState
from app.registry.service import ResolvedModel, add_version, move_alias
from app.registry.tables import ModelVersion
from app.resources import Resources
from app.serving import nearest_examples, service
from app.serving.nearest_examples import ExampleIndexCache
from lora_core import manifest
from lora_core.errors.data import DataTooLarge
from lora_core.inference.predictor import Predictor
from lora_core.nearest_examples import VECTORS_FILE, ExampleIndex, SparseVectors
from lora_core.samples import reviews
from lora_core.specs.data import Split
from lora_core.specs.train import TrainSpec
from lora_core.training import linear
from tests.app.serving.conftest import Publish, RecordThreads
from tests.example_index import add_example_index
from tests.job_rows import MANIFEST, SPEC, add_job
from tests.kept_predictions import counts
from tests.recording_observer import RecordingObserver
from tests.stored_artifact import store_artifact
from tests.tiny_artifact import (
    make_artifact,
    make_multi_label_artifact,
    make_regression_artifact,
    make_several_targets_artifact,
)

TEXTS = (
    "a good film",
    "a dull plot",
    "the story was fine",
    "a very bad end",
    "good music",
    "x y z",
)
LABELS = ("good", "bad", "good", "bad", "good", "bad")
# With 99 held-out texts, the lowest similarity is the threshold, and 1% is expected below it.
HIGH, LOW = [0.9985] * 99, [-0.999] * 99
Explain = Callable[..., dict[str, Any]]


def upload(client: TestClient, texts: tuple[str, ...] = TEXTS, **options: str) -> dict[str, Any]:
    lines = "".join(
        json.dumps({"text": text, "label": label}) + "\n"
        for text, label in zip(texts, LABELS, strict=False)
    )
    response = client.post(
        "/v1/datasets", files={"file": ("texts.jsonl", lines.encode())}, data=options
    )
    assert response.status_code == 201, response.text
    stored: dict[str, Any] = response.json()
    return stored


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine, a child process may take longer than users are kept waiting."""
    monkeypatch.setattr(nearest_examples, "TEXTS_TIMEOUT_SECONDS", 60.0)


@pytest.fixture
def train(resources: Resources, tmp_path: Path) -> Callable[..., UUID]:
    """Publishes a model with the examples `TEXTS` as if a job had made it, and returns the job."""

    def train(
        artifact: Path | None = None,
        *,
        labels: tuple[str, ...] = LABELS,
        held_out: list[float] = LOW,
        copies: int = 1,
        dataset_ids: dict[str, str] | None = None,
        source: str = "elsewhere",
    ) -> UUID:
        directory = artifact or make_artifact(tmp_path / new_id().hex)
        add_example_index(directory, TEXTS * copies, labels * copies, held_out=held_out)
        job_id = add_job(
            resources.database,
            state=JobState.SUCCEEDED,
            finished_at=1.0,
            dataset_ids=dataset_ids or {},
            spec={**SPEC, "data": {**SPEC["data"], "source": source}},
        )
        stored = store_artifact(resources, directory, f"jobs/{job_id}/a1", job_id=job_id)
        with resources.database.write() as session:
            version = add_version(session, name="sentiment", artifact=stored, manifest=MANIFEST)
            move_alias(session, name="sentiment", alias="production", number=version.number)
        return job_id

    return train


def explain(client: TestClient, text: Any = TEXTS[1], query: str = "", **more: Any) -> Any:
    response = client.post(f"/v1/models/sentiment/explain{query}", json={"inputs": text, **more})
    assert response.status_code == 200, response.text
    return response.json()


def predict(client: TestClient, inputs: Any, **more: Any) -> Any:
    return client.post("/predict", json={"inputs": inputs, "abstain_unfamiliar": True, **more})


# -- Nearest examples -----------------------------------------------------------------------------


def test_explanation_shows_five_examples_with_their_texts(
    client: TestClient, train: Callable[..., UUID]
) -> None:
    train(dataset_ids={"all": upload(client)["id"]})
    for row, text in enumerate(TEXTS, start=1):
        explanation = explain(client, text)
        nearest = explanation["nearest"]
        assert len(nearest) == nearest_examples.SHOWN
        assert nearest[0] == {
            "row": row,
            "label": LABELS[row - 1],
            "similarity": pytest.approx(1, abs=0.005),
            "text": text,
        }
        similarities = [each["similarity"] for each in nearest]
        assert similarities == sorted(similarities, reverse=True)
        assert all(each["text"] == TEXTS[each["row"] - 1] for each in nearest)
        familiarity = explanation["familiarity"]
        assert familiarity == {
            "unfamiliar": False,
            "similarity": similarities[4],
            "threshold": pytest.approx(-0.999),
            "held_out_texts": 99,
            "expected_share": 0.01,
        }
    assert len(explain(client, TEXTS[0], label="bad")["words"]) == 3


def test_similarity_is_that_of_the_served_states(
    client: TestClient, train: Callable[..., UUID], tmp_path: Path
) -> None:
    artifact = make_artifact(tmp_path / "model")
    predictor = Predictor.load(artifact)
    states = predictor.states(predictor.encode(TEXTS))
    train(artifact)
    text = "not a film at all"
    [state] = predictor.states(predictor.encode([text]))
    expected = sorted(
        (float(v @ state / ((v @ v) ** 0.5 * (state @ state) ** 0.5)) for v in states),
        reverse=True,
    )
    found = [each["similarity"] for each in explain(client, text)["nearest"]]
    assert found == pytest.approx(expected[:5], abs=0.005)


def test_long_text_is_compared_as_the_mean_of_its_windows(
    client: TestClient, train: Callable[..., UUID], tmp_path: Path
) -> None:
    artifact = make_artifact(tmp_path / "windows", windows=True, max_length=16)
    predictor = Predictor.load(artifact)
    train(artifact)
    text = "the plot was dull and the cast was fine " * 4
    index = get_index(client)
    [expected] = index.kth_neighbor_similarities(predictor.states(predictor.encode([text])))
    assert explain(client, text)["familiarity"]["similarity"] == pytest.approx(expected, abs=0.01)


def get_index(client: TestClient) -> Any:
    """Explain something, and return the index that is in memory then."""
    explain(client)
    app: FastAPI = client.app  # type: ignore[assignment]
    [index] = get_app_state(app).serving.example_indexes._loaded._values.values()
    return index


@pytest.mark.parametrize(
    ("make", "labels", "field", "expected"),
    [
        (make_multi_label_artifact, ('["acting", "plot"]',) * 6, "labels", ["acting", "plot"]),
        (make_regression_artifact, ("3.5",) * 6, "value", 3.5),
    ],
)
def test_labels_have_the_form_of_the_task(
    client: TestClient,
    train: Callable[..., UUID],
    tmp_path: Path,
    make: Callable[[Path], Path],
    labels: tuple[str, ...],
    field: str,
    expected: Any,
) -> None:
    train(make(tmp_path / "model"), labels=labels)
    first = explain(client)["nearest"][0]
    assert first[field] == expected
    assert {"label", "labels", "value"} & first.keys() == {field}


def test_label_of_one_of_several_targets(
    client: TestClient, train: Callable[..., UUID], tmp_path: Path
) -> None:
    label = json.dumps({"flags": ["rude"], "stars": 4.0, "topic": "billing"})
    train(make_several_targets_artifact(tmp_path / "model"), labels=(label,) * 6)
    for target, field, expected in (
        ("flags", "labels", ["rude"]),
        ("stars", "value", 4.0),
        ("topic", "label", "billing"),
    ):
        first = explain(client, query=f"?target={target}")["nearest"][0]
        assert first[field] == expected


def test_examples_of_a_linear_model(
    client: TestClient, resources: Resources, tmp_path: Path
) -> None:
    texts = [f"{'great' if i % 2 else 'awful'} parcel number{i} came" for i in range(300)]
    source = tmp_path / "texts.csv"
    rows = [f"{text},{'good' if i % 2 else 'bad'}" for i, text in enumerate(texts)]
    source.write_text("\n".join(["text,label", *rows]) + "\n")
    with source.open("rb") as file:
        dataset = client.post("/v1/datasets", files={"file": ("texts.csv", file)}).json()
    body = {"method": {"type": "linear"}, "data": {"source": str(source)}}
    out, observer = tmp_path / "out", RecordingObserver()
    linear.train_linear(
        TrainSpec.model_validate(body), out_dir=out, observer=observer, stop=observer
    )
    job_id = add_job(
        resources.database,
        state=JobState.SUCCEEDED,
        finished_at=1.0,
        dataset_ids={"all": dataset["id"]},
    )
    stored = store_artifact(resources, out, f"jobs/{job_id}/a1", job_id=job_id)
    with resources.database.write() as session:
        add_version(session, name="sentiment", artifact=stored, manifest=MANIFEST)
        move_alias(session, name="sentiment", alias="production", number=1)
    explanation = explain(client, "an awful parcel came")
    for each in explanation["nearest"]:
        assert each["text"] == texts[each["row"] - 1]
        assert each["label"] == ("good" if each["row"] % 2 == 0 else "bad")
    assert explanation["familiarity"]["unfamiliar"] is False
    assert explain(client, "quantum chromodynamics")["familiarity"] == {
        **explanation["familiarity"],
        "unfamiliar": True,
        "similarity": 0,
    }
    assert predict(client, ["an awful parcel came", "quantum"]).json()[1] == []


# -- Texts that are not shown ---------------------------------------------------------------------


def hidden(explanation: dict[str, Any]) -> set[str]:
    assert all(each["row"] and each["label"] for each in explanation["nearest"])
    assert not any("text" in each for each in explanation["nearest"])
    return {each["hidden"] for each in explanation["nearest"]}


def test_key_without_the_scope_sees_rows_and_labels(
    client: TestClient, anonymous_client: TestClient, new_key: Any, train: Callable[..., UUID]
) -> None:
    train(dataset_ids={"all": upload(client)["id"]})

    def explain_as(*scopes: str) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {new_key(*scopes).text}"}
        response = anonymous_client.post(
            "/v1/models/sentiment/explain", json={"inputs": TEXTS[0]}, headers=headers
        )
        found: dict[str, Any] = response.json()
        return found

    assert hidden(explain_as("predict")) == {"scope"}
    assert explain_as("predict", "datasets:read")["nearest"][0]["text"] == TEXTS[0]


def test_texts_of_a_deleted_dataset_are_hidden(
    client: TestClient, train: Callable[..., UUID]
) -> None:
    dataset = upload(client)
    train(dataset_ids={"train": dataset["id"]})
    assert explain(client)["nearest"][0]["text"] == TEXTS[1]
    assert client.delete(f"/v1/datasets/{dataset['ref']}").status_code == 204
    assert hidden(explain(client)) == {"deleted"}


def test_texts_of_a_deleted_job_are_hidden(
    client: TestClient, train: Callable[..., UUID], database: Database
) -> None:
    train()
    with database.write() as session:
        session.execute(update(ModelVersion).values(job_id=new_id()))
    assert hidden(explain(client)) == {"deleted"}


def test_texts_from_elsewhere_are_hidden(client: TestClient, train: Callable[..., UUID]) -> None:
    train(source="hub:stanfordnlp/imdb")
    assert hidden(explain(client)) == {"elsewhere"}


def test_texts_of_a_sample_are_shown(
    client: TestClient, train: Callable[..., UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reviews, "is_available", lambda: True)
    monkeypatch.setattr(
        reviews,
        "load_reviews",
        lambda name: [(f"{name}: {text}", "x") for text in TEXTS],
    )
    train(source="rotten-tomatoes")
    assert explain(client)["nearest"][0]["text"] == f"rotten-tomatoes: {TEXTS[1]}"


def test_forgotten_text_is_hidden(client: TestClient, train: Callable[..., UUID]) -> None:
    train(dataset_ids={"all": upload(client)["id"]})
    assert explain(client)["nearest"][0]["text"] == TEXTS[1]
    assert client.post("/v1/forget", json={"text": TEXTS[1]}).status_code == 200
    first, *others = explain(client)["nearest"]
    assert (first["row"], first["hidden"]) == (2, "forgotten")
    assert "text" not in first
    assert all("text" in each for each in others)


def test_long_texts_are_cut(client: TestClient, train: Callable[..., UUID]) -> None:
    long = "word " * 1000
    train(dataset_ids={"all": upload(client, (TEXTS[0], long, *TEXTS[2:]))["id"]})
    shown = {each["row"]: each["text"] for each in explain(client)["nearest"]}
    assert shown[2] == long[: nearest_examples.MAX_CHARACTERS]


def test_unreadable_file_hides_texts_until_it_can_be_read(
    client: TestClient, train: Callable[..., UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    train(dataset_ids={"all": upload(client)["id"]})

    def fail(*_: Any) -> None:
        raise DataTooLarge(file="texts.jsonl", what="the time needed to read it", limit="1 s")

    with monkeypatch.context() as patch:
        patch.setattr(FileInspector, "extract_texts_to_jsonl", fail)
        assert hidden(explain(client)) == {"unavailable"}
    assert hidden(explain(client)) == {"unavailable"}  # it is not tried again at once
    monkeypatch.setattr(nearest_examples, "RETRY_SECONDS", 0)
    assert explain(client)["nearest"][0]["text"] == TEXTS[1]


def test_file_is_read_once_for_many_explanations(
    client: TestClient, train: Callable[..., UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Explained texts have different neighbors, but wait for the same file, in one thread."""
    train(dataset_ids={"all": upload(client)["id"]})
    explain(client)  # loads the model
    app: FastAPI = client.app  # type: ignore[assignment]
    get_app_state(app).serving.training_texts._cache = nearest_examples._RecentlyUsed(1)
    extract_texts_to_jsonl = FileInspector.extract_texts_to_jsonl
    reads: list[Path] = []

    def slow(inspector: FileInspector, target: Path) -> None:
        reads.append(target)
        time.sleep(1)
        extract_texts_to_jsonl(inspector, target)

    monkeypatch.setattr(FileInspector, "extract_texts_to_jsonl", slow)
    with ThreadPoolExecutor(4) as threads:
        for explanation in threads.map(lambda text: explain(client, text), TEXTS[:4]):
            assert all("text" in each for each in explanation["nearest"])
    assert len(reads) == 1


def test_explanation_does_not_wait_for_a_large_file(
    client: TestClient, train: Callable[..., UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    train(dataset_ids={"all": upload(client)["id"]})
    app: FastAPI = client.app  # type: ignore[assignment]
    explain(client, "a film")  # loads the model
    get_app_state(app).serving.training_texts._cache = nearest_examples._RecentlyUsed(1)
    get_app_state(app).serving.training_texts._reads._timeout_seconds = 0.05
    extract_texts_to_jsonl = FileInspector.extract_texts_to_jsonl

    def slow(inspector: FileInspector, target: Path) -> None:
        time.sleep(1)
        extract_texts_to_jsonl(inspector, target)

    monkeypatch.setattr(FileInspector, "extract_texts_to_jsonl", slow)
    assert hidden(explain(client)) == {"unavailable"}
    get_app_state(app).serving.training_texts._reads._timeout_seconds = 20
    assert explain(client)["nearest"][0]["text"] == TEXTS[1]  # the reading went on


# -- Versions without examples --------------------------------------------------------------------


def test_older_version_explains_words_only(client: TestClient, publish: Publish) -> None:
    publish()
    explanation = explain(client, "a good film")
    assert (explanation["familiarity"], explanation["nearest"]) == (None, [])
    assert len(explanation["words"]) == 3
    response = predict(client, "a good film")
    assert (response.status_code, response.json()["code"]) == (422, "no_nearest_examples")
    assert "sentiment:1 has no training examples" in response.json()["error"]


def test_imported_version_has_no_examples(
    client: TestClient, publish: Publish, tmp_path: Path
) -> None:
    artifact = make_artifact(tmp_path / "model")
    add_example_index(artifact, TEXTS, LABELS, held_out=LOW)
    publish(artifact=artifact, imported=True)
    explanation = explain(client, "a good film")
    assert (explanation["familiarity"], explanation["nearest"]) == (None, [])
    assert predict(client, "a good film").json()["code"] == "no_nearest_examples"


def test_damaged_index_is_reported(
    client: TestClient, train: Callable[..., UUID], resources: Resources
) -> None:
    job_id = train()
    assert client.post("/predict", json={"inputs": "a film"}).status_code == 200
    file = resources.settings.data_dir.rglob(f"*{job_id}*/**/{VECTORS_FILE}")
    path = next(file)
    path.chmod(0o600)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    response = client.post("/v1/models/sentiment/explain", json={"inputs": "a film"})
    assert (response.status_code, response.json()["code"]) == (424, "artifact_corrupt")
    assert VECTORS_FILE in response.json()["detail"]
    assert client.post("/predict", json={"inputs": "a film"}).status_code == 200


def test_unreadable_index_is_reported(
    client: TestClient, train: Callable[..., UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    train()
    assert client.post("/predict", json={"inputs": "a film"}).status_code == 200

    def fail(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "denied")

    monkeypatch.setattr(manifest, "verify", fail)
    response = client.post("/v1/models/sentiment/explain", json={"inputs": "a film"})
    assert (response.status_code, response.json()["code"]) == (424, "model_unloadable")
    assert "PermissionError" in response.json()["detail"]


def test_index_is_loaded_until_the_deadline(
    client: TestClient, train: Callable[..., UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    train(held_out=HIGH)
    assert client.post("/predict", json={"inputs": "a film"}).status_code == 200
    read, released = ExampleIndexCache._read, Event()

    def slow(indexes: ExampleIndexCache, resolved: ResolvedModel) -> Any:
        released.wait(60)
        return read(indexes, resolved)

    monkeypatch.setattr(ExampleIndexCache, "_read", slow)
    body = {"inputs": "unlike", "abstain_unfamiliar": True}
    late = client.post("/predict", json=body, headers={"X-Request-Timeout": "2"})
    assert (late.status_code, late.json()["code"]) == (504, "deadline_passed")
    released.set()
    assert client.post("/predict", json=body).json() == []


# -- Unfamiliar texts -----------------------------------------------------------------------------


def test_prediction_abstains_on_unfamiliar_texts(
    client: TestClient, train: Callable[..., UUID]
) -> None:
    train(held_out=HIGH, copies=nearest_examples.SHOWN)
    inputs = ["unlike", *TEXTS, "other words"]
    plain = client.post("/predict", json={"inputs": inputs})
    assert "X-Unfamiliar" not in plain.headers
    response = predict(client, inputs)
    rows = response.json()
    assert [bool(row) for row in rows] == [False, *[True] * len(TEXTS), False]
    for row, expected in zip(rows[1:-1], plain.json()[1:-1], strict=True):
        assert row == [{**answer, "score": pytest.approx(answer["score"])} for answer in expected]
    assert response.headers["X-Unfamiliar"] == response.headers["X-Abstained"] == "2"
    assert explain(client, "unlike")["familiarity"]["unfamiliar"] is True
    assert predict(client, "unlike").json() == []
    assert "X-Unfamiliar" not in predict(client, TEXTS[0]).headers


def test_abstaining_needs_no_thread_of_other_routes(
    client: TestClient, train: Callable[..., UUID], record_threads: RecordThreads
) -> None:
    train(held_out=HIGH)
    threads = record_threads(service, "flag_unfamiliar_texts")
    assert predict(client, "unlike").json() == []
    assert [name.partition("_")[0] for name in threads] == ["tokenize"]


def test_both_reasons_to_abstain_are_counted(
    client: TestClient, train: Callable[..., UUID]
) -> None:
    train(held_out=HIGH, copies=nearest_examples.SHOWN)
    response = predict(client, ["unlike", TEXTS[0]], abstain_below=1.0)
    assert response.json() == [[], []]
    assert (response.headers["X-Unfamiliar"], response.headers["X-Abstained"]) == ("1", "2")


@pytest.mark.parametrize("make", [make_multi_label_artifact, make_regression_artifact])
def test_models_of_other_tasks_abstain_too(
    client: TestClient, train: Callable[..., UUID], tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    train(make(tmp_path / "model"), labels=('["acting"]',) * 6, held_out=HIGH)
    assert predict(client, ["unlike", "other words"]).json() == [[], []]


def test_no_target_has_an_answer(
    client: TestClient, train: Callable[..., UUID], tmp_path: Path
) -> None:
    train(make_several_targets_artifact(tmp_path / "model"), held_out=HIGH)
    assert predict(client, "unlike").json() == {"flags": [], "stars": [], "topic": []}


def test_all_predict_routes_take_the_option(client: TestClient, train: Callable[..., UUID]) -> None:
    train(held_out=HIGH)
    body = {"inputs": "unlike", "abstain_unfamiliar": True}
    assert client.post("/models/sentiment/predict", json=body).json() == []
    vertex = client.post("/vertex", json={"instances": [body, {"inputs": "unlike"}]})
    assert [bool(row) for row in vertex.json()["predictions"]] == [False, True]
    assert vertex.headers["X-Unfamiliar"] == "1"
    hub = client.post("/predict", json={**body, "parameters": {}})
    assert hub.json() == [[]]


def test_few_held_out_texts(client: TestClient, train: Callable[..., UUID]) -> None:
    train(held_out=[0.5] * 19)
    familiarity = explain(client)["familiarity"]
    assert (familiarity["unfamiliar"], familiarity["threshold"]) == (None, None)
    assert familiarity["held_out_texts"] == 19
    response = predict(client, "a film")
    assert (response.status_code, response.json()["code"]) == (422, "too_few_held_out_texts")
    assert "had 19 texts in the validation split" in response.json()["error"]
    assert "20 are needed" in response.json()["error"]


def test_message_says_which_held_out_texts_are_missing() -> None:
    vectors = SparseVectors.from_states(csr_matrix(np.eye(2)))
    index = ExampleIndex((1, 2), ("a", "b"), vectors, Split.TEST, np.zeros(99, dtype=np.float32))
    assert nearest_examples._needed(index) == (
        "some that have words in common with five training examples are"
    )
    few = replace(index, held_out=np.ones(19, dtype=np.float32))
    assert nearest_examples._needed(few) == "20 are"


@pytest.mark.parametrize("value", ["yes", 1, 0.5, None])
def test_other_values_are_rejected(
    client: TestClient, train: Callable[..., UUID], value: Any
) -> None:
    train()
    body = {"inputs": "a film", "abstain_unfamiliar": value}
    response = client.post("/predict", json=body)
    assert response.status_code == 422
    assert "abstain_unfamiliar" in response.json()["error"]


def test_abstention_is_counted_as_traffic(client: TestClient, train: Callable[..., UUID]) -> None:
    train(held_out=HIGH, copies=nearest_examples.SHOWN)
    predict(client, ["unlike", TEXTS[0]])
    app: FastAPI = client.app  # type: ignore[assignment]
    get_app_state(app).traffic.flush()
    counted = counts(get_app_state(app).resources.database)
    assert counted["sentiment", 1, "text", ""] == 2
    assert counted["sentiment", 1, "abstained", ""] == 1


def test_deleted_rows_are_not_read(client: TestClient, train: Callable[..., UUID]) -> None:
    """A dataset of fewer rows than the index cannot be that of the job, and does no harm."""
    train(dataset_ids={"all": upload(client, TEXTS[:2])["id"]})
    by_row = {each["row"]: each for each in explain(client)["nearest"]}
    assert by_row[2]["text"] == TEXTS[1]
    assert {each["hidden"] for row, each in by_row.items() if row > 2} == {"unavailable"}


def test_indexes_in_memory_are_bounded() -> None:
    recent: nearest_examples._RecentlyUsed[int] = nearest_examples._RecentlyUsed(2)
    for i in range(3):
        recent.put(str(i), i)
        recent.get("0")
    assert (recent.get("0"), recent.get("1"), recent.get("2")) == (0, None, 2)
