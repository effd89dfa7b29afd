"""Webhooks over HTTP."""

from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from starlette.testclient import TestClient

from app.auth.service import CreatedKey
from app.database.engines import Database
from app.settings import Settings
from app.webhooks import service
from app.webhooks.delivery import deliver_next
from tests.slow import on_both_databases
from tests.webhook_receiver import Receiver
from tests.webhook_rows import deliveries, endpoint

ROUTE = "/v1/webhooks"
URL = "https://example.com/events"
Json = dict[str, Any]


def create(client: TestClient, **body: Any) -> Json:
    sent = client.post(ROUTE, json={"url": URL, **body})
    assert sent.status_code == 201, sent.text
    made: Json = sent.json()
    return made


@on_both_databases
def test_create_show_list_delete(client: TestClient) -> None:
    sent = client.post(ROUTE, json={"url": URL})
    assert sent.status_code == 201, sent.text
    webhook = sent.json()
    assert sent.headers["Location"] == f"{ROUTE}/{webhook['id']}"
    assert webhook["secret"].startswith("whsec_")
    assert (webhook["url"], webhook["events"], webhook["enabled"]) == (URL, None, True)
    shown = client.get(sent.headers["Location"]).json()
    assert shown == {**webhook, "secret": None}
    other = create(client, description="mine", events=["job.failed", "job.failed"])
    assert (other["description"], other["events"]) == ("mine", ["job.failed"])
    assert other["secret"] != webhook["secret"]
    page = client.get(ROUTE, params={"limit": 1}).json()
    assert [each["id"] for each in page["data"]] == [other["id"]]
    page = client.get(ROUTE, params={"after": page["next"]}).json()
    assert page == {"data": [shown], "next": None}
    assert client.delete(f"{ROUTE}/{webhook['id']}").status_code == 204
    assert client.get(f"{ROUTE}/{webhook['id']}").json()["code"] == "webhook_not_found"


def test_one_idempotency_key_creates_one_webhook_and_saves_no_secret(client: TestClient) -> None:
    headers = {"Idempotency-Key": "once"}
    first = client.post(ROUTE, json={"url": URL}, headers=headers)
    again = client.post(ROUTE, json={"url": URL}, headers=headers)
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (201, "true")
    assert again.json() == {**first.json(), "secret": None}
    assert len(client.get(ROUTE).json()["data"]) == 1


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "validation_failed"),
        ({"url": None}, "validation_failed"),
        ({"url": ""}, "validation_failed"),
        ({"url": "https://example.com/" + "x" * 2048}, "validation_failed"),
        ({"url": URL, "events": []}, "validation_failed"),
        ({"url": URL, "events": ["job.started"]}, "validation_failed"),
        ({"url": URL, "events": "job.failed"}, "validation_failed"),
        ({"url": URL, "description": ""}, "validation_failed"),
        ({"url": URL, "description": "\x00"}, "validation_failed"),
        ({"url": URL, "secret": "whsec_mine"}, "validation_failed"),
        ({"url": "nonsense"}, "invalid_webhook_url"),
        ({"url": "https://a:b@example.com"}, "invalid_webhook_url"),
        ({"url": "http://example.com"}, "insecure_webhook_url"),
        ({"url": "https://10.0.0.1"}, "private_webhook_address"),
        ({"url": "https://2130706434"}, "private_webhook_address"),
    ],
)
def test_bad_bodies_are_rejected(client: TestClient, body: Json, code: str) -> None:
    sent = client.post(ROUTE, json=body)
    assert (sent.status_code, sent.json()["code"]) == (422, code), sent.text
    assert client.get(ROUTE).json()["data"] == []


def test_there_is_a_limit(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MAX_WEBHOOKS", 2)
    first = create(client)
    create(client)
    sent = client.post(ROUTE, json={"url": URL})
    assert (sent.status_code, sent.json()["code"]) == (429, "too_many_webhooks")
    client.delete(f"{ROUTE}/{first['id']}")
    create(client)


def test_update(client: TestClient, database: Database) -> None:
    webhook = create(client, description="mine", events=["job.failed"])
    path = f"{ROUTE}/{webhook['id']}"
    unchanged = {**webhook, "secret": None}
    for body in ({}, {"url": None, "enabled": None}):
        assert client.patch(path, json=body).json() == unchanged
    changed = client.patch(path, json={"url": URL + "2", "events": None, "description": None})
    expected = {**unchanged, "url": URL + "2", "events": None, "description": None}
    assert changed.json() == expected == client.get(path).json()
    for url, code in (("http://example.com", "insecure_webhook_url"), ("x", "invalid_webhook_url")):
        assert client.patch(path, json={"url": url}).json()["code"] == code
    assert client.patch(path, json={"events": []}).status_code == 422
    assert endpoint(database, UUID(webhook["id"])).url == URL + "2"


def test_a_disabled_webhook_gets_nothing(client: TestClient, database: Database) -> None:
    path = f"{ROUTE}/{create(client)['id']}"
    delivery = client.post(f"{path}/test").json()
    assert client.patch(path, json={"enabled": False}).json()["enabled"] is False
    replay = f"{path}/deliveries/{delivery['id']}/replay"
    for refused in (client.post(f"{path}/test"), client.post(replay)):
        assert (refused.status_code, refused.json()["code"]) == (409, "webhook_disabled")
    (row,) = deliveries(database)
    assert (row.state, row.last_error) == ("failed", "The webhook was disabled.")
    assert client.patch(path, json={"enabled": True}).json()["enabled"] is True
    assert client.post(replay).json()["state"] == "pending"


def test_rotate_shows_the_new_secret_once(client: TestClient) -> None:
    webhook = create(client)
    path = f"{ROUTE}/{webhook['id']}"
    rotated = client.post(f"{path}/rotate").json()
    assert rotated["secret"].startswith("whsec_")
    assert rotated["secret"] != webhook["secret"]
    assert rotated["previous_secret_expires_at"] > webhook["created_at"]
    assert client.get(path).json() == {**rotated, "secret": None}


@on_both_databases
def test_deliveries_and_replay(
    client: TestClient, database: Database, settings: Settings, receiver: Receiver
) -> None:
    webhook = create(client, url=receiver.url, events=["job.failed"])
    path = f"{ROUTE}/{webhook['id']}"
    sent = client.post(f"{path}/test")
    assert sent.status_code == 202
    queued = sent.json()
    assert (queued["type"], queued["state"], queued["attempts"]) == ("webhook.test", "pending", 0)
    assert queued["payload"]["id"] == queued["event_id"]
    assert deliver_next(database, settings, UUID(webhook["id"]))
    second = client.post(f"{path}/test").json()
    page = client.get(f"{path}/deliveries", params={"limit": 1}).json()
    assert page["data"] == [second]
    page = client.get(f"{path}/deliveries", params={"after": page["next"]}).json()
    (first,) = page["data"]
    assert (first["id"], first["state"], first["last_status"]) == (queued["id"], "delivered", 204)
    for state, expected in (("pending", [second]), ("delivered", [first]), ("failed", [])):
        found = client.get(f"{path}/deliveries", params={"state": state}).json()["data"]
        assert found == expected
    again = client.post(f"{path}/deliveries/{first['id']}/replay")
    assert (again.status_code, again.json()["state"]) == (202, "pending")
    assert again.json()["event_id"] == first["event_id"]
    client.delete(path)
    assert deliveries(database) == []


def test_unknown_ids(client: TestClient) -> None:
    mine, other = (f"{ROUTE}/{create(client)['id']}" for _ in range(2))
    delivery = client.post(f"{mine}/test").json()
    for id_ in (uuid4(), "nonsense"):
        unknown = f"{ROUTE}/{id_}"
        answers = [
            *(client.get(unknown), client.patch(unknown, json={"url": URL})),
            *(client.delete(unknown), client.post(f"{unknown}/rotate")),
            *(client.post(f"{unknown}/test"), client.get(f"{unknown}/deliveries")),
            client.post(f"{unknown}/deliveries/{delivery['id']}/replay"),
        ]
        assert {(each.status_code, each.json()["code"]) for each in answers} == {
            (404, "webhook_not_found")
        }
    for path in (f"{other}/deliveries/{delivery['id']}", f"{mine}/deliveries/nonsense"):
        answer = client.post(f"{path}/replay")
        assert (answer.status_code, answer.json()["code"]) == (404, "delivery_not_found")


def test_the_scope_is_required(
    anonymous_client: TestClient, new_key: Callable[..., CreatedKey]
) -> None:
    def headers(*scopes: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {new_key(*scopes).text}"}

    assert anonymous_client.get(ROUTE).status_code == 401
    refused = anonymous_client.get(ROUTE, headers=headers("jobs:write", "models:admin"))
    assert (refused.status_code, refused.json()["code"]) == (403, "scope_missing")
    for chosen in (("webhooks:admin",), ()):
        assert anonymous_client.get(ROUTE, headers=headers(*chosen)).status_code == 200
