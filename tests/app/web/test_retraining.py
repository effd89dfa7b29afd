"""Retraining on the page of a model, its own page, and why version 2 and not 1."""

import html as html_module
import json
import re

import pytest
from starlette.testclient import TestClient

from app.database.engines import Database
from tests.app.serving.conftest import Publish, publish
from tests.app.web.finished_jobs import make_verdict
from tests.app.web.html_elements import elements
from tests.app.web.test_registry import page
from tests.job_rows import MANIFEST
from tests.retraining_rows import RESULT, add_rule, add_run, part

__all__ = ["publish"]


def text_of(html: str) -> str:
    """The words of a page, as people read them."""
    return " ".join(html_module.unescape(re.sub(r"<[^>]+>", " ", html)).split())


def requests(html: str) -> list[str]:
    """The calls of the buttons."""
    return [
        each.attributes["data-request"]
        for each in elements(html, "button")
        if "data-request" in each.attributes
    ]


def test_model_without_a_rule(client: TestClient, publish: Publish) -> None:
    publish()
    assert "There is no rule that retrains sentiment" in text_of(page(client, "/models/sentiment"))
    html = page(client, "/models/sentiment/retraining")
    assert "There is no rule yet." in text_of(html)
    assert requests(html) == []


def test_rule_and_runs(client: TestClient, publish: Publish, database: Database) -> None:
    publish()
    add_rule(database, every_days=7)
    run_id = add_run(database)
    for path in ("/models/sentiment", "/models/sentiment/retraining"):
        shown = text_of(page(client, path))
        assert "It is retrained when 200 texts have new feedback, or every 7 days" in shown
        assert "better at the level of 0.05" in shown
        assert "The test has been tried 1 time so far" in shown
        assert "Version 2 went into production: it is better than version 1" in shown
        assert f'href="/models/sentiment/retraining/{run_id}"' in page(client, path)
    html = page(client, "/models/sentiment/retraining")
    assert requests(html) == [
        "POST /v1/models/sentiment/retraining/runs",
        "DELETE /v1/models/sentiment/retraining",
    ]


def test_form_keeps_all_digits(client: TestClient, publish: Publish, database: Database) -> None:
    """Saving an unchanged form changes nothing."""
    publish()
    add_rule(database, every_days=1.234567, level=0.0123456)
    html = page(client, "/models/sentiment/retraining")
    values = {
        each.attributes["name"]: each.attributes.get("value") for each in elements(html, "input")
    }
    assert (values["every_days"], values["level"]) == ("1.234567", "0.0123456")


def test_why_a_version_was_promoted(
    client: TestClient, publish: Publish, database: Database
) -> None:
    publish()
    publish()
    run_id = add_run(database)
    html = page(client, f"/models/sentiment/retraining/{run_id}")
    shown = text_of(html)
    assert "sentiment:2 against sentiment:1" in shown
    assert "(accuracy 80.0% against 70.0%)" in shown
    assert "p (0.003) is at most the level of 0.05" in shown
    assert "Enough texts had new feedback: 210 texts had feedback since the previous run" in shown
    assert "Live texts with feedback that was volunteered 20" in shown
    assert "Its authors disagree about the label: 3" in shown
    assert "The rule has tried 2 times so far" in shown
    assert "90 69.0% 59.0% to 79.0% 86.0%" in shown
    assert requests(html) == ["POST /v1/models/sentiment/aliases/production/rollback"]


def test_why_a_version_was_not_promoted(
    client: TestClient, publish: Publish, database: Database
) -> None:
    verdict = make_verdict(learned=False)
    publish()
    publish(manifest={**MANIFEST, "metrics": {"verdict": verdict.model_dump(mode="json")}})
    client.put("/v1/models/sentiment/aliases/production", json={"version": 1})
    result = {**RESULT, "all": part(150, current=0.7, new=0.71, p=0.4), "live": None}
    run_id = add_run(database, state="shadowed", reasons=["not_better"], result=result)
    html = page(client, f"/models/sentiment/retraining/{run_id}")
    shown = text_of(html)
    assert (
        "Version 2 was not promoted, and has the alias shadow: it is not clearly better than "
        "version 1 (accuracy 71.0% against 70.0%)" in shown
    )
    assert "p (0.4) is above the level of 0.05" in shown
    assert requests(html) == ["PUT /v1/models/sentiment/aliases/production"]
    [promote] = [each for each in elements(html, "button") if each.text == "Promote anyway"]
    assert json.loads(promote["data-verdict"])["headline"] == verdict.headline


@pytest.mark.parametrize("state", ["collecting", "searching", "training", "evaluating"])
def test_run_in_progress(
    client: TestClient, publish: Publish, database: Database, state: str
) -> None:
    publish()
    run_id = add_run(database, state=state, result=None, data=None, new_number=None)
    html = page(client, f"/models/sentiment/retraining/{run_id}")
    assert requests(html) == [f"POST /v1/models/sentiment/retraining/runs/{run_id}/cancel"]
    assert "data-live" in html


def test_runs_that_ended_early(client: TestClient, publish: Publish, database: Database) -> None:
    publish()
    failed = add_run(
        database,
        state="failed",
        error_code="too_few_rows",
        error_message="There are too few rows.",
        result=None,
        new_number=None,
    )
    shown = text_of(page(client, f"/models/sentiment/retraining/{failed}"))
    assert "It failed: There are too few rows. Code too_few_rows" in shown
    skipped = add_run(
        database, state="skipped", reasons=["nothing_new"], result=None, new_number=None
    )
    shown = text_of(page(client, f"/models/sentiment/retraining/{skipped}"))
    assert "Nothing was trained: there are no live texts that production was not trained" in shown
    cancelled = add_run(database, state="cancelled", result=None, data=None)
    assert "It was cancelled." in page(client, f"/models/sentiment/retraining/{cancelled}")


def test_unknown_run(client: TestClient, publish: Publish) -> None:
    publish()
    headers = {"Accept": "text/html"}
    response = client.get("/models/sentiment/retraining/nothing", headers=headers)
    assert response.status_code == 404
