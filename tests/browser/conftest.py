"""A real Chromium in front of a real service with real jobs: `make test-browser`."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

from app.auth import secrets, service
from tests.browser.chromium import locate
from tests.browser.complaints import Complaints
from tests.browser.scene import Scene
from tests.browser.service import Service

PATIENCE = 30_000  # milliseconds: two cores, and trainings beside the browser
DESK: ViewportSize = {"width": 1280, "height": 900}

Visit = Callable[..., Page]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The scene is looked at before any test changes it."""
    items.sort(key=lambda item: "test_every_page" not in item.nodeid)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=locate())
        yield browser
        browser.close()


@pytest.fixture
def complaints() -> Iterator[Complaints]:
    """Of every page that the test opens: it fails if there is one."""
    heard = Complaints()
    yield heard
    assert heard.unexpected() == []


@pytest.fixture
def visit(chromium: Browser, complaints: Complaints) -> Iterator[Visit]:
    """Opens an empty page of a service, in a profile of its own."""
    opened = []

    def open_page(url: str, **options: Any) -> Page:
        chosen = {"base_url": url, "viewport": DESK, "reduced_motion": "reduce", **options}
        context = chromium.new_context(**chosen)
        context.set_default_timeout(PATIENCE)
        complaints.listen(context)
        opened.append(context)
        return context.new_page()

    yield open_page
    for context in opened:
        context.close()


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The service with keys off, with all that `Scene.build` puts into it."""
    folder = tmp_path_factory.mktemp("scene")
    made = Service(folder / "installation")
    try:
        built = Scene(made, folder)
        built.build()
        yield built
    finally:
        made.close()


@pytest.fixture
def page(visit: Visit, scene: Scene) -> Page:
    """A page of the scene, on a desk."""
    return visit(scene.service.url)


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that nobody has used yet. No worker: what is sent waits."""
    made = Service(tmp_path_factory.mktemp("empty") / "installation")
    yield made
    made.close()


@pytest.fixture(scope="session")
def locked(scene: Scene) -> str:
    """The URL of the scene with keys on."""
    return scene.service.open_api(auth="on")


@pytest.fixture(scope="session")
def key(scene: Scene, locked: str) -> str:
    """One that may do everything."""
    installation = scene.service.installation
    with installation.database.write() as session:
        pepper = secrets.load_pepper(installation.settings)
        return service.create(session, pepper=pepper, name="ada").text
