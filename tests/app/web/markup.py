"""What stands in a page, read as a browser would."""

import re
from dataclasses import dataclass, field
from html import unescape
from html.parser import HTMLParser


@dataclass
class Element:
    """A tag with its attributes and all text inside."""

    attributes: dict[str, str]
    text: str = ""

    def __getitem__(self, name: str) -> str:
        return self.attributes[name]

    def get(self, name: str) -> str | None:
        return self.attributes.get(name)


@dataclass
class _Reader(HTMLParser):
    tag: str
    found: list[Element] = field(default_factory=list)
    opened: list[Element] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == self.tag:
            self.opened.append(Element({name: value or "" for name, value in attrs}))
            self.found.append(self.opened[-1])

    def handle_endtag(self, tag: str) -> None:
        if tag == self.tag:
            self.opened.pop()

    def handle_data(self, data: str) -> None:
        for element in self.opened:
            element.text += data


def elements(html: str, tag: str) -> list[Element]:
    """Every element with this tag, in order."""
    reader = _Reader(tag)
    reader.feed(html)
    return reader.found


def plain(html: str) -> str:
    """What a person reads, without tags, in one line."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())
