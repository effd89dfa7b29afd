"""The learning curve of a job: its sentence, its drawing, and the same numbers in a table."""

import re

import pytest
from starlette.testclient import TestClient

from app.cli.results import print_more_labels
from app.resources import Resources
from app.web.learning_curve import BOTTOM, LEFT, RIGHT, TOP, MoreLabelsView
from lora_core.data.more_labels import Expected, Gain, Measured, MoreLabels
from tests.app.web.finished import HOSTILE, succeed
from tests.app.web.markup import plain

MEASURED = MoreLabels(
    code="measured",
    message="With twice as many labels (2,000) expect +0.5 to +2.0 points.",
    texts=1000,
    basis="probe",
    used=800,
    measured=(Measured(texts=40, accuracy=0.6), Measured(texts=640, accuracy=0.72)),
    expected=(
        Expected(texts=1000, accuracy=0.73, low=0.71, high=0.75),
        Expected(texts=2000, accuracy=0.74, low=0.72, high=0.77),
        Expected(texts=4000, accuracy=0.75, low=0.72, high=0.8),
    ),
    gains=(Gain(texts=2000, low=0.005, high=0.02), Gain(texts=4000, low=0.01, high=0.05)),
)
FEW = MoreLabels(code="too_few", message=f"64 labeled texts are too few {HOSTILE}", texts=64)


def page(client: TestClient, job_id: str) -> str:
    answer = client.get(f"/jobs/{job_id}", headers={"Accept": "text/html"})
    assert answer.status_code == 200, answer.text
    return answer.text


def test_the_page_of_a_job_says_it_and_folds_the_curve(
    client: TestClient, resources: Resources
) -> None:
    text = page(client, succeed(client, resources, more_labels=MEASURED))
    section = text.partition('id="more-labels"')[2].partition("</section>")[0]
    before, _, fold = section.partition("<details")
    assert MEASURED.message in before
    assert "a probe (logistic regression on the frozen base), measured on 800" in fold
    assert fold.count("<circle") == 2
    told = plain(fold)
    assert "4,000 75.0 % 72.0 % to 80.0 %" in told
    assert "40 60.0 % measured" in told


def test_few_texts_have_a_sentence_and_no_curve(client: TestClient, resources: Resources) -> None:
    text = page(client, succeed(client, resources, more_labels=FEW))
    section = text.partition('id="more-labels"')[2].partition("</section>")[0]
    assert "64 labeled texts are too few" in section
    assert HOSTILE not in section
    assert "<svg" not in section
    without = page(client, succeed(client, resources))
    assert "more-labels" not in without


def test_the_drawing_stays_in_its_box_and_rises_with_accuracy() -> None:
    view = MoreLabelsView.of(MEASURED)
    assert view is not None
    assert view.drawing is not None
    outline = view.drawing.measured + view.drawing.expected + view.drawing.band
    points = [(float(x), float(y)) for x, y in re.findall(r"([\d.]+) ([\d.]+)", outline)]
    assert len(points) == 2 + 3 + 6
    assert all(LEFT <= x <= RIGHT and TOP <= y <= BOTTOM for x, y in points)
    assert [dot[0] for dot in view.drawing.dots] == sorted(dot[0] for dot in view.drawing.dots)
    assert view.drawing.dots[0][1] > view.drawing.dots[1][1]  # down is less
    assert [tick.title for tick in view.drawing.across] == ["40", "1,000", "2,000", "4,000"]
    assert [tick.title for tick in view.drawing.up] == ["60 %", "70 %", "80 %"]


def test_one_level_line_can_be_drawn_too() -> None:
    flat = MEASURED.model_copy(
        update={
            "code": "not_above_majority",
            "measured": (Measured(texts=40, accuracy=1.0), Measured(texts=80, accuracy=1.0)),
            "expected": (),
            "gains": (),
        }
    )
    view = MoreLabelsView.of(flat)
    assert view is not None
    assert view.drawing is not None
    assert view.drawing.band == ""
    assert view.drawing.measured.startswith("M48.0 ")


def test_the_command_line_says_it(capsys: pytest.CaptureFixture[str]) -> None:
    print_more_labels(MEASURED.model_dump(mode="json"))
    told = " ".join(capsys.readouterr().out.split())
    assert told.startswith("Would more labels help? With twice as many labels (2,000) expect +0.5")
    assert told.endswith("a fine-tuned model usually lies above it.")
    print_more_labels(None)
    assert capsys.readouterr().out == ""
