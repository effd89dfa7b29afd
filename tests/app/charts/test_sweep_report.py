"""The report page, parsed as HTML."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from app.charts.sweep_report import render_report
from app.jobs.results import comparison
from app.jobs.results.comparison import SplitCorrectness
from app.sweeps.snapshot import SweepSnapshot, select_winner_and_cheapest
from tests.sweep_snapshots import FIELDS, grid_snapshot, make_snapshot, make_trial

HOSTILE = "</script><img src=x onerror=alert(1)><!-- & \" ' \u2028"
EMPTY = {"meta", "img", "link", "br"}
Attributes = dict[str, str | None]


class ReportPage(HTMLParser):
    """Elements in order, each with its attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, Attributes, list[str]]] = []
        self._open: list[tuple[str, Attributes, list[str]]] = []
        self.feed(text)
        self.close()
        assert self._open == [], "an element is not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), []))
        if tag not in EMPTY:
            self._open.append(self.elements[-1])

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element[2].append(data)

    def all(self, *tags: str) -> list[tuple[Attributes, str]]:
        return [(attrs, "".join(text)) for tag, attrs, text in self.elements if tag in tags]

    def texts(self, *tags: str) -> list[str]:
        return [text.strip() for _, text in self.all(*tags)]

    def charts_data(self) -> list[dict[str, Any]]:
        (data,) = (text for attrs, text in self.all("script") if attrs.get("id") == "figures")
        read: list[dict[str, Any]] = json.loads(data)
        return read


@pytest.fixture(scope="module")
def text() -> str:
    return render_report(grid_snapshot())


@pytest.fixture(scope="module")
def page(text: str) -> ReportPage:
    return ReportPage(text)


def test_headings(page: ReportPage) -> None:
    assert page.texts("h1") == ["sentiment"]
    assert page.texts("h2") == [
        "Results",
        "Validation accuracy over r and alpha",
        "Importance for validation accuracy",
        "Settings and objective of every trial",
        "Validation accuracy against trainable parameters",
        "Validation accuracy against seconds",
        "All trials",
    ]
    assert page.texts("h3", "h4") == []
    assert page.texts("title") == ["sentiment: sweep"]


def test_sentences_describe_the_winner(page: ReportPage) -> None:
    selection = select_winner_and_cheapest(grid_snapshot())
    assert selection is not None
    assert selection.winner_test is not None
    assert selection.validation is not None
    text = " ".join(page.texts("p"))
    score = selection.winner_test
    for expected in (
        "36 trials: 34 succeeded, 1 failed, 1 waiting.",
        f"Trial {selection.winner} has the best validation accuracy",
        "on 2,000 texts: r = ",
        f"its accuracy is {100 * score.value:.1f}% (95% interval {100 * score.low:.1f} to "
        f"{100 * score.high:.1f}%)",
        f"{len(selection.within_noise) - 1} of 33 other trials",
        f"The cheapest within noise is trial {selection.cheapest} (",
        f"{100 * selection.validation.difference:.1f} points lower on validation "
        f"(95% interval {-100 * selection.validation.high:+.1f} to ",
    ):
        assert expected in text


def test_every_trial_has_a_row_the_best_first(page: ReportPage) -> None:
    scopes = [attrs.get("scope") for attrs, _ in page.all("th")]
    assert set(scopes) == {"row", "col"}
    names = page.texts("th")
    numbers = [int(name) for name in names[names.index("error") + 1 :]]
    selection = select_winner_and_cheapest(grid_snapshot())
    assert selection is not None
    assert numbers[0] == selection.winner
    assert sorted(numbers) == list(range(1, 37))
    assert numbers[-2:] == [6, 10]  # failed, waiting
    cells = page.texts("td")
    assert cells.count("winner") == cells.count("cheapest within noise") == 1
    assert cells.count("within noise") == len(selection.within_noise) - 2
    assert "Out of memory." in cells


def test_charts_have_text_alternatives(page: ReportPage) -> None:
    charts = [attrs for attrs, _ in page.all("div") if attrs.get("role") == "img"]
    assert [attrs["id"] for attrs in charts] == [f"picture-{n}" for n in range(1, 6)]
    assert all(len(attrs["aria-label"] or "") > 30 for attrs in charts)
    kinds = [figure["data"][0]["type"] for figure in page.charts_data()]
    assert kinds == ["heatmap", "bar", "scatter", "scatter", "scatter"]


def test_it_loads_nothing_external(text: str, page: ReportPage) -> None:
    assert page.all("link", "iframe", "object", "embed", "img") == []
    for _, attrs, _ in page.elements:
        assert not {"src", "href", "srcset", "action"} & set(attrs)
    (style,) = page.texts("style")
    assert "url(" not in style
    assert "@import" not in style
    assert text.startswith("<!doctype html>")
    assert text.count("plotly.js v") == 1


def test_the_policy_allows_only_its_own_scripts(text: str, page: ReportPage) -> None:
    (policy,) = (attrs["content"] for attrs, _ in page.all("meta") if "http-equiv" in attrs)
    scripts = [script for attrs, script in page.all("script") if attrs == {}]
    first, second = (
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts
    )
    assert policy == (
        f"default-src 'none'; script-src 'sha256-{first}' 'sha256-{second}'; "
        "style-src 'unsafe-inline'; img-src data: blob:"
    )
    assert not any(name.startswith("on") for _, attrs, _ in page.elements for name in attrs)


def hostile_snapshot() -> SweepSnapshot:
    """A sweep in which every text that users choose is hostile."""
    trials = [
        make_trial(
            n,
            settings={FIELDS[0]: f"{HOSTILE}{n}", FIELDS[1]: n},
            error=HOSTILE,
            metrics={"validation": {"accuracy": n / 10}},
            trainable_parameters=n,
        )
        for n in range(1, 6)
    ]
    return make_snapshot(*trials, name=HOSTILE, strategy=HOSTILE, fields=(*FIELDS[:2], HOSTILE))


def test_user_texts_are_escaped() -> None:
    page = ReportPage(render_report(hostile_snapshot()))
    assert page.all("img") == []
    assert len(page.all("script")) == 3
    assert page.texts("h1") == [HOSTILE.strip()]
    assert page.texts("td").count(HOSTILE.strip()) == 5
    assert len(page.charts_data()) == 4
    assert not any(name.startswith("on") for _, attrs, _ in page.elements for name in attrs)


def test_a_running_sweep_is_marked() -> None:
    snapshot = grid_snapshot()
    trials = [
        replace(each, state="running", metrics={}, correctness={}) if each.number > 20 else each
        for each in snapshot.trials
    ]
    page = ReportPage(render_report(replace(snapshot, state="running", trials=tuple(trials))))
    status = [text for attrs, text in page.all("p") if attrs.get("role") == "status"]
    assert status == ["Not finished: 19 of 36 trials have ended. Results may change."]


@pytest.mark.parametrize("trials", [[], [make_trial(1, state="waiting", budget=0.0)]])
def test_without_results_there_are_no_charts(trials: list[Any]) -> None:
    text = render_report(make_snapshot(*trials, state="running"))
    page = ReportPage(text)
    assert page.texts("h2") == ["Results", "All trials"]
    assert "No trial is complete yet" in " ".join(page.texts("p"))
    assert "plotly.js" not in text
    assert "script-src 'none'" in text.replace("&#39;", "'")


def test_another_objective_and_partial_trials() -> None:
    trials = [
        replace(each, budget=0.25) if each.number == 1 else each for each in grid_snapshot().trials
    ]
    page = ReportPage(
        render_report(replace(grid_snapshot(), objective="loss", trials=tuple(trials)))
    )
    text = " ".join(page.texts("p"))
    assert "ranked by validation loss" in text
    assert re.search(r"its accuracy is [\d.]+% \([^)]*\), its loss 0\.\d{3}\.", text)
    assert "1 of those that succeeded did not run with the full budget" in text
    assert "25.0%" in page.texts("td")
    assert {"validation loss", "validation accuracy", "test loss"} <= set(page.texts("th"))


def test_sentences_about_trials_within_noise() -> None:
    right = [True] * 300 + [False] * 100
    alone = make_trial(1, validation=right, test=right, settings={"method.r": 8})
    far = make_trial(2, validation=right[::-1], settings={"method.r": 4})
    best = replace(alone, metrics={"validation": {"accuracy": 0.75}}, number=3)
    weak = make_trial(2, validation=[False] * 400, settings={"method.r": 4})
    for trials, sentence in (
        ([alone], "No other trial was evaluated on the same validation texts."),
        ([alone, weak], "No other trial is within noise of the winner"),
        ([alone, far], "1 of 1 other trial is within noise of the winner"),
        ([alone, best], "None of them has fewer trainable parameters than the winner."),
    ):
        assert sentence in " ".join(ReportPage(render_report(make_snapshot(*trials))).texts("p"))


@pytest.mark.parametrize(
    ("kept", "winner", "first"), [(400, "", "the first "), (500, " on 400 texts", "")]
)
def test_only_the_first_texts_of_a_long_split_are_compared(
    kept: int, winner: str, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The objective is that of all texts, of which a manifest has the first ones."""
    monkeypatch.setattr(comparison, "MAX_COMPARED_TEXTS", kept)
    errors = np.ones(400, dtype="<f4").tobytes()
    kept_texts = SplitCorrectness("0" * 64, None, 400, errors=errors)
    trial = make_trial(
        1,
        correctness=dict.fromkeys(("validation", "test"), kept_texts),
        metrics={split: {"rmse": 0.9, "loss": 0.4} for split in ("validation", "test")},
    )
    page = ReportPage(render_report(make_snapshot(trial, objective="loss", main_metric="rmse")))
    read = " ".join(page.texts("p"))
    assert f"Trial 1 has the best validation loss, 0.400{winner}: " in read
    assert f"On {first}400 test texts, which were not used for the selection" in read
    assert (", its loss 0.400." in read) == (not first)
    assert (", and its loss on all test texts 0.400." in read) == bool(first)
    assert ("validation RMSE of the first 400 texts" in page.texts("th")) == bool(first)
