"""The page of a version's traffic, and its section on the page of the model."""

from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from app.auth.service import CreatedKey
from app.database.engines import Database
from app.drift.tables import DriftClaim
from app.web import models
from tests.app.serving.conftest import Publish, publish
from tests.app.web.html_elements import elements
from tests.app.web.test_jobs import HOSTILE
from tests.app.web.test_registry import page
from tests.drift_rows import add_drift_check
from tests.kept_predictions import add_prediction

__all__ = ["publish"]

PATH = "/models/sentiment/drift"


def add_check(database: Database, *, alarm: bool, number: int = 1, start: float = 0.0) -> None:
    """Insert a check whose most different text is a hostile one."""
    shown = add_prediction(database, text=HOSTILE, number=number)
    add_drift_check(
        database,
        number=number,
        window_start=start,
        alarm=alarm,
        most_different=[f"{shown.hex}-0", "0" * 32 + "-0"],
    )


def test_a_version_without_checks(client: TestClient, publish: Publish) -> None:
    publish()
    html = page(client, PATH)
    assert "Not checked: no texts of traffic are kept" in html
    assert "There was no check yet." in html
    (button,) = (each for each in elements(html, "button") if "data-request" in each.attributes)
    assert button.attributes["data-request"] == "POST /v1/models/sentiment:1/drift/checks"
    assert "disabled" in button.attributes
    assert "Not checked: no texts" in page(client, "/models/sentiment")


def test_drift_is_shown_with_its_texts(
    client: TestClient, publish: Publish, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "_CACHE_SECONDS", 1e-9)
    publish()
    publish()
    add_check(database, alarm=False, number=2)
    add_check(database, alarm=True, number=2, start=1e9)
    html = page(client, PATH)
    assert "Drift: 120 texts until 2033-05-18 differ from the training texts (p = 0.002, " in html
    assert HOSTILE not in html
    (shown,) = (each for each in elements(html, "ol") if each.attributes.get("id") == "different")
    assert shown.text.count("Prediction") == 1  # the other one is not kept any more
    assert "/models/sentiment/review?version=2" in html
    assert "Drift: 120 texts" in page(client, "/models/sentiment")
    assert "There was no check yet." in page(client, f"{PATH}?version=1")
    with database.write() as session:
        claim = DriftClaim(model="sentiment", number=2, until=1.9e9)
        claim.error_code, claim.error_message = "data_too_large", "Too large & more."
        session.add(claim)
    assert "Too large &amp; more." in page(client, "/models/sentiment")
    assert "Too large &amp; more." in page(client, PATH)


def test_label_shares(client: TestClient, publish: Publish) -> None:
    publish()
    for _ in range(3):
        assert client.post("/predict", json={"inputs": ["a text", "b"]}).status_code == 200
    client.app.state.traffic.flush()  # type: ignore[attr-defined]
    html = page(client, PATH)
    assert "6 texts in the last 7 days" in html
    (table,) = (each for each in elements(html, "table") if each.attributes["id"] == "label-shares")
    assert "good" in table.text
    assert "100.0%" in table.text


def test_unknown_versions(client: TestClient, publish: Publish) -> None:
    assert client.get(PATH).status_code == 404
    publish()
    assert client.get(PATH, params={"version": 7}).status_code == 404


def test_the_page_needs_the_scopes_of_models_and_of_texts(
    anonymous_client: TestClient, new_key: Callable[..., CreatedKey], publish: Publish
) -> None:
    publish()
    wanted = {("models:read",): 403, ("datasets:read",): 403, ("models:read", "datasets:read"): 200}
    for scopes, status in wanted.items():
        headers = {"Authorization": f"Bearer {new_key(*scopes).text}", "Accept": "text/html"}
        assert anonymous_client.get(PATH, headers=headers).status_code == status
