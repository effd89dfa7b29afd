"""Points of curves: as the API has them, and as a page has drawn them."""

from playwright.sync_api import Page

# Points of all charts by Plotly on the page: what it was given, and so what it has drawn.
DRAWN = """() => [...document.querySelectorAll(".js-plotly-plot")].flatMap(
  (chart) => chart.data.flatMap(
    (trace) => Array.from(trace.x ?? [], (x, i) => [chart.id, trace.name, x, trace.y[i]])))"""
Point = tuple[str, str, int, float | None]


def drawn(page: Page) -> list[Point]:
    """Chart, curve, step, value of each point on the screen."""
    return [tuple(point) for point in page.evaluate(DRAWN)]
