"""The site of the documents builds without a warning, and no link in it leads nowhere."""

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from markdown_it import MarkdownIt

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
FOLLOWED = {"a": "href", "link": "href", "img": "src", "script": "src"}


class Page(HTMLParser):
    """What a page of the site points at, and what in it can be pointed at."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[tuple[str, str]] = []
        self.ids: set[str] = {""}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids.add(given.get("id") or "")
        if target := given.get(FOLLOWED.get(tag, "")):
            self.links.append((tag, target))


class Site:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def pages(self) -> dict[Path, Page]:
        return {path: Page(path) for path in sorted(self.folder.rglob("*.html"))}

    def dead(self) -> Iterator[tuple[str, str]]:
        """Links within the site to a page, a file or a place in a page that is not there."""
        for path, page in self.pages.items():
            for _, target in page.links:
                parts = urlsplit(target)
                if parts.scheme or parts.netloc:  # elsewhere, or a figure within the page
                    continue
                goal = (path.parent / unquote(parts.path)).resolve() if parts.path else path
                there = goal.is_file() and (
                    goal not in self.pages or unquote(parts.fragment) in self.pages[goal].ids
                )
                if not there:
                    yield path.relative_to(self.folder).as_posix(), target


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Built as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    words = ("--quiet", "--fail-on-warning", "--keep-going", "--conf-dir", "docs", ".", str(folder))
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", *words], cwd=ROOT, capture_output=True, text=True
    )
    assert (built.returncode, built.stderr) == (0, "")
    return Site(folder)


@pytest.mark.timeout(300)
def test_it_builds_and_every_link_within_it_leads_somewhere(site: Site) -> None:
    pages = {path.relative_to(site.folder).with_suffix("") for path in site.pages}
    assert {path.relative_to(ROOT).with_suffix("") for path, _ in texts()} <= pages
    assert list(site.dead()) == []


@pytest.mark.timeout(300)
def test_it_fetches_nothing_from_elsewhere(site: Site) -> None:
    fetched = {link for page in site.pages.values() for link in page.links if link[0] != "a"}
    assert [target for _, target in fetched if urlsplit(target).netloc] == []


def texts() -> Iterator[tuple[Path, str]]:
    """Every document of the repository."""
    for path in (*ROOT.glob("*.md"), *ROOT.glob("notebooks/*.md"), *ROOT.glob("docs/**/*.md")):
        yield path, path.read_text(encoding="utf-8")
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "markdown":
                yield path, "".join(cell["source"])


def targets(text: str) -> Iterator[str]:
    """Of links and pictures; what stands in code is none."""
    for block in MarkdownIt("commonmark").enable("table").parse(text):
        for token in block.children or ():
            target = token.attrGet("href") or token.attrGet("src")
            if isinstance(target, str):
                yield target


def test_a_link_names_the_file_itself_so_that_code_hosts_follow_it() -> None:
    gone = [
        (path.relative_to(ROOT).as_posix(), target)
        for path, text in texts()
        for target in targets(text)
        if not urlsplit(target).scheme
        and not (path.parent / unquote(urlsplit(target).path)).exists()
    ]
    assert gone == []
