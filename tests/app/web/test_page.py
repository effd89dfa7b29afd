"""What all pages share: security headers, layout, no inline scripts or styles, error pages."""

import re
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.testclient import TestClient

from app.web import formats, page_routers
from app.web.page import TEMPLATES_DIR

PAGE = {"Accept": "text/html"}


def pages(app: FastAPI) -> Iterator[str]:
    """Yield the paths of pages without path parameters."""
    for context in iter_route_contexts(app.router.routes):
        path = context.path or ""
        other = path.startswith(("/v1", "/openai", "/mistral", "/static", "/docs", "/sign"))
        plain = not other and "{" not in path
        if plain and path not in API and "GET" in (context.methods or ()):
            yield path


API = {"/livez", "/readyz", "/health", "/ping", "/info", "/metrics", "/openapi.json"}


def test_every_page_has_security_headers_and_navigation(app: FastAPI, client: TestClient) -> None:
    addresses = list(pages(app))
    assert {"/", "/jobs/new"} <= set(addresses)
    for address in addresses:
        answer = client.get(address, headers=PAGE)
        assert answer.status_code == 200, address
        assert "script-src" not in answer.headers["content-security-policy"]
        assert answer.headers["content-security-policy"].startswith("default-src 'self';")
        assert answer.headers["referrer-policy"] == "same-origin"  # otherwise forms send no origin
        assert 'aria-current="page"' in answer.text, address
        assert answer.text.count("<h1") == 1, address
        assert "Without JavaScript, pages can be read" in answer.text, address


def test_times_say_that_they_are_utc() -> None:
    assert ">27 Nov 2026, 07:46 UTC</time>" in formats.date_time(1795765565.0)


@pytest.mark.parametrize(
    ("octets", "shown"),
    [
        (999, "999 bytes"),
        (2_500_000, "2.5 MB"),
        (999_949, "999.9 kB"),
        (999_960, "1.0 MB"),
        (10**13, "10000.0 GB"),
    ],
)
def test_sizes(octets: int, shown: str) -> None:
    assert formats.size(octets) == shown


@pytest.mark.parametrize("path", sorted(TEMPLATES_DIR.glob("*.html")), ids=lambda path: path.name)
def test_templates_have_no_inline_scripts_or_styles(path: object) -> None:
    """The content security policy would block them."""
    assert isinstance(path, type(TEMPLATES_DIR))
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|javascript:", text)
    assert "|safe" not in text


@pytest.mark.parametrize(
    ("address", "status", "code"),
    [
        ("/nothing", 404, "not_found"),
        ("/?after=x", 422, "invalid_cursor"),
        ("/?q=" + "a" * 300, 422, "validation_failed"),
    ],
)
def test_browsers_get_error_pages(client: TestClient, address: str, status: int, code: str) -> None:
    answer = client.get(address, headers=PAGE)
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("text/html")
    assert f"<code>{code}</code>" in answer.text


def test_api_clients_get_problem_json(client: TestClient) -> None:
    answer = client.get("/nothing")
    assert answer.headers["content-type"] == "application/problem+json"


def test_error_pages_escape_the_path(client: TestClient) -> None:
    answer = client.get("/jobs/<img src=x onerror=alert(1)>", headers=PAGE)
    assert answer.status_code == 404
    assert "<img" not in answer.text


def test_all_routers_are_included(app: FastAPI) -> None:
    paths = {context.path for context in iter_route_contexts(app.router.routes)}
    for router in page_routers.PAGE_ROUTERS:
        assert {route.path for route in router.routes if hasattr(route, "path")} <= paths
