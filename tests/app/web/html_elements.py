"""Parse HTML in tests."""

import re
from dataclasses import dataclass, field
from html import unescape
from html.parser import HTMLParser


@dataclass
class HtmlElement:
    """An element with its attributes and text content."""

    attributes: dict[str, str]
    text: str = ""

    def __getitem__(self, name: str) -> str:
        return self.attributes[name]

    def get(self, name: str) -> str | None:
        return self.attributes.get(name)


@dataclass
class _ElementParser(HTMLParser):
    tag: str
    found: list[HtmlElement] = field(default_factory=list)
    opened: list[HtmlElement] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == self.tag:
            self.opened.append(HtmlElement({name: value or "" for name, value in attrs}))
            self.found.append(self.opened[-1])

    def handle_endtag(self, tag: str) -> None:
        if tag == self.tag:
            self.opened.pop()

    def handle_data(self, data: str) -> None:
        for element in self.opened:
            element.text += data


def elements(html: str, tag: str) -> list[HtmlElement]:
    """Return all elements with a tag, in document order."""
    parser = _ElementParser(tag)
    parser.feed(html)
    return parser.found


def visible_text(html: str) -> str:
    """Return the text of a page without tags, on one line."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())
