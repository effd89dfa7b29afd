"""The "Try it" page: predictions and explanations while typing."""

import re
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.app.serving.conftest import Publish, publish
from tests.browser.browser_errors import BrowserErrors
from tests.browser.conftest import OpenPage
from tests.browser.seeded_service import MODEL, SeededService
from tests.browser.service import Service

__all__ = ["publish"]

TEXT = "a film with a great hero and a lovely plot and a bad end"


@pytest.fixture
def box(page: Page, seeded: SeededService, browser_errors: BrowserErrors) -> Locator:
    """The text box, with the seeded model selected."""
    browser_errors.expect(429, 503)  # while the model is loading; the page retries
    seeded.promote(1)
    page.goto(f"/try?model={MODEL}")
    return page.get_by_label("Text", exact=True)


def prediction(seeded: SeededService, text: str, model: str = MODEL) -> str:
    """Return the API's prediction as the page formats it."""
    best = seeded.service.post("/predict", {"inputs": text, "model": model})[0]
    return f"{best['label']}, {best['score'] * 100:.1f}%"


def test_prediction_follows_the_text(box: Locator, page: Page, seeded: SeededService) -> None:
    verdict = page.locator("#answer-model .verdict")
    box.press_sequentially(TEXT, delay=10)
    expect(verdict).to_have_text(prediction(seeded, TEXT))
    box.press_sequentially(" that is awful")
    expect(verdict).to_have_text(prediction(seeded, f"{TEXT} that is awful"))
    bars = page.locator("#answer-model .bars li")
    expect(bars).to_have_count(2)
    expect(bars.first).to_contain_text(re.compile(r"(bad|good)[\d.]+%"))
    box.fill("")
    expect(page.locator("#answer-model")).to_have_count(0)


def test_waiting_and_loading_messages(box: Locator, page: Page, seeded: SeededService) -> None:
    pending: list[Route] = []
    page.route("**/predict", lambda route: pending.append(route))
    box.fill(TEXT)
    panel = page.locator("#answer-model")
    waiting = panel.get_by_role("status").first
    expect(waiting).to_have_text("Waiting for the model…")
    expect(panel.get_by_role("progressbar")).to_be_visible()
    expect(waiting).to_contain_text("Loading the model.")
    with page.expect_request("**/predict"):
        box.press_sequentially("s")
    expect(waiting).to_contain_text("Loading the model.")  # also for the next request
    loading = {"error": "Loading.", "error_type": "Unhealthy", "code": "model_loading"}
    headers = {"Retry-After": "1", "Content-Type": "application/json"}
    pending[-1].fulfill(status=503, json=loading, headers=headers)
    expect(waiting).to_contain_text("Loading the model.")
    expect(panel.get_by_role("alert")).to_be_hidden()
    page.unroute("**/predict")
    expect(panel.locator(".verdict")).to_have_text(prediction(seeded, f"{TEXT}s"))
    expect(panel.get_by_role("progressbar")).to_be_hidden()


def test_error_is_shown_at_its_model(
    box: Locator, page: Page, seeded: SeededService, browser_errors: BrowserErrors
) -> None:
    browser_errors.expect(409)
    damaged = {"error": "The files are damaged.", "error_type": "Backend", "code": "x"}
    page.route(re.compile(r"%3A2/predict$"), lambda route: route.fulfill(status=409, json=damaged))
    page.get_by_label("Compare with").select_option(f"{MODEL}:2")
    box.fill(TEXT)
    expect(page.locator("#answer-compare").get_by_role("alert")).to_have_text(damaged["error"])
    expect(page.locator("#answer-compare").get_by_role("progressbar")).to_be_hidden()
    expect(page.locator("#answer-model .verdict")).to_have_text(prediction(seeded, TEXT))
    expect(page.locator("#answer-model").get_by_role("alert")).to_be_hidden()


def test_explanation(box: Locator, page: Page) -> None:
    box.fill(TEXT)
    explanation = page.locator("#answer-model .explanation")
    expect(explanation.get_by_role("heading")).to_contain_text("Why")
    expect(explanation.locator(".explained-text")).to_have_text(TEXT)
    top_words = explanation.get_by_role("listitem")
    expect(top_words.first).to_have_text(re.compile(r"^[+\u2212]\d+\.\d bad$"))
    assert {row.split()[-1] for row in top_words.all_inner_texts()} <= set(TEXT.split())
    other = page.locator("#answer-model .bars button").last
    label = other.inner_text()
    other.click()
    expect(explanation.get_by_role("heading")).to_contain_text(label)


EXPLANATION = {
    "label": "bad", "score": 0.9, "empty_score": 0.5, "grouped": False, "texts": 2,
    "words": [{"text": "a", "field": "text", "start": 0, "end": 1, "score": 0.4}],
}  # fmt: skip


def test_similar_training_examples(box: Locator, page: Page) -> None:
    familiarity = {"unfamiliar": False, "similarity": 0.8, "threshold": 0.4, "expected_share": 0.01}
    shown = {"familiarity": {**familiarity, "held_out_texts": 99}, "nearest": [
        {"row": 17, "label": "bad", "similarity": 0.8, "text": "<b>dull</b> plot"},
        {"row": 3, "labels": [], "similarity": -0.25, "hidden": "scope"},
    ]}  # fmt: skip
    page.route("**/explain", lambda route: route.fulfill(json=EXPLANATION | shown))
    box.fill(TEXT)
    examples = page.locator("#answer-model .by-example")
    expect(examples.locator(".familiarity")).to_have_text(
        "Similar to texts that it was trained on."
    )
    items = examples.get_by_role("listitem")
    expect(items).to_have_count(2)
    expect(items.first).to_have_text("bad similarity 0.8000, row 17<b>dull</b> plot")
    expect(items.last).to_have_text(
        "no label similarity \u22120.2500, row 3text hidden: this needs the scope datasets:read"
    )
    shown["familiarity"] |= {"unfamiliar": True, "similarity": 0.1}  # type: ignore[operator]
    box.press_sequentially(" x")
    expect(examples.locator(".familiarity")).to_have_text(
        "Unlike anything it was trained on: its fifth nearest example has a similarity of "
        "0.1000, and 99% of texts like the training texts have 0.4000 or more. Do not rely on "
        "this prediction."
    )
    shown["familiarity"] |= {"unfamiliar": None, "held_out_texts": 7}  # type: ignore[operator]
    box.press_sequentially("y")
    expect(examples.locator(".familiarity")).to_contain_text("Its 7 held-out texts are too few")
    box.fill("")
    expect(examples).to_have_count(0)


def test_version_without_training_examples(box: Locator, page: Page) -> None:
    older: dict[str, Any] = {"familiarity": None, "nearest": []}
    page.route("**/explain", lambda route: route.fulfill(json=EXPLANATION | older))
    box.fill(TEXT)
    examples = page.locator("#answer-model .by-example")
    expect(examples.locator(".familiarity")).to_contain_text("has no training examples")
    expect(examples.get_by_role("heading")).to_be_hidden()


def test_two_models_side_by_side(box: Locator, page: Page, seeded: SeededService) -> None:
    box.fill(TEXT)
    page.get_by_label("Compare with").select_option(f"{MODEL}:2")
    for panel, ref in (("model", MODEL), ("compare", f"{MODEL}:2")):
        expect(page.locator(f"#answer-{panel} .verdict")).to_have_text(
            prediction(seeded, TEXT, ref)
        )
    first, second = (
        page.locator(f"#answer-{each}").bounding_box() for each in ("model", "compare")
    )
    assert first is not None
    assert second is not None
    assert abs(first["y"] - second["y"]) < 1  # in one row on a desktop
    assert first["x"] + first["width"] <= second["x"]
    page.goto(page.url)  # the URL has both models
    expect(page.get_by_label("Compare with")).to_have_value(f"{MODEL}:2")


def test_labels_with_thresholds(box: Locator, page: Page) -> None:
    outputs = [
        {"label": "acting", "score": 0.8, "predicted": False},
        {"label": "music", "score": 0.6, "predicted": True},
    ]
    respond(page, "multi_label", outputs)
    page.route("**/info", lambda route: route.fulfill(
        json={"thresholds": {"acting": 0.9, "music": 0.25}}
    ))  # fmt: skip
    box.fill(TEXT)
    expect(page.locator("#answer-model .verdict")).to_have_text("music, 60.0%")
    bars = page.locator("#answer-model .score-bar")
    expect(bars.first).to_have_class("score-bar below")
    expect(bars.last).to_have_class("score-bar")
    expect(bars.first).to_have_attribute("title", "Threshold 90.0%")
    expect(bars.last.locator("i")).to_have_attribute("style", "left: 25%;")


def test_number_with_its_interval(box: Locator, page: Page) -> None:
    respond(page, "regression", [{"label": "value", "score": 3.25, "low": -0.5, "high": 7.0}])
    box.fill(TEXT)
    verdict = page.locator("#answer-model .verdict")
    expect(verdict).to_have_text("3.25, probably \u22120.5 to 7")
    expect(page.locator("#answer-model .bars li")).to_have_count(0)


def respond(page: Page, task: str, outputs: list[dict[str, object]]) -> None:
    """Answer every prediction with these outputs; do not explain it."""
    headers = {"X-Task": task, "X-Model-Version": f"{MODEL}:1"}
    page.route("**/predict", lambda route: route.fulfill(json=outputs, headers=headers))
    page.get_by_label("Explain predictions").uncheck()


def test_model_of_pairs_gets_a_second_box(
    box: Locator, page: Page, browser_errors: BrowserErrors
) -> None:
    browser_errors.expect(422)

    def answer(route: Route) -> None:
        body: Any = route.request.post_data_json
        if isinstance(body["inputs"], str):
            problem = {"error": "Input 0 is a single text.", "code": "text_pair_required"}
            route.fulfill(status=422, json=problem)
        else:
            route.fulfill(json=[{"label": "same", "score": 0.9}])

    page.route("**/predict", answer)
    page.get_by_label("Explain predictions").uncheck()
    box.fill(TEXT)
    page.get_by_label("Second text").fill("another text")
    expect(page.locator("#answer-model .verdict")).to_have_text("same, 90.0%")


def test_labels_of_several_targets(idle: Service, publish: Publish, open_page: OpenPage) -> None:
    publish()
    page = open_page(idle.url)
    topics = [{"label": f"topic {i}", "score": 0.2 - i / 100} for i in range(10)]
    urgent = [{"label": "yes", "score": 0.95}, {"label": "no", "score": 0.05}]
    headers = {"X-Task": "several_targets", "X-Model-Version": "sentiment:1"}
    answer = {"topic": topics, "urgent": urgent}
    page.route("**/predict", lambda route: route.fulfill(json=answer, headers=headers))
    page.route("**/info", lambda route: route.fulfill(json={"thresholds": {}}))
    explanation = EXPLANATION | {"familiarity": None, "nearest": []}
    explained_labels = {"topic": "topic 0", "urgent": "yes"}
    page.route("**/explain?target=*", lambda route: route.fulfill(
        json=explanation | {"label": explained_labels[route.request.url.rpartition("=")[2]]}
    ))  # fmt: skip
    page.goto("/try")
    page.get_by_label("Text", exact=True).fill(TEXT)
    bars = page.locator("#answer-model .bars li")
    expect(bars).to_have_count(8 + 1 + 2)
    expect(bars.nth(8)).to_have_text("and 2 more, at most 12.0% each")
    expect(bars.nth(9)).to_have_text("urgent/yes95.0%")
    explained = page.locator("#answer-model .bars [aria-pressed=true]")
    expect(explained).to_have_text("topic/topic 0")
    bars.nth(9).get_by_role("button").click()
    expect(explained).to_have_text("urgent/yes")
