"""That a page brings itself up to date: nobody loads it again."""

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Page


@contextmanager
def stays(page: Page) -> Iterator[None]:
    """Fails if the page is loaded within the block."""
    page.evaluate("window.stays = true")
    yield
    assert page.evaluate("window.stays === true"), "the page was loaded again"


def refreshed(page: Page, times: int = 1) -> None:
    """Wait until the live parts were taken over so often."""
    page.evaluate(
        """times => new Promise(done => document.addEventListener(
          "live", () => { if (--times <= 0) done(); }))""",
        times,
    )
