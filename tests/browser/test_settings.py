"""The page of settings in each state of MLflow: no accessibility violation, no overflow."""

from pathlib import Path
from typing import Any

from playwright.sync_api import expect

from app.database.base import now
from app.outbox.tables import MlflowServer
from app.resources import Resources
from tests.browser.conftest import OpenPage
from tests.browser.service import Service
from tests.browser.test_accessibility import (
    FIND_OVERFLOW,
    PHONE,
    SCHEMES,
    save_screenshot,
    screenshot_folder,
    violations,
)

__all__ = ["screenshot_folder"]

URL = "https://mlflow.internal.example/a-rather-long-prefix-of-the-path/tracking"


def test_the_page_follows_the_state(
    idle: Service, resources: Resources, open_page: OpenPage, screenshot_folder: Path
) -> None:
    page = open_page(idle.url)
    page.goto("/settings")
    states: dict[str, dict[str, Any] | None] = {
        "connected": {"last_success_at": now()},
        "failing": {
            "failures": 3,
            "last_error_code": "mlflow_unreachable",
            "last_error": f"MLflow at {URL} did not respond: it timed out.",
            "last_error_at": now(),
        },
        "Off.": None,
    }
    for state, columns in states.items():
        with resources.database.write() as session:
            for row in session.query(MlflowServer):
                session.delete(row)
            session.flush()
            if columns is not None:
                session.add(MlflowServer(id=1, tracking_uri=URL, experiment="reviews", **columns))
        expect(page.locator("#mlflow")).to_contain_text(state)  # without reloading
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            if state == "connected":
                save_screenshot(page, screenshot_folder / f"page-settings-{scheme}.webp")
            assert violations(page) == [], (state, scheme)
        size = page.viewport_size
        page.set_viewport_size(PHONE)
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= PHONE["width"], page.evaluate(FIND_OVERFLOW)
        assert size is not None
        page.set_viewport_size(size)
