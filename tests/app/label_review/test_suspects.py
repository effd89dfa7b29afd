"""Suspect labels: computed once, read later, without those that were kept."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import func, select, update
from starlette.testclient import TestClient

from app.database.engines import Database
from app.datasets.files import FileInspector
from app.label_review.tables import ConfirmedLabelDigest, StoredSuspects
from lora_core.data.label_review_schemas import text_label_digest
from lora_core.data.rows import TextRow
from tests.app.label_review.conftest import WRONG, WRONG_LABELS, Upload
from tests.lora_core.data.test_suspect_rows import numbers, texts


def listed(client: TestClient, ref: str = "a", **query: Any) -> dict[str, Any]:
    answer = client.get(f"/v1/datasets/{ref}/suspects", params=query)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def count(database: Database, table: type[Any]) -> int:
    with database.read() as session:
        return session.scalars(select(func.count()).select_from(table)).one()


@pytest.mark.usefixtures("in_child")
def test_wrong_labels_are_listed(client: TestClient, upload: Upload) -> None:
    upload(WRONG_LABELS)
    found = listed(client)
    assert (found["ref"], found["task"], found["target"]) == ("a:1", "single_label", None)
    assert (found["rows"], found["checked"], found["kept"]) == (120, 120, 0)
    assert 0.9 < found["agreement"] < 1
    assert {each["row"] for each in found["data"][:3]} == set(WRONG)
    for each in found["data"][:3]:
        assert {each["given"], each["proposed"]} == {"pos", "neg"}
        assert 0.5 < each["confidence"] <= 1
        assert {near["label"] for near in each["nearest"]} == {each["proposed"]}
        assert "text_pair" not in each
    assert listed(client, limit=1)["data"] == found["data"][:1]


def test_they_are_computed_once(
    client: TestClient, upload: Upload, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(WRONG_LABELS)
    first = listed(client)

    def compute(*_: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(FileInspector, "suspects", compute)
    assert listed(client, "a:1") == first


def test_reports_of_older_methods_are_computed_again(
    client: TestClient, upload: Upload, database: Database
) -> None:
    upload(WRONG_LABELS)
    first = listed(client)
    with database.write() as session:
        session.execute(update(StoredSuspects).values(report={"version": 0}, created_at=1.0))
    assert listed(client) == first
    with database.read() as session:  # so that retention does not delete it too early
        assert session.scalars(select(StoredSuspects.created_at)).one() > 1.0


def test_kinds_of_labels(client: TestClient, upload: Upload) -> None:
    sets = "".join(
        json.dumps({"text": row.text, "label": ["x", row.label] if row.number % 3 else []}) + "\n"
        for row in texts()
    )
    upload(sets, "sets.jsonl", task="multi_label")
    for each in listed(client, "sets")["data"]:
        assert set(each["names"]) == set(each["given"]) ^ set(each["proposed"])
    rows = numbers()
    rows[10] = type(rows[10])(11, rows[10].text, "99.5")
    numbered = "text,label\n" + "".join(f"{row.text},{row.label}\n" for row in rows)
    upload(numbered, "numbers.csv", task="regression")
    found = listed(client, "numbers")
    assert found["spread"] > 0
    assert found["agreement"] is None
    assert (found["data"][0]["row"], found["data"][0]["given"]) == (11, 99.5)
    assert found["data"][0]["confidence"] is None


def test_each_of_several_targets_has_its_own(client: TestClient, upload: Upload) -> None:
    rows = [line.rsplit(",", 1) for line in WRONG_LABELS.splitlines()[1:]]
    right = {row.number: row.label for row in texts()}
    content = "text,mood,second\n" + "".join(
        f"{text},{right[i]},{label}\n" for i, (text, label) in enumerate(rows, 1)
    )
    upload(content, targets="mood,second")
    assert listed(client, target="mood")["data"] == []
    found = listed(client, target="second")
    assert (found["target"], {each["row"] for each in found["data"][:3]}) == ("second", set(WRONG))


def test_errors(client: TestClient, upload: Upload) -> None:
    targets = "text,a,b\n" + "".join(f"text {i},{i % 2},{i % 3}\n" for i in range(20))
    upload(WRONG_LABELS, name="one")
    upload(WRONG_LABELS, name="none", purpose="predict")
    upload(targets, name="two", targets="a,b")
    for ref, query, code in (
        ("none", {}, "dataset_without_labels"),
        ("one", {"target": "mood"}, "dataset_target_not_found"),
        ("two", {}, "dataset_target_required"),
        ("two", {"target": "mood"}, "dataset_target_not_found"),
        ("one", {"limit": 0}, "validation_failed"),
        ("one", {"limit": 501}, "validation_failed"),
    ):
        answer = client.get(f"/v1/datasets/{ref}/suspects", params=query)
        assert (answer.status_code, answer.json()["code"]) == (422, code)
        assert answer.json()["detail"].endswith(".")


def test_unknown_and_deleted_datasets(client: TestClient, upload: Upload) -> None:
    assert client.get("/v1/datasets/none/suspects").json()["code"] == "dataset_not_found"
    ref = upload(WRONG_LABELS).json()["id"]
    client.delete(f"/v1/datasets/{ref}")
    assert client.get(f"/v1/datasets/{ref}/suspects").status_code == 404


def test_deletion_of_a_dataset(client: TestClient, upload: Upload, database: Database) -> None:
    """Its texts are deleted with it; what was kept stays until the last version is deleted."""
    upload(WRONG_LABELS)
    listed(client)
    assert client.post("/v1/datasets/a:1/corrections", json={"keep": [4]}).status_code == 200
    upload(WRONG_LABELS + "more,pos\n")
    assert (count(database, StoredSuspects), count(database, ConfirmedLabelDigest)) == (1, 1)
    assert client.delete("/v1/datasets/a:1").status_code == 204
    assert (count(database, StoredSuspects), count(database, ConfirmedLabelDigest)) == (0, 1)
    assert client.delete("/v1/datasets/a:2").status_code == 204
    assert count(database, ConfirmedLabelDigest) == 0


def test_kept_labels_are_keyed_hashes(
    client: TestClient, upload: Upload, database: Database
) -> None:
    """They outlive the version with the text, and the plain hash of a short text can be guessed."""
    upload(WRONG_LABELS)
    assert client.post("/v1/datasets/a:1/corrections", json={"keep": [4]}).status_code == 200
    text, label = WRONG_LABELS.splitlines()[4].rsplit(",", 1)
    row = TextRow(4, text, label)
    with database.read() as session:
        (digest,) = session.scalars(select(ConfirmedLabelDigest.digest))
    assert digest != text_label_digest(row, None, label)


def test_scopes(anonymous_client: TestClient, new_key: Callable[..., Any]) -> None:
    reader = {"Authorization": f"Bearer {new_key('datasets:read').text}"}
    other = {"Authorization": f"Bearer {new_key('jobs:read', 'datasets:write').text}"}
    path = "/v1/datasets/none"
    assert anonymous_client.get(f"{path}/suspects", headers=reader).status_code == 404
    assert anonymous_client.get(f"{path}/suspects", headers=other).status_code == 403
    assert anonymous_client.get(f"{path}/diff", headers=other).status_code == 403
    body = {"keep": [1]}
    sent = anonymous_client.post(f"{path}/corrections", json=body, headers=reader)
    assert sent.status_code == 403
    assert anonymous_client.post(f"{path}/corrections", json=body, headers=other).status_code == 404
