"""Job comparison: curves, settings that differ, and the paired test."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.chart_points import points_from_api
from tests.browser.seeded_service import BEST, LAST, SMALL, SeededService

# The curves of one chart by name, as [step, value] points.
READ_CURVES = """(id) => Object.fromEntries(document.getElementById(id).data
  .filter((trace) => trace.showlegend !== false)
  .map((trace) => [trace.name, Array.from(trace.x, (x, i) => [x, trace.y[i]])]))"""


def test_compare_selected_jobs(page: Page, seeded: SeededService) -> None:
    page.goto("/")
    for name in (BEST, SMALL):
        page.get_by_role("checkbox", name=f"Compare {name}").check()
    page.get_by_role("button", name="Compare selected").click()
    expect(page).to_have_url(re.compile(r"/compare\?job=.+&job=.+"))
    for name in (BEST, SMALL):
        summary = seeded.service.get(f"/v1/jobs/{seeded.jobs[name]}")["summary"]
        row = page.locator(f"#row-{seeded.jobs[name]}")
        expect(row).to_contain_text(f"{summary['test']['accuracy'] * 100:.1f}%")
        expect(row).to_contain_text(re.compile(r"\d to \d"))
    expect(page.locator("#comparison-summary")).to_contain_text(re.compile(SMALL))
    expect(page.locator("#comparison")).to_contain_text("McNemar")


def test_curves_share_charts(page: Page, seeded: SeededService) -> None:
    jobs = {name: seeded.jobs[name] for name in (BEST, LAST)}
    page.goto("/compare?" + "&".join(f"job={each}" for each in jobs.values()))
    for chart, *curve in (
        ("accuracy", "validation", "accuracy"),
        ("loss", "validation", "loss"),
        ("training-loss", "train", "loss"),
    ):
        expect(page.locator(f"#{chart} .main-svg").first).to_be_visible()
        shown = page.evaluate(READ_CURVES, chart)
        for name, job_id in jobs.items():
            points = [
                [*point[2:]]
                for point in points_from_api(seeded.service, job_id)
                if [*point[:2]] == curve
            ]
            assert sorted(shown[name]) == sorted(points)


def test_axis_around_a_single_number(page: Page, seeded: SeededService) -> None:
    page.goto(f"/compare?job={seeded.jobs[BEST]}&job={seeded.jobs[LAST]}")
    ranges = page.evaluate(
        """async () => {
          const { axes } = await import("/static/curves.js");
          const curves = [[0.3], [null, -2, -2], [0.3, 0.4], [0]];
          return curves.map((y) => axes(undefined, [{ y }]).yaxis.range);
        }"""
    )
    assert ranges[:2] == [pytest.approx([0.27, 0.33]), pytest.approx([-2.2, -1.8])]
    assert ranges[2:] == [None, None]


def test_only_different_settings_are_listed(page: Page, seeded: SeededService) -> None:
    page.goto(f"/compare?job={seeded.jobs[BEST]}&job={seeded.jobs[SMALL]}")
    fields = page.locator("#settings tbody th").all_inner_texts()
    assert set(fields) == {"method.r", "method.alpha", "method.targets"}
    row = page.locator("#settings tr").filter(has_text="method.r")
    expect(row).to_contain_text(re.compile(r"8\s*2"))


def test_remove_and_add_a_job(page: Page, seeded: SeededService) -> None:
    page.goto(f"/compare?job={seeded.jobs[BEST]}&job={seeded.jobs[SMALL]}")
    page.get_by_role("link", name=f"Remove {SMALL}").click()
    expect(page.locator(f"#row-{seeded.jobs[SMALL]}")).to_have_count(0)
    page.locator("#add-jobs label").filter(has_text=LAST).get_by_role("checkbox").check()
    page.get_by_role("button", name="Compare").click()
    expect(page.locator(f"#row-{seeded.jobs[LAST]}")).to_be_visible()
    expect(page.locator(f"#row-{seeded.jobs[BEST]}")).to_be_visible()
