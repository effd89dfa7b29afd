"""Neither texts nor keys of requests are in the log, whether the requests succeed or fail."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from tests.app.serving.conftest import Publish, publish
from tests.app.test_authentication import NewKey
from tests.app.traffic.test_traffic import CANARY, REQUESTS

__all__ = ["publish"]

BODIES: list[tuple[str, Any]] = [
    *REQUESTS,
    ("/v1/models/sentiment/explain", {"inputs": CANARY}),
    ("/rerank", {"query": CANARY, "texts": [CANARY]}),
    ("/v1/feedback", {"model": "sentiment", "text": CANARY, "label": "good"}),
    ("/v1/feedback", {"model": "sentiment", "text": "a text", "label": CANARY}),
    ("/v1/forget", {"text": CANARY}),
]
FILES = [
    ("mail.csv", "text,label\n" + "".join(f"{CANARY} {n},{'ab'[n % 2]}\n" for n in range(40))),
    ("mail.csv", f'text,label\n"{CANARY}'),  # the quote is not closed
    ("mail.csv", f"{CANARY},label\na,b\n"),
]


def test_log_has_no_text_and_no_key_of_a_request(
    auth_settings: Settings, new_key: NewKey, publish: Publish, capsys: pytest.CaptureFixture[str]
) -> None:
    publish()
    key, unknown = new_key().text, f"lw_{'0' * 32}_{'s' * 43}"
    settings = auth_settings.model_copy(update={"keep_traffic": "texts"})
    statuses = set()
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        for credentials in (f"Bearer {key}", f"Bearer {unknown}", f"Basic {key}", key):
            client.headers["Authorization"] = credentials
            for path, body in BODIES:
                for sent in (body, {**body, CANARY: CANARY}, [CANARY], {"inputs": {"a": CANARY}}):
                    statuses.add(client.post(path, json=sent).status_code)
                statuses.add(client.post(path, content=f'{{"inputs": "{CANARY}').status_code)
                statuses.add(client.post(path, params={"q": CANARY, "key": key}).status_code)
            for name, content in FILES:
                file = {"file": (name, content.encode())}
                statuses.add(client.post("/v1/datasets", files=file).status_code)
    assert {200, 201, 400, 401, 422} <= statuses
    assert 500 not in statuses
    logged = "".join(capsys.readouterr()).splitlines()
    assert sum('"event": "request"' in line for line in logged) > 300
    private = ("canary", key.split("_", 2)[2], unknown.split("_", 2)[2])
    assert [line for line in logged if any(each in line for each in private)] == []
