"""A newcomer's walk at the page: from texts without labels to a model with a live accuracy.

    python -m benchmarks.loop.walk [--labels 300]

A script does what a person would do in a real browser, and knows the hidden labels. Only the
traffic is sent by requests, as the newcomer's own program would. The last line is one JSON object:
keys, clicks and seconds of each step, and what the page showed in the end.
"""

import argparse
import csv
import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from playwright.sync_api import Locator, Page, expect, sync_playwright

from benchmarks.small import sets
from tests.browser.chromium import locate
from tests.browser.service import Service

NAME, MODEL = "reviews", "drug-reviews"
LABELS, REVIEWED = 300, 60
TIMEOUT = 60_000  # milliseconds
LONG = 30 * TIMEOUT  # of what a worker computes


class Newcomer:
    """Somebody at the page, whose keys and clicks are counted by step."""

    def __init__(self, page: Page, hidden: Mapping[str, str]) -> None:
        """`hidden`: the label of each text."""
        self.page = page
        self.hidden = hidden
        self.labels = sorted(set(hidden.values()))
        self.steps: dict[str, dict[str, float]] = {}
        self.keys = self.clicks = 0

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure a step."""
        self.keys = self.clicks = 0
        began = time.monotonic()
        yield
        seconds = round(time.monotonic() - began, 1)
        self.steps[name] = {"keys": self.keys, "clicks": self.clicks, "seconds": seconds}

    def click(self, name: str, *, role: Any = "button", exact: bool = False) -> None:
        self.clicks += 1
        self.page.get_by_role(role, name=name, exact=exact).click()

    def type(self, field: Locator, text: str) -> None:
        self.clicks += 1
        self.keys += len(text)
        field.fill(text)

    def upload(self, file: Path) -> None:
        """Upload the texts; the file has no labels, which the form asks about."""
        self.page.goto("/datasets")
        self.page.get_by_label("File", exact=True).set_input_files(file)
        self.clicks += 1
        self.click("Upload")
        expect(self.page.get_by_role("heading", name="Choose columns")).to_be_visible()
        self.click("Upload")
        self.click("Label these texts", role="link")

    def create_project(self, base: str | None = None) -> None:
        page = self.page
        self.type(page.get_by_label("Name"), NAME)
        self.type(page.get_by_role("textbox", name="Labels"), "\n".join(self.labels))
        if base:
            page.get_by_text("More settings").click()
            page.get_by_label("Base model").fill(base)
        self.click("Start labeling")
        page.wait_for_url(f"**/labeling/{NAME}/label")
        expect(page.locator("#text")).to_be_visible()
        # A script is faster than the vectors, which a person need not wait for.
        expect(page.locator("#progress")).to_contain_text("Suggestions start", timeout=LONG)

    def label(self, count: int) -> dict[str, int]:
        """Label texts by keys; return how often the suggestion was shown, and right."""
        page, shown, right = self.page, 0, 0
        for _ in range(count):
            text = page.locator("#text").text_content() or ""
            label = self.hidden[text]
            if not page.locator("#suggestion.absent").count():
                shown += 1
                right += page.locator("#suggested").inner_text() == label
            page.keyboard.press(str(1 + self.labels.index(label)))
            self.keys += 1
            expect(page.locator("#text")).not_to_have_text(text)
        expect(page.locator("#save-state")).to_have_text("All saved")
        return {"suggestions": shown, "right": right}

    def make_dataset(self) -> str:
        """Return the accuracy so far, as the page shows it."""
        page = self.page
        self.click(NAME, role="link", exact=True)
        page.wait_for_url(f"**/labeling/{NAME}")
        expect(page.locator("#progress")).to_contain_text("so far")
        so_far = page.locator("#progress p").nth(1).inner_text()
        self.click("Make a dataset")
        expect(page.get_by_role("dialog")).to_be_visible()
        page.keyboard.press("Enter")
        self.keys += 1
        expect(page.locator("#made")).to_be_visible()
        return so_far

    def train(self, method: str | None) -> str:
        """Return the verdict."""
        page = self.page
        self.click("Train on it", role="link")
        if method:
            page.get_by_role("radio", name=re.compile(rf"^{method}\b")).check()
        expect(page.get_by_label("Plan", exact=True)).to_contain_text("about")
        self.click("Start job")
        page.wait_for_url(re.compile(r"/jobs/[0-9a-f-]{36}$"))
        register = page.get_by_label("Register as a model")
        register.wait_for(timeout=LONG)
        verdict = page.locator("#verdict").inner_text()
        self.type(register, MODEL)
        self.click("Register", exact=True)
        expect(page.get_by_role("button", name="Promote")).to_be_visible()
        page.wait_for_load_state()
        self.click("Promote")
        page.locator("#confirm-yes").click()
        self.clicks += 1
        expect(page.locator(".version")).to_contain_text("production")
        return " ".join(verdict.split())

    def review(self, count: int) -> str:
        """Label a random sample of the traffic; return the row of the live accuracy."""
        page = self.page
        page.goto(f"/models/{MODEL}")
        self.click("Review live texts", role="link")
        self.click("Draw a sample")
        expect(page.locator(".review-text").first).to_be_visible()
        page.wait_for_load_state()  # keys work from then on
        for _ in range(count):
            text = page.locator(".review-text").first
            content = text.locator(".review-content").first.text_content() or ""
            label = text.get_by_role("button", name=self.hidden[content], exact=True)
            page.keyboard.press(label.get_attribute("aria-keyshortcuts") or "")
            self.keys += 1
            expect(text.locator(".review-content", has_text=content)).to_have_count(0)
        expect(page.locator("#live-accuracy tbody")).to_be_visible()
        return " ".join(page.locator("#live-accuracy tbody tr").first.inner_text().split())


def walk(  # noqa: PLR0913
    service: Service, page: Page, folder: Path, pile: Mapping[str, str], live: Mapping[str, str],
    *, labels: int, reviewed: int, base: str | None = None, method: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Label `labels` texts of a pile, train, and review some of the live texts.

    Without `base` and `method` those that the forms offer.
    """
    person = Newcomer(page, {**pile, **live})
    file = folder / f"{NAME}.csv"
    with file.open("w", encoding="utf-8", newline="") as opened:
        csv.writer(opened).writerows([["text"], *([text] for text in pile)])
    shown: dict[str, Any] = {}
    with person.step("upload"):
        person.upload(file)
    with person.step("create"):
        person.create_project(base)
    with person.step("label"):
        shown["suggestions"] = person.label(labels)
    with person.step("dataset"):
        shown["so_far"] = person.make_dataset()
    with person.step("train"):
        shown["verdict"] = person.train(method)
    send_traffic(service, list(live))
    with person.step("review"):
        shown["live"] = person.review(reviewed)
    total = {
        key: round(sum(each[key] for each in person.steps.values()), 1)
        for key in ("keys", "clicks", "seconds")
    }
    return {"texts": len(pile), "labels": labels, **total, "steps": person.steps, **shown}


def send_traffic(service: Service, texts: list[str]) -> None:
    """Send each text, as a program would that uses the model, and wait until all are kept."""
    for text in texts:
        service.post("/predict", {"inputs": text, "model": MODEL})
    kept = f"loraworks_traffic_kept_total {len(texts)}.0"
    service.wait("the traffic", lambda: kept in service.client.request("GET", "/metrics").text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", type=int, default=LABELS)
    labels = parser.parse_args().labels
    texts = sets.load("drug-rating")
    pile, live = (
        {re.sub(r"\r+\n", "\n", row.text): row.label for row in part}  # as a page shows them
        for part in (texts.pool, texts.test)
    )
    with TemporaryDirectory(prefix="walk-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        service = Service(folder / "installation", keep_traffic="texts", concurrency=1)
        try:
            service.installation.worker()
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=locate())
                page = browser.new_page(base_url=service.url)
                page.set_default_timeout(TIMEOUT)
                expect.set_options(timeout=TIMEOUT)
                found = walk(
                    service, page, folder, pile, live, labels=labels, reviewed=REVIEWED
                )  # fmt: skip
                browser.close()
        finally:
            service.close()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
