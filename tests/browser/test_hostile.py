"""Whatever people write stands on every page as text, and never as markup."""

from typing import NamedTuple

import pytest
from playwright.sync_api import Page, expect

from tests.browser import files
from tests.browser.complaints import Complaints
from tests.browser.scene import BEST, TOO_FAST, Scene
from tests.browser.stays import refreshed

EVIL = '<img src=x onerror="window.caught=1">'
FILE = "<img src=x onerror=caught=1>.csv"
NAME = "hostile"  # where only a slug may stand
CAUGHT = "() => window.caught !== undefined || document.querySelectorAll('[onerror]').length > 0"


class Hostile(NamedTuple):
    """Ids."""

    job: str
    failed: str
    sweep: str


@pytest.fixture(scope="session")
def hostile(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Hostile:
    """A data set, jobs, a model and a sweep whose every free text is markup."""
    rows = [(f"{EVIL} is {word} {i}", label) for i in range(20) for word, label in LABELS.items()]
    path = files.write(tmp_path_factory.mktemp("hostile") / FILE, rows, files.COLUMNS)
    scene.service.upload(path, NAME)
    run = scene.quick(data={"source": NAME, "max_length": 48}, method={"type": "lora"})
    told = {"name": EVIL, "metadata": {"from": EVIL}}
    tagged = {"tags": ["<img src=x onerror=caught=1>"], "notes": EVIL}
    job = scene.service.submit(**run, **told, **tagged, register_as=NAME)
    failed = scene.service.submit(**{**run, "method": {"type": "full"}, "optim": TOO_FAST}, **told)
    sent = {"job": run, "space": {"method.r": [2, 4]}, **told}
    sweep = str(scene.service.post("/v1/sweeps", sent)["id"])
    scene.service.succeeded(job)
    scene.sweep_ended(sweep)
    return Hostile(job, failed, sweep)


LABELS = {"good": EVIL, "bad": f"{EVIL} not"}
PAGES = {
    "/": True,  # whether it is to be read there
    "/?q=%3Cimg": True,
    "/?q=%3Cimg%20no": True,
    "/jobs/new?from={job}": True,
    "/jobs/new?data=%3Cimg%20src=x%20onerror=caught=1%3E": False,
    "/?tag=%3Cimg%20src=x%20onerror=caught=1%3E": True,
    "/jobs/{job}": True,
    "/jobs/{failed}": True,
    "/compare?job={job}&job={best}": True,
    "/compare?job={job}&job=%3Cimg%20src=x%20onerror=caught=1%3E": False,
    "/sweeps": True,
    "/sweeps/{sweep}": True,
    "/models": False,
    "/models/hostile": True,
    "/models/%3Cimg%20src=x%20onerror=caught=1%3E": False,
    "/try?model=hostile:1": False,
    "/try?model=%3Cimg%20src=x%20onerror=caught=1%3E": False,
    "/datasets": True,
    "/datasets/hostile": True,
    "/datasets/%3Cimg%20src=x%20onerror=caught=1%3E": False,
    "/%3Cimg%20src=x%20onerror=caught=1%3E": False,
}


@pytest.mark.parametrize("address", PAGES)
def test_markup_stands_there_as_text(
    address: str, page: Page, scene: Scene, hostile: Hostile, complaints: Complaints
) -> None:
    complaints.expect(404, 422)  # names that are none
    page.goto(address.format(**hostile._asdict(), best=scene.jobs[BEST]))
    if PAGES[address]:
        shown = page.get_by_text("<img src=x", exact=False).or_(
            page.locator("input[value*='<img']")
        )
        expect(shown.first).to_be_visible()
    if page.locator("[data-live]").count():
        refreshed(page)
    assert not page.evaluate(CAUGHT)


def test_labels_and_words_of_an_answer_are_text(
    page: Page, hostile: Hostile, complaints: Complaints
) -> None:
    complaints.expect(429, 503)
    page.goto("/try?model=hostile:1")
    page.get_by_label("Your text").fill(f"{EVIL} is good")
    answer = page.locator("#answer-model")
    expect(answer.locator(".verdict")).to_contain_text(EVIL)
    expect(answer.locator(".spoken")).to_contain_text(EVIL)
    assert not page.evaluate(CAUGHT)


def test_a_question_before_an_action_holds_text(page: Page, hostile: Hostile) -> None:
    page.goto(f"/sweeps/{hostile.sweep}")
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("dialog")).to_contain_text(EVIL)
    assert not page.evaluate(CAUGHT)
