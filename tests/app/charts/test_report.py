"""The page, as a browser's parser reads it."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from app.charts.report import render
from app.sweeps.snapshot import Board
from app.sweeps.winner import judge
from tests.boards import FIELDS, board, cell, grid

EVIL = "</script><img src=x onerror=alert(1)><!-- & \" ' \u2028"
EMPTY = {"meta", "img", "link", "br"}
Attributes = dict[str, str | None]


class Page(HTMLParser):
    """Elements in their order, each with its attributes and the text inside."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, Attributes, list[str]]] = []
        self._open: list[tuple[str, Attributes, list[str]]] = []
        self.feed(text)
        self.close()
        assert self._open == [], "an element is not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), []))
        if tag not in EMPTY:
            self._open.append(self.found[-1])

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element[2].append(data)

    def all(self, *tags: str) -> list[tuple[Attributes, str]]:
        return [(attrs, "".join(text)) for tag, attrs, text in self.found if tag in tags]

    def texts(self, *tags: str) -> list[str]:
        return [text.strip() for _, text in self.all(*tags)]

    def figures(self) -> list[dict[str, Any]]:
        (data,) = (text for attrs, text in self.all("script") if attrs.get("id") == "figures")
        read: list[dict[str, Any]] = json.loads(data)
        return read


@pytest.fixture(scope="module")
def text() -> str:
    return render(grid())


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_headings_stand_in_order(page: Page) -> None:
    assert page.texts("h1") == ["sentiment"]
    assert page.texts("h2") == [
        "What came out",
        "Validation accuracy over r and alpha",
        "What moved the validation accuracy",
        "Every cell through its settings",
        "Validation accuracy against trainable parameters",
        "Validation accuracy against seconds",
        "All cells",
    ]
    assert page.texts("h3", "h4") == []
    assert page.texts("title") == ["sentiment: sweep"]


def test_the_sentences_tell_the_verdict(page: Page) -> None:
    verdict = judge(grid())
    assert verdict is not None
    assert verdict.winner_test is not None
    assert verdict.validation is not None
    told = " ".join(page.texts("p"))
    score = verdict.winner_test
    for expected in (
        "36 cells: 34 succeeded, 1 failed, 1 waiting.",
        f"Cell {verdict.winner} has the best validation accuracy",
        "on 2,000 texts: r = ",
        f"its accuracy is {100 * score.accuracy:.1f} % (95 % interval {100 * score.low:.1f} to "
        f"{100 * score.high:.1f} %)",
        f"{len(verdict.near) - 1} of 33 other cells",
        f"The cheapest that is as good is cell {verdict.cheapest} (",
        f"{100 * verdict.validation.difference:.1f} points lower on validation "
        f"(95 % interval {-100 * verdict.validation.high:+.1f} to ",
    ):
        assert expected in told


def test_every_cell_has_a_row_the_best_first(page: Page) -> None:
    scopes = [attrs.get("scope") for attrs, _ in page.all("th")]
    assert set(scopes) == {"row", "col"}
    names = page.texts("th")
    numbers = [int(name) for name in names[names.index("error") + 1 :]]
    verdict = judge(grid())
    assert verdict is not None
    assert numbers[0] == verdict.winner
    assert sorted(numbers) == list(range(1, 37))
    assert numbers[-2:] == [6, 10]  # failed, waiting
    cells = page.texts("td")
    assert cells.count("winner") == cells.count("cheapest as good") == 1
    assert cells.count("as good") == len(verdict.near) - 2
    assert "Out of memory." in cells


def test_pictures_have_words_beside_them(page: Page) -> None:
    drawn = [attrs for attrs, _ in page.all("div") if attrs.get("role") == "img"]
    assert [attrs["id"] for attrs in drawn] == [f"picture-{n}" for n in range(1, 6)]
    assert all(len(attrs["aria-label"] or "") > 30 for attrs in drawn)
    kinds = [figure["data"][0]["type"] for figure in page.figures()]
    assert kinds == ["heatmap", "bar", "scatter", "scatter", "scatter"]


def test_it_needs_nothing_from_elsewhere(text: str, page: Page) -> None:
    assert page.all("link", "iframe", "object", "embed", "img") == []
    for _, attrs, _ in page.found:
        assert not {"src", "href", "srcset", "action"} & set(attrs)
    (style,) = page.texts("style")
    assert "url(" not in style
    assert "@import" not in style
    assert text.startswith("<!doctype html>")
    assert text.count("plotly.js v") == 1


def test_only_its_own_scripts_may_run(text: str, page: Page) -> None:
    (policy,) = (attrs["content"] for attrs, _ in page.all("meta") if "http-equiv" in attrs)
    scripts = [script for attrs, script in page.all("script") if attrs == {}]
    first, second = (
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts
    )
    assert policy == (
        f"default-src 'none'; script-src 'sha256-{first}' 'sha256-{second}'; "
        "style-src 'unsafe-inline'; img-src data: blob:"
    )
    assert not any(name.startswith("on") for _, attrs, _ in page.found for name in attrs)


def evil() -> Board:
    """Whatever a user can name is hostile."""
    cells = [
        cell(
            n,
            settings={FIELDS[0]: f"{EVIL}{n}", FIELDS[1]: n},
            error=EVIL,
            figures={"validation": {"accuracy": n / 10}},
            trainable_parameters=n,
        )
        for n in range(1, 6)
    ]
    return board(*cells, name=EVIL, strategy=EVIL, fields=(*FIELDS[:2], EVIL))


def test_what_users_write_stays_text() -> None:
    page = Page(render(evil()))
    assert page.all("img") == []
    assert len(page.all("script")) == 3
    assert page.texts("h1") == [EVIL.strip()]
    assert page.texts("td").count(EVIL.strip()) == 5
    assert len(page.figures()) == 4
    assert not any(name.startswith("on") for _, attrs, _ in page.found for name in attrs)


def test_while_it_runs_it_says_so() -> None:
    whole = grid()
    cells = [
        replace(each, state="running", figures={}, graded={}) if each.number > 20 else each
        for each in whole.cells
    ]
    told = Page(render(replace(whole, state="running", cells=tuple(cells)))).all("p")
    said = [line for attrs, line in told if attrs.get("role") == "status"]
    assert said == ["Not over yet: 19 of 36 cells are done. All below may change."]


@pytest.mark.parametrize("cells", [[], [cell(1, state="waiting", share=0.0)]])
def test_before_the_first_result_there_are_no_pictures(cells: list[Any]) -> None:
    text = render(board(*cells, state="running"))
    page = Page(text)
    assert page.texts("h2") == ["What came out", "All cells"]
    assert "No cell has run to its end yet" in " ".join(page.texts("p"))
    assert "plotly.js" not in text
    assert "script-src 'none'" in text.replace("&#39;", "'")


def test_other_objectives_and_parts_of_runs_are_told() -> None:
    cells = [replace(each, share=0.25) if each.number == 1 else each for each in grid().cells]
    page = Page(render(replace(grid(), objective="loss", cells=tuple(cells))))
    told = " ".join(page.texts("p"))
    assert "judged by validation loss" in told
    assert re.search(r"its accuracy is [\d.]+ % \([^)]*\), its loss 0\.\d{3}\.", told)
    assert "1 of those that succeeded ran a part of their steps" in told
    assert "25.0 %" in page.texts("td")
    assert {"validation loss", "validation accuracy", "test loss"} <= set(page.texts("th"))


def test_a_winner_alone_is_told_as_such() -> None:
    right = [True] * 300 + [False] * 100
    alone = cell(1, validation=right, test=right, settings={"method.r": 8})
    far = cell(2, validation=right[::-1], settings={"method.r": 4})
    best = replace(alone, figures={"validation": {"accuracy": 0.75}}, number=3)
    weak = cell(2, validation=[False] * 400, settings={"method.r": 4})
    for cells, said in (
        ([alone], "No other cell is known to have answered the same validation texts."),
        ([alone, weak], "No other cell is as good: chance hardly explains"),
        ([alone, far], "As good, so far as can be told: 1 of 1 other cell."),
        ([alone, best], "No cell that is as good has fewer trainable parameters."),
    ):
        assert said in " ".join(Page(render(board(*cells))).texts("p"))
