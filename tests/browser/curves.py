"""Points of curves: as the API has them, and as the page of a job has drawn them."""

from collections.abc import Callable

from playwright.sync_api import Page

from tests.browser.service import Service

# What Plotly has drawn, also where it is folded: the chart, the curve, and its points.
DRAWN = """() => {
  document.getElementById("more-curves").open = true;
  return [...document.querySelectorAll(".js-plotly-plot")].flatMap(
    (chart) => chart.data.map(
      (trace) => [chart.id, trace.name, Array.from(trace.x, (x, i) => [x, trace.y[i]])]));
}"""
CHARTS = {
    "loss": "loss",
    "accuracy": "accuracy",
    "rate": "learning_rate",
    "speed": "reviews_per_second",
    "norm": "grad_norm",
}
PARTS = {"training": "train", "validation": "validation", "test": "test"}
END_SECONDS = 300.0

Point = tuple[str, str, int, float | None]  # part, figure, step, value


def drawn(page: Page) -> set[Point]:
    """All points on the screen."""
    return {
        (PARTS[curve], CHARTS[chart], step, value)
        for chart, curve, points in page.evaluate(DRAWN)
        for step, value in points
    }


def told(service: Service, job_id: str) -> set[Point]:
    """All points of those curves that the API has."""
    return {
        (point["split"], point["name"], point["step"], point["value"])
        for point in service.get(f"/v1/jobs/{job_id}/metrics")["data"]
        if (point["name"], point["split"]) != ("accuracy", "train")
        and point["name"] in CHARTS.values()
    }


def wait_for(page: Page, look: Callable[[], bool], what: str) -> None:
    """Wait until it is so, while the page goes on."""
    for _ in range(round(END_SECONDS / 0.1)):
        if look():
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"{what} did not come within {END_SECONDS:g} s")
