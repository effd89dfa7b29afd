"""The page of a random sample of live texts, with odd labels."""

from pathlib import Path

from playwright.sync_api import expect
from sqlalchemy import select

from app.feedback.tables import Feedback
from app.resources import Resources
from tests.app.serving.conftest import Publish, publish
from tests.browser.browser_errors import BrowserErrors
from tests.browser.conftest import OpenPage
from tests.browser.service import Service
from tests.browser.test_accessibility import FIND_OVERFLOW, violations
from tests.kept_predictions import add_prediction
from tests.tiny_artifact import make_artifact, make_several_targets_artifact

__all__ = ["publish"]

HOSTILE = '<img src=x onerror="alert(1)">'
ARABIC = "مرحبا بالعالم"
LABELS = (HOSTILE, ARABIC, "two  spaces", "x" * 256)


def labels(resources: Resources, model: str) -> list[tuple[str, str]]:
    """The targets and labels of the feedback on a model, the oldest first."""
    statement = select(Feedback.target, Feedback.label).where(Feedback.model == model)
    with resources.database.read() as session:
        return [
            (target, label) for target, label in session.execute(statement.order_by(Feedback.id))
        ]


def test_odd_labels(
    idle: Service, resources: Resources, publish: Publish, open_page: OpenPage, tmp_path: Path
) -> None:
    publish("odd", artifact=make_artifact(tmp_path / "a", labels=LABELS, top_label=ARABIC))
    for text in (HOSTILE, "x" * 500, ARABIC, "last"):
        add_prediction(resources.database, model="odd", answer=ARABIC, text=text, sampled_at=1.0)
    page = open_page(idle.url)
    page.goto("/models/odd/review")
    for width in (320, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width, page.evaluate(
            FIND_OVERFLOW
        )
    assert violations(page) == []
    for label in LABELS:
        page.locator(f"article >> nth=0 >> button >> nth={LABELS.index(label)}").click()
        left = len(LABELS) - LABELS.index(label) - 1
        if left:
            expect(page.locator("#review-status")).to_have_text(f"{left} left to label.")
    expect(page.locator("#review-status")).to_have_text("Nothing is left to label. Draw a sample.")
    expect(page.locator("#live-accuracy tbody tr")).to_have_count(1)
    assert sorted(labels(resources, "odd")) == sorted(("", label) for label in LABELS)


def test_error_is_in_view(
    idle: Service,
    resources: Resources,
    publish: Publish,
    open_page: OpenPage,
    browser_errors: BrowserErrors,
    tmp_path: Path,
) -> None:
    publish("long", artifact=make_artifact(tmp_path / "a"))
    for i in range(9):
        add_prediction(
            resources.database, model="long", answer="good", text=f"text {i}", sampled_at=1.0
        )
    page = open_page(idle.url)
    page.goto("/models/long/review")
    browser_errors.expect(409)
    refusal = {"detail": "The text was forgotten."}
    page.route("**/v1/feedback", lambda route: route.fulfill(status=409, json=refusal))
    page.locator("article >> nth=-1 >> button >> nth=0").click()
    alert = page.locator("#alert")
    expect(alert).to_have_text(refusal["detail"])
    expect(alert).to_be_in_viewport()
    assert page.evaluate("scrollY") > 0


def test_several_targets(
    idle: Service, resources: Resources, publish: Publish, open_page: OpenPage, tmp_path: Path
) -> None:
    publish("mails", artifact=make_several_targets_artifact(tmp_path / "a"))
    add_prediction(
        resources.database,
        model="mails",
        task="several_targets",
        answer='{"flags": ["rude"], "stars": 2.5, "topic": "refund"}',
        confidence={},
        sampled_at=1.0,
    )
    page = open_page(idle.url)
    page.goto("/models/mails/review")
    flags, stars, topic = (
        page.locator(f"[data-target={name}]") for name in ("flags", "stars", "topic")
    )
    flags.get_by_label("urgent").check()
    flags.get_by_role("button").click()
    expect(flags).to_have_count(0)
    stars.get_by_label("Number").fill("3.5")
    stars.get_by_role("button").click()
    expect(stars).to_have_count(0)
    topic.get_by_role("button", name="billing").click()
    expect(page.locator("#review-status")).to_have_text("Nothing is left to label. Draw a sample.")
    assert labels(resources, "mails") == [
        *(("flags", '["urgent"]'), ("stars", "3.5"), ("topic", "billing")),
    ]
