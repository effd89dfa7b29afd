"""Webhook pages. Their script is tested in tests/browser."""

from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.auth.service import CreatedKey
from app.database.engines import Database
from tests.app.web.html_elements import elements, visible_text
from tests.webhook_rows import deliveries, update_delivery

PAGE = {"Accept": "text/html"}
URL = "https://example.com/events"


def create(client: TestClient, **fields: Any) -> str:
    sent = client.post("/v1/webhooks", json={"url": URL, **fields})
    assert sent.status_code == 201, sent.text
    return str(sent.json()["id"])


def text(client: TestClient, path: str = "") -> str:
    shown = client.get(f"/webhooks{path}", headers=PAGE)
    assert shown.status_code == 200, shown.text
    return shown.text


def test_list_of_webhooks(client: TestClient) -> None:
    page = text(client)
    assert "No webhooks yet." in page
    boxes = [each["value"] for each in elements(page, "input") if each.get("name") == "events"]
    assert "job.failed" in boxes
    webhook_id = create(client, description="<b>mine</b>", events=["job.failed"])
    page = text(client)
    assert f'href="/webhooks/{webhook_id}"' in page
    assert "<b>mine" not in page
    assert "enabled job.failed" in visible_text(page)
    assert "whsec_" not in page


def test_page_of_a_webhook(client: TestClient, database: Database) -> None:
    webhook_id = create(client, description="<b>mine</b>")
    path = f"/{webhook_id}"
    page = text(client, path)
    assert "<b>mine" not in page
    assert "No deliveries." in visible_text(page)
    requests = [each.get("data-request") for each in elements(page, "button")]
    api = f"/v1/webhooks/{webhook_id}"
    expected = [f"POST {api}/test", f"PATCH {api}", f"DELETE {api}"]
    assert [each for each in requests if each] == expected
    client.post(f"{api}/test")
    (delivery,) = deliveries(database)
    update_delivery(database, attempts=1, last_error="<i>Status</i> 500", last_status=500)
    page = text(client, path)
    assert "<i>Status" not in page
    shown = visible_text(page)
    assert "webhook.test" in shown
    assert "pending next attempt" in shown
    assert f'data-request="POST {api}/deliveries/{delivery.id}/replay"' in page
    assert "No deliveries in this state." in visible_text(text(client, f"{path}?state=failed"))
    assert delivery.event_id in text(client, f"{path}?state=pending")
    assert delivery.event_id in text(client, f"{path}?state=")


def test_page_of_a_disabled_webhook(client: TestClient) -> None:
    webhook_id = create(client)
    client.post(f"/v1/webhooks/{webhook_id}/test")
    client.patch(f"/v1/webhooks/{webhook_id}", json={"enabled": False})
    page = text(client, f"/{webhook_id}")
    assert "disabled" in visible_text(page)
    buttons = {each.get("data-request") or "": each for each in elements(page, "button")}
    assert not any(name.endswith("/test") for name in buttons)
    (replay,) = (each for name, each in buttons.items() if name.endswith("/replay"))
    assert "disabled" in replay.attributes


def test_older_deliveries_are_on_further_pages(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.web.webhooks.PAGE_SIZE", 2)
    webhook_id = create(client)
    for _ in range(3):
        client.post(f"/v1/webhooks/{webhook_id}/test")
    page = text(client, f"/{webhook_id}")
    (older,) = (each["href"] for each in elements(page, "a") if each.get("rel") == "next")
    assert page.count('id="delivery-') == 2
    assert text(client, f"/{webhook_id}{older}").count('id="delivery-') == 1


def test_unknown_webhook(client: TestClient) -> None:
    shown = client.get("/webhooks/nothing", headers=PAGE)
    assert shown.status_code == 404
    assert "There is no webhook" in shown.text


def test_the_scope_is_required(
    anonymous_client: TestClient, new_key: Callable[..., CreatedKey]
) -> None:
    headers = {**PAGE, "Authorization": f"Bearer {new_key('jobs:read').text}"}
    assert anonymous_client.get("/webhooks", headers=headers).status_code == 403
