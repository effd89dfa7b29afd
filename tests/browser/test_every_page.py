"""Each page, in light and dark: no serious fault of accessibility, and nothing cut off on a phone.

Pictures of them go to docs/images when `UPDATE_DOCS=1` is set, else into a temporary folder.
"""

from io import BytesIO
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Page, ViewportSize

from tests.browser.conftest import Visit
from tests.browser.scene import BEST, FAILED, HELD, PICTURES, SMALL, Scene

DOCS = Path(__file__).parents[2] / "docs" / "images"
PHONE: ViewportSize = {"width": 375, "height": 740}
SCHEMES = ("light", "dark")
SERIOUS = ("serious", "critical")
PAGES = {
    "jobs": "/",
    "new-job": "/jobs/new",
    "job": "/jobs/{best}",
    "job-running": "/jobs/{held}",
    "job-failed": "/jobs/{failed}",
    "compare": "/compare?job={best}&job={small}",
    "sweeps": "/sweeps",
    "sweep": "/sweeps/{sweep}",
    "models": "/models",
    "model": "/models/sentiment",
    "try": "/try",
    "datasets": "/datasets",
    "dataset": "/datasets/tickets",
    "missing": "/jobs/nothing",
}


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return DOCS if PICTURES else tmp_path_factory.mktemp("pictures")


def address(name: str, scene: Scene) -> str:
    jobs = {"best": BEST, "small": SMALL, "held": HELD, "failed": FAILED}
    ids = {word: scene.jobs[job] for word, job in jobs.items()}
    return PAGES[name].format(**ids, sweep=scene.sweep)


def serious(page: Page) -> list[str]:
    """Faults that keep people out."""
    found = Axe().run(page).response["violations"]
    return [
        f"{each['id']}: {node['html']} {node['failureSummary']}"
        for each in found
        if each["impact"] in SERIOUS
        for node in each["nodes"]
    ]


def keep(page: Page, path: Path) -> None:
    """A picture of the whole page."""
    png = page.screenshot(full_page=True, animations="disabled", caret="hide")
    Image.open(BytesIO(png)).convert("RGB").save(path, "WEBP", quality=80, method=6)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", PAGES)
def test_anyone_can_use_it(
    name: str, scheme: str, scene: Scene, visit: Visit, pictures: Path
) -> None:
    page = visit(scene.service.url, color_scheme=scheme)
    page.goto(address(name, scene))
    keep(page, pictures / f"page-{name}-{scheme}.webp")
    assert serious(page) == []
