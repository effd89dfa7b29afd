"""Jobs side by side: curves over one another, settings that differ, how sure the difference is."""

import re

from playwright.sync_api import Page, expect

from tests.browser.curves import told
from tests.browser.scene import BEST, LAST, SMALL, Scene

# Curves of one chart: name → [step, value] of each point.
CURVES = """(id) => Object.fromEntries(document.getElementById(id).data
  .filter((trace) => trace.showlegend !== false)
  .map((trace) => [trace.name, Array.from(trace.x, (x, i) => [x, trace.y[i]])]))"""


def test_two_are_ticked_in_the_list_and_stand_beside_each_other(page: Page, scene: Scene) -> None:
    page.goto("/")
    for name in (BEST, SMALL):
        page.get_by_role("checkbox", name=f"Compare {name}").check()
    page.get_by_role("button", name="Compare the ticked jobs").click()
    expect(page).to_have_url(re.compile(r"/compare\?job=.+&job=.+"))
    for name in (BEST, SMALL):
        summary = scene.service.get(f"/v1/jobs/{scene.jobs[name]}")["summary"]
        row = page.locator(f"#row-{scene.jobs[name]}")
        expect(row).to_contain_text(f"{summary['test']['accuracy'] * 100:.1f} %")
        expect(row).to_contain_text(re.compile(r"\d to \d"))
    expect(page.locator("#paired")).to_contain_text(re.compile(SMALL))
    expect(page.locator("#columns")).to_contain_text("McNemar")


def test_their_curves_are_laid_over_one_another(page: Page, scene: Scene) -> None:
    jobs = {name: scene.jobs[name] for name in (BEST, LAST)}
    page.goto("/compare?" + "&".join(f"job={each}" for each in jobs.values()))
    for chart, *curve in (
        ("accuracy", "validation", "accuracy"),
        ("loss", "validation", "loss"),
        ("training", "train", "loss"),
    ):
        expect(page.locator(f"#{chart} .main-svg").first).to_be_visible()
        shown = page.evaluate(CURVES, chart)
        for name, job_id in jobs.items():
            points = [
                [*point[2:]] for point in told(scene.service, job_id) if [*point[:2]] == curve
            ]
            assert sorted(shown[name]) == sorted(points)


def test_settings_that_differ_are_told_and_no_others(page: Page, scene: Scene) -> None:
    page.goto(f"/compare?job={scene.jobs[BEST]}&job={scene.jobs[SMALL]}")
    fields = page.locator("#settings tbody th").all_inner_texts()
    assert set(fields) == {"method.r", "method.alpha", "method.targets"}
    row = page.locator("#settings tr").filter(has_text="method.r")
    expect(row).to_contain_text(re.compile(r"8\s*2"))


def test_one_is_taken_out_and_another_put_in(page: Page, scene: Scene) -> None:
    page.goto(f"/compare?job={scene.jobs[BEST]}&job={scene.jobs[SMALL]}")
    page.get_by_role("link", name=f"Take out {SMALL}").click()
    expect(page.locator(f"#row-{scene.jobs[SMALL]}")).to_have_count(0)
    page.locator("#add label").filter(has_text=LAST).get_by_role("checkbox").check()
    page.get_by_role("button", name="Compare").click()
    expect(page.locator(f"#row-{scene.jobs[LAST]}")).to_be_visible()
    expect(page.locator(f"#row-{scene.jobs[BEST]}")).to_be_visible()
