"""Styles and scripts are served; nothing else is."""

import gzip
import re

import pytest
from starlette.testclient import TestClient

from app.web import assets

SCRIPTS = sorted(assets.STATIC.glob("*.js"))


@pytest.mark.parametrize("path", sorted(assets.STATIC.iterdir()), ids=lambda path: path.name)
def test_each_file_is_served_as_what_it_is(client: TestClient, path: object) -> None:
    assert isinstance(path, type(assets.STATIC))
    answer = client.get(f"/static/{path.name}")
    assert answer.status_code == 200
    assert answer.content == path.read_bytes()
    assert answer.headers["content-type"].startswith(assets.TYPES[path.suffix])


@pytest.mark.parametrize(
    "name", ["nothing.js", "%2e%2e", "..%2fpage.py", "%2e%2e%2fpage.py", "app.css%00", ".hid"]
)
def test_nothing_else_is(client: TestClient, name: str) -> None:
    assert client.get(f"/static/{name}").status_code == 404


def test_a_browser_asks_whether_a_file_has_changed(client: TestClient) -> None:
    first = client.get("/static/app.css")
    assert first.headers["cache-control"] == "no-cache"
    again = client.get("/static/app.css", headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304


def test_plotly_comes_from_its_package_and_packed(client: TestClient) -> None:
    address = f"/static/plotly-{assets.VERSION}.min.js"
    packed = client.get(address, headers={"Accept-Encoding": "gzip"})
    plain = client.get(address, headers={"Accept-Encoding": "identity"})
    assert packed.headers["content-encoding"] == "gzip"
    assert "immutable" in packed.headers["cache-control"]
    assert packed.text == plain.text == assets.script()
    assert len(gzip.compress(plain.content)) < len(plain.content) / 2


def test_the_rules_of_plotly_are_all_there() -> None:
    """The bundle puts in as many as it has; an empty list would leave pictures without layout."""
    assert ".js-plotly-plot .plotly .main-svg{position:absolute;" in assets.style()
    assert ".plotly-notifier .notifier-close:hover{" in assets.style()
    assert len(assets.style().splitlines()) > 50
    assert assets.script().count(assets.maps_style_id()) > 1


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_no_script_makes_markup_or_code_of_text(path: object) -> None:
    assert isinstance(path, type(assets.STATIC))
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text)
    assert "new Function" not in text
    assert len(text.splitlines()) <= 250
