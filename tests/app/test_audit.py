"""Each change of keys, models and notes writes exactly one audit line with its caller."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app import logging
from app.auth import service
from app.auth.service import CreatedKey
from app.database.engines import Database
from app.main import create_app
from app.settings import Settings
from app.storage.tables import Artifact
from tests.app.registry.conftest import finished
from tests.app.serving.conftest import publish

__all__ = ["finished", "publish"]

MODEL = "/v1/models/sentiment"
AuditLines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def audit_lines(capfd: pytest.CaptureFixture[str]) -> Iterator[AuditLines]:
    """Return the audit lines on standard error since the last call."""

    def read() -> list[dict[str, Any]]:
        lines = [
            json.loads(line) for line in capfd.readouterr().err.splitlines() if line[:1] == "{"
        ]
        return [line for line in lines if line["event"] == "audit"]

    yield read
    logging.configure()  # tests of this file raise the level, which is the process's


def test_keys(
    audit_lines: AuditLines, new_key: Callable[..., CreatedKey], database: Database
) -> None:
    logging.configure("ERROR")
    made = new_key("predict", name="shop")
    (line,) = audit_lines()
    assert (line["action"], line["key"], line["name"]) == ("key_created", str(made.key.id), "shop")
    assert {"timestamp", "uid"} <= line.keys()
    assert made.text not in str(line)
    with database.write() as session:
        service.revoke_key_and_sessions(session, key_id=made.key.id)
    (line,) = audit_lines()
    assert (line["action"], line["key"]) == ("key_revoked", str(made.key.id))


def test_jobs(audit_lines: AuditLines, client: TestClient) -> None:
    job_id = client.post("/v1/jobs", json={"method": {"type": "lora"}}).json()["id"]
    audit_lines()
    assert client.patch(f"/v1/jobs/{job_id}", json={"notes": "A secret.", "tags": []}).is_success
    (line,) = audit_lines()
    assert (line["action"], line["job"]) == ("job_updated", job_id)
    assert line["fields"] == ["notes", "tags"]
    assert "secret" not in str(line)


def test_models(
    audit_lines: AuditLines,
    auth_settings: Settings,
    new_key: Callable[..., CreatedKey],
    publish: Callable[..., Path],
    finished: Callable[[], Artifact],
) -> None:
    """Imports load torch in a child process: see registry/test_imports.py."""
    key, job_id = new_key(), str(finished().job_id)
    publish(promote=False)
    publish(promote=False)
    production = f"{MODEL}/aliases/production"
    calls: tuple[tuple[str, str, dict[str, Any], dict[str, Any]], ...] = (
        ("PUT", production, {"json": {"version": 1}},
         {"action": "alias_moved", "model": "sentiment:1", "alias": "production", "back": False}),
        ("PUT", production, {"json": {"version": 2}},
         {"action": "alias_moved", "model": "sentiment:2"}),
        ("POST", f"{production}/rollback", {},
         {"action": "alias_moved", "model": "sentiment:1", "back": True}),
        ("POST", f"{MODEL}/versions", {"json": {"job_id": job_id}},
         {"action": "version_registered", "model": "sentiment:3", "job_id": job_id}),
        ("DELETE", f"{MODEL}/versions/2", {},
         {"action": "version_deleted", "model": "sentiment:2"}),
        ("DELETE", production, {},
         {"action": "alias_deleted", "model": "sentiment", "alias": "production"}),
        ("DELETE", MODEL, {}, {"action": "model_deleted", "model": "sentiment"}),
    )  # fmt: skip
    silent = auth_settings.model_copy(update={"log_level": "ERROR"})
    headers = {"Authorization": f"Bearer {key.text}", "X-Request-Id": "r-1"}
    with TestClient(create_app(silent), headers=headers) as client:
        audit_lines()
        for method, path, sent, expected in calls:
            response = client.request(method, path, **sent)
            assert response.is_success, response.text
            (line,) = audit_lines()
            who = {"key_id": str(key.key.id), "request_id": "r-1"}
            assert line == line | expected | who
            if method == "PUT":  # the alias is there already
                assert client.request(method, path, **sent).is_success
                assert audit_lines() == []
        refused = client.delete(MODEL)
        assert (refused.status_code, audit_lines()) == (404, [])
