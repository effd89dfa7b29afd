"""Points of curves, as the API returns them and as the page of a job draws them."""

from collections.abc import Callable

from playwright.sync_api import Page

from tests.browser.service import Service

# The points of all Plotly charts, including folded ones: chart id, trace name, points.
READ_CHARTS = """() => {
  document.getElementById("more-curves").open = true;
  return [...document.querySelectorAll(".js-plotly-plot")].flatMap(
    (chart) => chart.data.map(
      (trace) => [chart.id, trace.name, Array.from(trace.x, (x, i) => [x, trace.y[i]])]));
}"""
CHARTS = {
    "loss": "loss",
    "accuracy": "accuracy",
    "learning-rate": "learning_rate",
    "throughput": "reviews_per_second",
    "gradient-norm": "grad_norm",
}
SPLITS = {"training": "train", "validation": "validation", "test": "test"}
END_SECONDS = 300.0

Point = tuple[str, str, int, float | None]  # split, metric, step, value


def points_on_page(page: Page) -> set[Point]:
    """Return all points drawn on the page."""
    return {
        (SPLITS[curve], CHARTS[chart], step, value)
        for chart, curve, points in page.evaluate(READ_CHARTS)
        for step, value in points
    }


def points_from_api(service: Service, job_id: str) -> set[Point]:
    """Return all points of the same curves from the API."""
    return {
        (point["split"], point["name"], point["step"], point["value"])
        for point in service.get(f"/v1/jobs/{job_id}/metrics")["data"]
        if (point["name"], point["split"]) != ("accuracy", "train")
        and point["name"] in CHARTS.values()
    }


def wait_for(page: Page, condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition while the page keeps running."""
    for _ in range(round(END_SECONDS / 0.1)):
        if condition():
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"timed out waiting for {what} after {END_SECONDS:g} s")
