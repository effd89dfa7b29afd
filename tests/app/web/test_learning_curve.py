"""The learning curve on the page of a job: message, plot and table."""

import re

import pytest
from starlette.testclient import TestClient

from app.cli.output import print_more_labels_estimate
from app.resources import Resources
from app.web.svg_curves import BOTTOM, LEFT, RIGHT, TOP, LearningCurveView
from lora_core.data.more_labels_estimate import (
    ExpectedGain,
    ExpectedMetric,
    MeasuredMetric,
    MoreLabelsEstimate,
)
from tests.app.web.finished_jobs import HOSTILE, succeed
from tests.app.web.html_elements import visible_text

MEASURED = MoreLabelsEstimate(
    code="measured",
    message="With twice as many labels (2,000) expect +0.5 to +2.0 points.",
    texts=1000,
    basis="probe",
    used=800,
    measured=(MeasuredMetric(texts=40, value=0.6), MeasuredMetric(texts=640, value=0.72)),
    expected=(
        ExpectedMetric(texts=1000, value=0.73, low=0.71, high=0.75),
        ExpectedMetric(texts=2000, value=0.74, low=0.72, high=0.77),
        ExpectedMetric(texts=4000, value=0.75, low=0.72, high=0.8),
    ),
    gains=(
        ExpectedGain(texts=2000, low=0.005, high=0.02),
        ExpectedGain(texts=4000, low=0.01, high=0.05),
    ),
)
FEW = MoreLabelsEstimate(
    code="too_few", message=f"64 labeled texts are too few {HOSTILE}", texts=64
)


def page(client: TestClient, job_id: str) -> str:
    answer = client.get(f"/jobs/{job_id}", headers={"Accept": "text/html"})
    assert answer.status_code == 200, answer.text
    return answer.text


def test_job_page_shows_the_message_and_folds_the_curve(
    client: TestClient, resources: Resources
) -> None:
    text = page(client, succeed(client, resources, more_labels=MEASURED))
    section = text.partition('id="learning-curve"')[2].partition("</section>")[0]
    before, _, fold = section.partition("<details")
    assert MEASURED.message in before
    assert "a probe (logistic regression on the frozen base model), measured on 800" in fold
    assert fold.count("<circle") == 2
    table = visible_text(fold)
    assert "4,000 75.0% 72.0% to 80.0%" in table
    assert "40 60.0% measured" in table


def test_too_few_texts_show_a_message_and_no_curve(
    client: TestClient, resources: Resources
) -> None:
    text = page(client, succeed(client, resources, more_labels=FEW))
    section = text.partition('id="learning-curve"')[2].partition("</section>")[0]
    assert "64 labeled texts are too few" in section
    assert HOSTILE not in section
    assert "<svg" not in section
    without = page(client, succeed(client, resources))
    assert "learning-curve" not in without


def test_each_of_several_targets_has_a_curve(client: TestClient, resources: Resources) -> None:
    both = MoreLabelsEstimate.of_targets({"topic": MEASURED, "tone": FEW})
    text = page(client, succeed(client, resources, more_labels=both))
    section = text.partition('id="learning-curve"')[2].partition("</section>")[0]
    _, topic, tone = section.split("<h3>")
    assert topic.startswith("topic</h3>")
    assert MEASURED.message in topic
    assert 'id="learning-curve-topic-details"' in topic
    assert tone.startswith("tone</h3>")
    assert "64 labeled texts are too few" in tone
    assert "<svg" not in tone


def test_plot_stays_in_its_area_and_rises_with_accuracy() -> None:
    view = LearningCurveView.from_estimate(MEASURED)
    assert view is not None
    assert view.plot is not None
    outline = view.plot.measured + view.plot.expected + view.plot.band
    points = [(float(x), float(y)) for x, y in re.findall(r"([\d.]+) ([\d.]+)", outline)]
    assert len(points) == 2 + 3 + 6
    assert all(LEFT <= x <= RIGHT and TOP <= y <= BOTTOM for x, y in points)
    assert [point[0] for point in view.plot.points] == sorted(
        point[0] for point in view.plot.points
    )
    assert view.plot.points[0][1] > view.plot.points[1][1]  # y grows downward
    assert [tick.label for tick in view.plot.x_ticks] == ["40", "1,000", "2,000", "4,000"]
    assert [tick.label for tick in view.plot.y_ticks] == ["60%", "70%", "80%"]


def test_curve_of_an_error_has_its_unit(client: TestClient, resources: Resources) -> None:
    numbers = MoreLabelsEstimate(
        code="measured",
        message="With twice as many labels (2,000) expect the RMSE to change by -0.12 to -0.05.",
        texts=1000,
        metric="rmse",
        basis="linear",
        used=1000,
        measured=(MeasuredMetric(texts=50, value=1.92), MeasuredMetric(texts=800, value=1.7)),
        expected=(ExpectedMetric(texts=1000, value=1.65, low=1.6, high=1.69),),
    )
    text = page(client, succeed(client, resources, more_labels=numbers))
    section = text.partition('id="learning-curve"')[2].partition("</section>")[0]
    assert 'aria-label="RMSE by number of labeled texts.' in section
    assert "1,000 1.65 1.6 to 1.69" in visible_text(section)
    view = LearningCurveView.from_estimate(numbers)
    assert view is not None
    assert view.plot is not None
    assert [tick.label for tick in view.plot.y_ticks] == ["1.6", "1.775", "1.95"]


def test_flat_curve() -> None:
    flat = MEASURED.model_copy(
        update={
            "code": "not_above_majority",
            "measured": (
                MeasuredMetric(texts=40, value=1.0),
                MeasuredMetric(texts=80, value=1.0),
            ),
            "expected": (),
            "gains": (),
        }
    )
    view = LearningCurveView.from_estimate(flat)
    assert view is not None
    assert view.plot is not None
    assert view.plot.band == ""
    assert view.plot.measured.startswith("M48.0 ")


def test_command_line_output(capsys: pytest.CaptureFixture[str]) -> None:
    print_more_labels_estimate(MEASURED)
    output = " ".join(capsys.readouterr().out.split())
    assert output.startswith("Would more labels help? With twice as many labels (2,000) expect")
    assert output.endswith("a fine-tuned model usually lies above it.")
    print_more_labels_estimate(MoreLabelsEstimate.of_targets({"topic": MEASURED, "tone": FEW}))
    output = " ".join(capsys.readouterr().out.split())
    assert output.startswith("Would more labels help? topic: With twice as many labels (2,000)")
    assert "tone: 64 labeled texts are too few" in output
    print_more_labels_estimate(None)
    assert capsys.readouterr().out == ""
