"""What every page has: the policy, the frame, no script or style inside, and errors as pages."""

import re
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.testclient import TestClient

from app.web import routes
from app.web.page import TEMPLATES

PAGE = {"Accept": "text/html"}


def pages(app: FastAPI) -> Iterator[str]:
    """Addresses of pages that need no id."""
    for context in iter_route_contexts(app.router.routes):
        path = context.path or ""
        plain = not path.startswith(("/v1", "/static", "/docs", "/sign")) and "{" not in path
        if plain and path not in API and "GET" in (context.methods or ()):
            yield path


API = {"/livez", "/readyz", "/health", "/ping", "/info", "/metrics", "/openapi.json"}


def test_every_page_has_the_policy_and_the_frame(app: FastAPI, client: TestClient) -> None:
    addresses = list(pages(app))
    assert {"/", "/jobs/new"} <= set(addresses)
    for address in addresses:
        answer = client.get(address, headers=PAGE)
        assert answer.status_code == 200, address
        assert "script-src" not in answer.headers["content-security-policy"]
        assert answer.headers["content-security-policy"].startswith("default-src 'self';")
        assert answer.headers["referrer-policy"] == "same-origin"  # else forms have no origin
        assert 'aria-current="page"' in answer.text, address
        assert answer.text.count("<h1") == 1, address


@pytest.mark.parametrize("path", sorted(TEMPLATES.glob("*.html")), ids=lambda path: path.name)
def test_no_template_holds_script_or_style(path: object) -> None:
    """The policy would block them."""
    assert isinstance(path, type(TEMPLATES))
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
def test_a_person_reads_an_error_as_a_page(
    client: TestClient, address: str, status: int, code: str
) -> None:
    answer = client.get(address, headers=PAGE)
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("text/html")
    assert f"<code>{code}</code>" in answer.text


def test_a_program_reads_it_as_before(client: TestClient) -> None:
    answer = client.get("/nothing")
    assert answer.headers["content-type"] == "application/problem+json"


def test_an_error_page_repeats_no_markup(client: TestClient) -> None:
    answer = client.get("/jobs/<img src=x onerror=alert(1)>", headers=PAGE)
    assert answer.status_code == 404
    assert "<img" not in answer.text


def test_all_pages_are_installed(app: FastAPI) -> None:
    held = {context.path for context in iter_route_contexts(app.router.routes)}
    for router in routes.PAGES:
        assert {route.path for route in router.routes if hasattr(route, "path")} <= held
