"""Check that a page updates itself without being reloaded."""

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Page


@contextmanager
def no_reload(page: Page) -> Iterator[None]:
    """Fail if the page is reloaded within the block."""
    page.evaluate("window.notReloaded = true")
    yield
    assert page.evaluate("window.notReloaded === true"), "the page was reloaded"


def refresh(page: Page) -> None:
    """Update the live elements now, as the page does every two seconds."""
    page.evaluate("import('/static/live.js').then(({refresh}) => refresh())")
