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


def refreshed(page: Page) -> None:
    """Take over the live parts now, as the page does every two seconds."""
    page.evaluate("import('/static/live.js').then(({refresh}) => refresh())")
