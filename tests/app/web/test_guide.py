"""The bundled documentation pages."""

import re
import tomllib
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from app.web import documentation
from tests.app.web.html_elements import elements, visible_text

ROOT = Path(__file__).parents[3]


def names(client: TestClient) -> list[str]:
    links = elements(client.get("/guide").text, "a")
    return [link["href"] for link in links if link["href"].startswith("/guide/")]


def test_every_page_links_to_the_documentation(client: TestClient) -> None:
    for page in ("/", "/models", "/nothing"):
        shown = client.get(page, headers={"Accept": "text/html"}).text
        assert '<a href="/guide">Docs</a>' in shown, page


def test_all_documents_are_listed_and_links_resolve(client: TestClient) -> None:
    listed = names(client)
    assert {"/guide/tutorial.md", "/guide/reference/page.md", "/guide/how-to/labels.md"} <= set(
        listed
    )
    ids: dict[str, set[str]] = {}
    links: set[tuple[str, str]] = set()
    for name in listed:
        answer = client.get(name)
        assert answer.status_code == 200, name
        article = answer.text.partition('<article class="document">')[2].partition("</article>")[0]
        ids[name] = set(re.findall(r'<h\d id="([^"]*)"', article))
        hrefs = [link["href"] for link in elements(article, "a")]
        links |= {(name, str(answer.url.join(href))) for href in hrefs}
        for source in re.findall(r'<img src="([^"]+)"', article):
            picture = client.get(str(answer.url.join(source)))
            assert picture.headers["content-type"] == "image/svg+xml"
    for name, link in links:
        path, _, anchor = link.removeprefix("http://testserver").partition("#")
        if path.startswith("/guide/") and not path.endswith("index.md"):
            assert path in ids, (name, link)
            assert not anchor or anchor in ids[path], (name, link)


def test_documents_are_rendered(client: TestClient) -> None:
    page = client.get("/guide/reference/page.md")
    assert "<title>The web page · loraworks</title>" in page.text
    assert "Load times." in visible_text(page.text)
    assert "<table>" in page.text
    assert "{toctree}" not in client.get("/guide/tutorial.md").text
    assert (
        client.get("/guide/how-to/index.md", follow_redirects=False).headers["location"] == "/guide"
    )


@pytest.mark.parametrize(
    "name", ["nothing.md", "conf.py", "../README.md", "..%2fREADME.md", "%2fetc%2fpasswd", "images"]
)
def test_other_files_are_not_found(client: TestClient, name: str) -> None:
    assert client.get(f"/guide/{name}").status_code == 404


def test_no_api_key_is_needed(anonymous_client: TestClient) -> None:
    assert anonymous_client.get("/guide/tutorial.md").status_code == 200


def test_the_wheel_includes_every_document(client: TestClient) -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]
    included = wheel["targets"]["wheel"]["force-include"]
    assert {Path(place).relative_to("app/web") for place in included.values()} == set(
        map(Path, included)
    )
    shown = [documentation.DOCS_DIR / name.removeprefix("/guide/") for name in names(client)]
    for path in (*shown, *documentation.DOCS_DIR.glob("images/*.svg")):
        inside = path.relative_to(ROOT)
        assert any(inside.is_relative_to(each) for each in included), path
