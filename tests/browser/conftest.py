"""Tests in a real Chromium against a real service with real jobs: `make test-browser`."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

from app.resources import Resources, open_resources
from tests.browser.browser_errors import BrowserErrors
from tests.browser.chromium import locate
from tests.browser.seeded_service import SeededService
from tests.browser.service import Service

TIMEOUT = 30_000  # milliseconds; training runs on the same two cores
DESKTOP: ViewportSize = {"width": 1280, "height": 900}

OpenPage = Callable[..., Page]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests that only look at the seeded service first."""
    items.sort(key=lambda item: "test_accessibility" not in item.nodeid)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    expect.set_options(timeout=TIMEOUT)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=locate())
        yield browser
        browser.close()


@pytest.fixture
def browser_errors() -> Iterator[BrowserErrors]:
    """The errors of every page that the test opens; unexpected ones fail the test."""
    errors = BrowserErrors()
    yield errors
    assert errors.unexpected() == []


@pytest.fixture
def open_page(chromium: Browser, browser_errors: BrowserErrors) -> Iterator[OpenPage]:
    """Open a page in a new browser context."""
    contexts = []

    def open_in_new_context(url: str, **options: Any) -> Page:
        settings = {"base_url": url, "viewport": DESKTOP, "reduced_motion": "reduce", **options}
        context = chromium.new_context(**settings)
        context.set_default_timeout(TIMEOUT)
        browser_errors.listen(context)
        contexts.append(context)
        return context.new_page()

    yield open_in_new_context
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeededService]:
    """A service without API keys, seeded with jobs, a sweep and models."""
    folder = tmp_path_factory.mktemp("seeded")
    service = Service(folder / "installation")
    try:
        seeded_service = SeededService(service, folder)
        seeded_service.seed()
        yield seeded_service
    finally:
        service.close()


@pytest.fixture
def page(open_page: OpenPage, seeded: SeededService) -> Page:
    """A page of the seeded service, in a desktop viewport."""
    return open_page(seeded.service.url)


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """An empty service without a worker: jobs stay queued."""
    service = Service(tmp_path_factory.mktemp("empty") / "installation")
    yield service
    service.close()


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service without a worker."""
    service = Service(tmp_path_factory.mktemp("idle") / "installation")
    yield service
    service.close()


@pytest.fixture(scope="module")
def resources(idle: Service) -> Iterator[Resources]:
    """What tests write the data of the idle service with."""
    opened = open_resources(idle.installation.settings)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def locked(seeded: SeededService) -> str:
    """The URL of the seeded service with API keys on."""
    return seeded.service.open_api(auth="on")


@pytest.fixture(scope="session")
def api_key(seeded: SeededService, locked: str) -> str:
    """An API key with full access."""
    return seeded.service.create_key()
