"""The Swagger UI page, which loads everything from this service."""

import re

import pytest
from starlette.testclient import TestClient

ASSETS = ["swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png", "start.js"]


def test_docs_page_has_no_external_resources_and_no_inline_script(client: TestClient) -> None:
    page = client.get("/docs")
    assert page.status_code == 200
    links = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert sorted(links) == sorted(f"docs/{name}" for name in ASSETS)
    assert re.findall(r"<script[^>]*>([^<]+)</script>", page.text) == []
    assert " on" not in re.sub(r">[^<]*<", "><", page.text)
    assert "unsafe" not in page.headers["Content-Security-Policy"]


@pytest.mark.parametrize("name", ASSETS)
def test_docs_assets_are_served(client: TestClient, name: str) -> None:
    response = client.get(f"/docs/{name}")
    assert response.status_code == 200
    assert len(response.content) > 50


@pytest.mark.parametrize("name", ["main.py", "..%2fmain.py", "%2e%2e", "nothing.js"])
def test_other_asset_names_are_404(client: TestClient, name: str) -> None:
    assert client.get(f"/docs/{name}").status_code == 404


def test_docs_page_loads_the_openapi_description_of_this_service(client: TestClient) -> None:
    assert 'url: "openapi.json"' in client.get("/docs/start.js").text
    described = client.get("/openapi.json").json()
    assert described["info"]["title"] == "loraworks"
    assert described["components"]["securitySchemes"]["key"]["scheme"] == "bearer"


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/docs/start.js"])
def test_docs_page_requires_an_api_key_with_auth_on(
    anonymous_client: TestClient, path: str
) -> None:
    assert anonymous_client.get(path).status_code == 401
