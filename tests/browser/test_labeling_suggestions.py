"""Suggestions beside texts to label: shown, but never chosen; none on random texts."""

from playwright.sync_api import Page, expect

from tests.browser.seeded_service import LABELING, SeededService
from tests.browser.test_labeling import annotations, expect_saved, label, open_texts

MAX_TEXTS = 30  # a fifth of them are random
NAMES = ("bad", "good", "negative", "positive")


def test_suggestions_are_shown_but_never_chosen(page: Page, seeded: SeededService) -> None:
    open_texts(page, LABELING)
    chosen, suggestion = page.locator("#labels .chosen"), page.locator("#suggestion")
    shown: dict[str, bool] = {}  # text -> whether its suggestion was shown
    while len(set(shown.values())) < 2 and len(shown) < MAX_TEXTS:
        text = page.locator("#text").inner_text()
        shown[text] = suggestion.is_visible()
        assert shown[text] is ("Drawn at random" not in page.locator("#reason").inner_text())
        if shown[text]:
            assert page.locator("#suggested").inner_text() in (
                "bad",
                "good",
                "negative",
                "positive",
            )
            assert "%" in page.locator("#suggested-score").inner_text()
            assert page.locator("#nearest li").count() > 0
        expect(chosen).to_have_count(0)
        page.keyboard.press("Enter")  # accepts nothing
        expect(page.locator("#text")).to_have_text(text)
        label(page, "1")
    assert set(shown.values()) == {True, False}
    expect_saved(page)
    stored = annotations(seeded.service, LABELING)[: len(shown)]
    assert all((each["suggested"] is None) is (each["reason"] == "random") for each in stored)
    expect(page.locator("#progress")).to_contain_text("texts drawn at random.")
    expect(page.locator("#progress")).to_contain_text("Suggestions are fitted on")


def test_suggestions_can_be_switched_off(page: Page) -> None:
    open_texts(page, LABELING)
    page.get_by_text("Keys and options").click()
    page.get_by_label("Show suggestions").uncheck()
    for _ in range(3):
        expect(page.locator("#suggestion")).to_be_hidden()
        label(page, "s")
    page.reload()
    expect(page.locator("#text")).to_be_visible()
    expect(page.locator("#suggestion")).to_be_hidden()
