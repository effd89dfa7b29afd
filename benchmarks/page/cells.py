"""One cell of the benchmark: its own service and a Chromium."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

from benchmarks.page import listening_worker, stored
from benchmarks.page.plan import Size
from lora_core.process_settings import available_cores
from tests.browser.chromium import locate
from tests.browser.service import Service

HERE = Path(__file__).parent
DESK: ViewportSize = {"width": 1280, "height": 900}
PATIENCE = 60_000  # milliseconds
LAST_POINTS = 5000  # milliseconds from the end of the run


def run(cell: str, size: Size) -> dict[str, Any]:
    """Metrics of a cell named in `plan.CELLS`, all in seconds."""
    with (
        TemporaryDirectory(prefix="bench-page-", ignore_cleanup_errors=True) as folder,
        sync_playwright() as playwright,
        serving(Path(folder)) as service,
        playwright.chromium.launch(executable_path=locate()) as browser,
    ):
        metrics = MEASURES[cell](service, browser, size)
        return {"chromium": browser.version, "cores": available_cores(), **metrics}


@contextmanager
def serving(folder: Path) -> Iterator[Service]:
    service = Service(folder / "installation")
    try:
        yield service
    finally:
        service.close()


def measure_list(service: Service, browser: Browser, size: Size) -> dict[str, Any]:
    """First and largest contentful paint of the list of jobs."""
    stored.store_jobs(service.installation.database, jobs=size.jobs, steps=size.steps)
    seen = [visit(service, browser, "/", "paint.js") for _ in range(size.visits)]
    return spread("first_paint", seen) | spread("largest_paint", seen)


def measure_curves(service: Service, browser: Browser, size: Size) -> dict[str, Any]:
    """From navigation to the curves of a long run: as data, and as charts."""
    job_id = stored.store_long_job(service.installation.database, points=size.points)
    address = f"/jobs/{job_id}"
    seen = [visit(service, browser, address, "drawn.js") for _ in range(size.visits)]
    return {"points": size.points} | spread("seen", seen) | spread("interactive", seen)


def measure_live(service: Service, browser: Browser, size: Size) -> dict[str, Any]:
    """From the step that a worker receives to its point on the screen, for each step of a run."""
    notes = service.installation.folder / "steps"
    command = [sys.executable, "-P", "-m", listening_worker.__name__, str(notes)]
    service.installation.start(command, service.installation.environment())
    job_id = service.submit(**size.live_job)
    with opened(service, browser, "points.js") as page:
        page.goto(f"/jobs/{job_id}")
        service.wait_for_success(job_id)
        page.wait_for_timeout(LAST_POINTS)
        shown = page.evaluate("window.drawnAt")
    late = delays(
        listening_worker.received_steps(notes), {int(step): at for step, at in shown.items()}
    )
    return {"points": len(late)} | spread("point", [{"point": each} for each in late])


MEASURES: Mapping[str, Callable[[Service, Browser, Size], dict[str, Any]]] = {
    "list": measure_list,
    "live": measure_live,
    "curves": measure_curves,
}


def visit(service: Service, browser: Browser, address: str, script: str) -> dict[str, float]:
    """Timings of a visit with an empty cache, measured in the page."""
    with opened(service, browser, script) as page:
        answer = page.goto(address)
        assert answer is not None
        assert answer.ok, f"{address} answered {answer.status}"
        timings = page.evaluate("window.timings")  # a promise
    return {name: milliseconds / 1000 for name, milliseconds in timings.items()}


@contextmanager
def opened(service: Service, browser: Browser, script: str) -> Iterator[Page]:
    """A page that runs one of our scripts before its own."""
    context = browser.new_context(base_url=service.url, viewport=DESK)
    context.set_default_timeout(PATIENCE)
    context.add_init_script(path=HERE / script)
    try:
        yield context.new_page()
    finally:
        context.close()


def delays(received: Mapping[int, float], shown: Mapping[int, float]) -> list[float]:
    """Seconds for each step in order. Fails if one is missing."""
    missing = received.keys() - shown.keys()
    assert not missing, f"steps that were never on the screen: {sorted(missing)}"
    return [shown[step] - at for step, at in sorted(received.items())]


def spread(name: str, seen: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Median and maximum."""
    seconds = [each[name] for each in seen]
    return {
        f"{name}_median": round(median(seconds), 3), f"{name}_worst": round(max(seconds), 3)
    }  # fmt: skip
