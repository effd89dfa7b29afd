"""Prediction run pages. The form's script is tested in tests/browser."""

from pathlib import Path
from uuid import uuid4

import pytest
from starlette.testclient import TestClient

from app.queue import leases
from app.queue.transitions import PermanentFailure
from app.resources import Resources
from tests.app.predictions.conftest import (
    MULTI_LABEL,
    REGRESSION,
    SEVERAL_TARGETS,
    Answer,
    answer,
    model,
    store_results,
    texts,
)
from tests.app.web.html_elements import elements, visible_text
from tests.job_rows import claim_next

__all__ = ["answer", "model", "texts"]

PAGE = {"Accept": "text/html"}


def submit(client: TestClient, **fields: str) -> str:
    sent = client.post("/v1/predictions", json={"dataset": "texts", **fields})
    assert sent.status_code == 202, sent.text
    run_id: str = sent.json()["id"]
    return run_id


def text(client: TestClient, run_id: str = "") -> str:
    shown = client.get(f"/predictions/{run_id}" if run_id else "/predictions", headers=PAGE)
    assert shown.status_code == 200, shown.text
    return shown.text


def test_empty_state_explains_how_to_start(client: TestClient) -> None:
    page = text(client)
    assert "No models yet" in page
    assert "upload.js" not in page


@pytest.mark.usefixtures("model")
def test_form_lists_models_and_the_upload_limit(client: TestClient) -> None:
    page = text(client)
    refs = [each["value"] for each in elements(page, "option")]
    assert refs == ["sentiment", "sentiment:1"]
    chosen = elements(client.get("/predictions?model=sentiment:1").text, "option")
    assert [each["value"] for each in chosen if each.get("selected") is not None] == refs[1:]
    most = client.app.state.settings.max_upload_bytes  # type: ignore[attr-defined]
    assert f'data-max-bytes="{most}"' in page


@pytest.mark.usefixtures("model", "texts")
def test_run_from_queue_to_results(client: TestClient, answer: Answer) -> None:
    run_id = submit(client, name="<b>mine</b>")
    page = text(client, run_id)
    assert "<b>mine" not in page
    assert "queued next in the queue" in visible_text(page)
    assert f'data-request="POST /v1/predictions/{run_id}/cancel"' in page
    assert " data-live" in page
    assert "results?format" not in page
    answer()
    page = text(client, run_id)
    assert "succeeded 3 rows, just now" in visible_text(page)
    assert "good 1 50.0% bad 1 50.0%" in visible_text(page)
    assert " data-live" not in page
    assert f'data-request="DELETE /v1/predictions/{run_id}"' in page
    links = [
        each["href"] for each in elements(page, "a") if each["href"].startswith("/v1/predictions/")
    ]
    assert [client.get(link).status_code for link in links] == [200] * 4  # two for Label Studio
    assert links[0] in [each["href"] for each in elements(text(client), "a")]


@pytest.mark.usefixtures("model", "texts")
def test_summary_of_other_tasks(client: TestClient, resources: Resources, tmp_path: Path) -> None:
    run_id = submit(client)
    store_results(resources, tmp_path / "sets", **MULTI_LABEL)
    page = visible_text(text(client, run_id))
    assert "bad 1 50.0% good 1 50.0%" in page
    assert "1 row has no label: none reaches its threshold." in page
    run_id = submit(client)
    store_results(resources, tmp_path / "numbers", **REGRESSION)
    page = visible_text(text(client, run_id))
    assert "From -1 to 3.5, 1.25 on average." in page
    assert "1 text was truncated" in page
    assert "Predicted labels" not in page
    assert "Label Studio" not in page
    run_id = submit(client)
    store_results(resources, tmp_path / "several", **SEVERAL_TARGETS)
    page = visible_text(text(client, run_id))
    assert "flags : 1 row has no label: none reaches its threshold." in page


@pytest.mark.usefixtures("model", "texts")
def test_failed_run_shows_the_error(client: TestClient, resources: Resources) -> None:
    run_id = submit(client)
    claimed = claim_next(resources.database)
    with resources.database.write() as session:
        leases.finish_attempt(
            session, claimed.lease, PermanentFailure("x_code", "The model is gone.", {"n": 1})
        )
    page = visible_text(text(client, run_id))
    assert "Error The model is gone. Code x_code · n 1" in page
    assert "failed" in visible_text(text(client))


def test_unknown_run(client: TestClient) -> None:
    shown = client.get(f"/predictions/{uuid4()}", headers=PAGE)
    assert shown.status_code == 404
    assert "<code>prediction_not_found</code>" in shown.text
