"""Static files are served, and nothing else."""

import gzip
import re

import pytest
from starlette.testclient import TestClient

from app.web import assets

SCRIPTS = sorted(assets.STATIC_DIR.glob("*.js"))


@pytest.mark.parametrize("path", sorted(assets.STATIC_DIR.iterdir()), ids=lambda path: path.name)
def test_files_are_served_with_their_media_type(client: TestClient, path: object) -> None:
    assert isinstance(path, type(assets.STATIC_DIR))
    answer = client.get(f"/static/{path.name}")
    assert answer.status_code == 200
    assert answer.content == path.read_bytes()
    assert answer.headers["content-type"].startswith(assets.MEDIA_TYPES[path.suffix])


@pytest.mark.parametrize(
    "name", ["nothing.js", "%2e%2e", "..%2fpage.py", "%2e%2e%2fpage.py", "app.css%00", ".hid"]
)
def test_other_paths_are_not_found(client: TestClient, name: str) -> None:
    assert client.get(f"/static/{name}").status_code == 404


def test_files_are_revalidated_with_their_etag(client: TestClient) -> None:
    first = client.get("/static/app.css")
    assert first.headers["cache-control"] == "no-cache"
    again = client.get("/static/app.css", headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304


def test_plotly_is_served_compressed_from_its_package(client: TestClient) -> None:
    address = f"/static/plotly-{assets.PLOTLY_VERSION}.min.js"
    gzipped = client.get(address, headers={"Accept-Encoding": "gzip"})
    plain = client.get(address, headers={"Accept-Encoding": "identity"})
    assert gzipped.headers["content-encoding"] == "gzip"
    assert "immutable" in gzipped.headers["cache-control"]
    assert gzipped.text == plain.text == assets.plotly_script_text()
    assert len(gzip.compress(plain.content)) < len(plain.content) / 2


def test_all_plotly_style_rules_are_extracted() -> None:
    """Without them, charts have no layout."""
    assert ".js-plotly-plot .plotly .main-svg{position:absolute;" in assets.plotly_style_text()
    assert ".plotly-notifier .notifier-close:hover{" in assets.plotly_style_text()
    assert len(assets.plotly_style_text().splitlines()) > 50
    assert assets.plotly_script_text().count(assets.plotly_map_style_id()) > 1


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_never_evaluate_or_insert_markup(path: object) -> None:
    assert isinstance(path, type(assets.STATIC_DIR))
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text)
    assert "new Function" not in text
    assert len(text.splitlines()) <= 250
