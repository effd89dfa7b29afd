"""The page that shows the API, from this service alone."""

import re

import pytest
from starlette.testclient import TestClient

ASSETS = ["swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png", "start.js"]


def test_the_page_loads_nothing_from_elsewhere_and_holds_no_script(client: TestClient) -> None:
    page = client.get("/docs")
    assert page.status_code == 200
    links = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert sorted(links) == sorted(f"docs/{name}" for name in ASSETS)
    assert re.findall(r"<script[^>]*>([^<]+)</script>", page.text) == []
    assert " on" not in re.sub(r">[^<]*<", "><", page.text)
    assert "unsafe" not in page.headers["Content-Security-Policy"]


@pytest.mark.parametrize("name", ASSETS)
def test_every_file_of_the_page_is_there(client: TestClient, name: str) -> None:
    answer = client.get(f"/docs/{name}")
    assert answer.status_code == 200
    assert len(answer.content) > 50


@pytest.mark.parametrize("name", ["main.py", "..%2fmain.py", "%2e%2e", "nothing.js"])
def test_no_other_file_is_served(client: TestClient, name: str) -> None:
    assert client.get(f"/docs/{name}").status_code == 404


def test_the_page_asks_for_the_description_of_this_service(client: TestClient) -> None:
    assert 'url: "openapi.json"' in client.get("/docs/start.js").text
    described = client.get("/openapi.json").json()
    assert described["info"]["title"] == "loraworks"
    assert described["components"]["securitySchemes"]["key"]["scheme"] == "bearer"


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/docs/start.js"])
def test_the_page_needs_a_key_when_keys_are_on(locked_client: TestClient, path: str) -> None:
    assert locked_client.get(path).status_code == 401
