"""The documentation site builds without warnings or broken links."""

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cached_property
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from markdown_it import MarkdownIt

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
FOLLOWED = {"a": "href", "link": "href", "img": "src", "script": "src"}


class Page(HTMLParser):
    """The links and anchors of a page."""

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
        """Internal links to a missing page, file or anchor."""
        for path, page in self.pages.items():
            for _, target in page.links:
                parts = urlsplit(target)
                if parts.scheme or parts.netloc:  # external, or an inline image
                    continue
                goal = (path.parent / unquote(parts.path)).resolve() if parts.path else path
                there = goal.is_file() and (
                    goal not in self.pages or unquote(parts.fragment) in self.pages[goal].ids
                )
                if not there:
                    yield path.relative_to(self.folder).as_posix(), target


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The site as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    words = ("--quiet", "--fail-on-warning", "--keep-going", "--conf-dir", "docs", ".", str(folder))
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", *words], cwd=ROOT, capture_output=True, text=True
    )
    assert (built.returncode, built.stderr) == (0, "")
    return Site(folder)


@pytest.mark.slow  # `make docs` builds it
@pytest.mark.timeout(300)
def test_site_builds_without_broken_links(site: Site) -> None:
    pages = {path.relative_to(site.folder).with_suffix("") for path in site.pages}
    assert {path.relative_to(ROOT).with_suffix("") for path, _ in texts()} <= pages
    assert list(site.dead()) == []


@pytest.mark.slow  # `make docs` builds it
@pytest.mark.timeout(300)
def test_site_loads_nothing_from_other_hosts(site: Site) -> None:
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
    """Targets of links and images, except in code."""
    for block in MarkdownIt("commonmark").enable("table").parse(text):
        for token in block.children or ():
            target = token.attrGet("href") or token.attrGet("src")
            if isinstance(target, str):
                yield target


def test_links_name_files_so_that_code_hosts_can_follow_them() -> None:
    gone = [
        (path.relative_to(ROOT).as_posix(), target)
        for path, text in texts()
        for target in targets(text)
        if not urlsplit(target).scheme
        and not (path.parent / unquote(urlsplit(target).path)).exists()
    ]
    assert gone == []


def test_no_section_stands_twice() -> None:
    for path, text in texts():
        tokens = MarkdownIt("commonmark").parse(text)
        sections = [
            heading.content
            for opening, heading in pairwise(tokens)
            if opening.type == "heading_open" and opening.tag == "h2"
        ]
        assert len(sections) == len(set(sections)), path
