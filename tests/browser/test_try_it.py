"""A text box that answers as one types, and says which words drove the answer."""

import re

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.browser.complaints import Complaints
from tests.browser.scene import MODEL, Scene

TEXT = "a film with a great hero and a lovely plot and a bad end"


@pytest.fixture
def box(page: Page, scene: Scene, complaints: Complaints) -> Locator:
    """Of the page, with the model of the scene."""
    complaints.expect(429, 503)  # a model that is still loading: the page asks again
    scene.promote(1)
    page.goto(f"/try?model={MODEL}")
    return page.get_by_label("Your text")


def asked(scene: Scene, text: str, model: str = MODEL) -> str:
    """What the API answers, as the page writes it."""
    best = scene.service.post("/predict", {"inputs": text, "model": model})[0]
    return f"{best['label']}, {best['score'] * 100:.1f} %"


def test_the_answer_comes_as_one_types_and_changes_with_the_text(
    box: Locator, page: Page, scene: Scene
) -> None:
    verdict = page.locator("#answer-model .verdict")
    box.press_sequentially(TEXT, delay=10)
    expect(verdict).to_have_text(asked(scene, TEXT))
    box.press_sequentially(" that is awful")
    expect(verdict).to_have_text(asked(scene, f"{TEXT} that is awful"))
    bars = page.locator("#answer-model .bars li")
    expect(bars).to_have_count(2)
    expect(bars.first).to_contain_text(re.compile(r"(bad|good)[\d.]+ %"))
    box.fill("")
    expect(page.locator("#answer-model")).to_have_count(0)


def test_it_says_at_once_that_it_waits_and_soon_that_the_model_is_loaded(
    box: Locator, page: Page, scene: Scene
) -> None:
    held: list[Route] = []
    page.route(
        "**/predict", lambda route: held.append(route)
    )  # as a model that is loaded for the first answer
    box.fill(TEXT)
    panel = page.locator("#answer-model")
    waiting = panel.get_by_role("status").first
    expect(waiting).to_have_text("Asking the model…")
    expect(panel.get_by_role("progressbar")).to_be_visible()
    expect(waiting).to_contain_text("The model is being loaded.")
    with page.expect_request("**/predict"):
        box.press_sequentially("s")
    expect(waiting).to_contain_text("The model is being loaded.")  # still so for the next question
    loading = {"error": "Loading.", "error_type": "Unhealthy", "code": "model_loading"}
    headers = {"Retry-After": "1", "Content-Type": "application/json"}
    held[-1].fulfill(status=503, json=loading, headers=headers)
    expect(waiting).to_contain_text("The model is being loaded.")
    expect(panel.get_by_role("alert")).to_be_hidden()
    page.unroute("**/predict")
    expect(panel.locator(".verdict")).to_have_text(asked(scene, f"{TEXT}s"))
    expect(panel.get_by_role("progressbar")).to_be_hidden()


def test_what_went_wrong_stands_beside_the_model_of_which_it_is_true(
    box: Locator, page: Page, scene: Scene, complaints: Complaints
) -> None:
    complaints.expect(409)
    damaged = {"error": "The files are damaged.", "error_type": "Backend", "code": "x"}
    page.route(re.compile(r"%3A2/predict$"), lambda route: route.fulfill(status=409, json=damaged))
    page.get_by_label("Beside it").select_option(f"{MODEL}:2")
    box.fill(TEXT)
    expect(page.locator("#answer-beside").get_by_role("alert")).to_have_text(damaged["error"])
    expect(page.locator("#answer-beside").get_by_role("progressbar")).to_be_hidden()
    expect(page.locator("#answer-model .verdict")).to_have_text(asked(scene, TEXT))
    expect(page.locator("#answer-model").get_by_role("alert")).to_be_hidden()


def test_it_says_which_words_drove_the_answer(box: Locator, page: Page) -> None:
    box.fill(TEXT)
    reasons = page.locator("#answer-model .reasons")
    expect(reasons.get_by_role("heading")).to_contain_text("Which words drove")
    expect(reasons.locator(".spoken")).to_have_text(TEXT)
    strongest = reasons.get_by_role("listitem")
    expect(strongest.first).to_have_text(re.compile(r"^[+\u2212]\d+\.\d bad$"))
    assert {told.split()[-1] for told in strongest.all_inner_texts()} <= set(TEXT.split())
    other = page.locator("#answer-model .bars button").last
    label = other.inner_text()
    other.click()
    expect(reasons.get_by_role("heading")).to_contain_text(label)


def test_two_models_answer_side_by_side(box: Locator, page: Page, scene: Scene) -> None:
    box.fill(TEXT)
    page.get_by_label("Beside it").select_option(f"{MODEL}:2")
    for place, ref in (("model", MODEL), ("beside", f"{MODEL}:2")):
        expect(page.locator(f"#answer-{place} .verdict")).to_have_text(asked(scene, TEXT, ref))
    first, second = (page.locator(f"#answer-{each}").bounding_box() for each in ("model", "beside"))
    assert first is not None
    assert second is not None
    assert abs(first["y"] - second["y"]) < 1  # on a desk, in one row
    assert first["x"] + first["width"] <= second["x"]
    page.goto(page.url)  # the address tells both
    expect(page.get_by_label("Beside it")).to_have_value(f"{MODEL}:2")
