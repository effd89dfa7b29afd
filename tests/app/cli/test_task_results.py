"""Commands print the metrics of the task that a job has."""

import httpx2
import pytest

from app.resources import Resources
from tests.app.cli.conftest import Run
from tests.app.web.test_task_pages import succeed


@pytest.mark.parametrize(
    ("task_type", "result", "columns"),
    [
        ("multi_label", "F1 ", "validation F1 validation micro F1 test F1 test micro F1"),
        ("regression", "RMSE ", "validation RMSE validation MAE test RMSE test MAE"),
        ("ordered", "acc ", "validation acc validation F1 test acc test F1"),
    ],
)
def test_results_are_those_of_the_task(
    cli: Run, url: str, resources: Resources, task_type: str, result: str, columns: str
) -> None:
    with httpx2.Client(base_url=url) as client:
        good, bad = (
            succeed(client, resources, task_type, noise, name=name, model="mine")
            for noise, name in ((0.5, "good"), (3.0, "bad"))
        )
    listed = cli("jobs", "list").stdout
    assert f" {result}" in next(line for line in listed.splitlines() if good in line)
    shown = " ".join(cli("jobs", "show", good).stdout.split())
    assert columns in shown
    compared = next(
        line for line in cli("jobs", "compare", bad, good).stdout.splitlines() if "good" in line
    )
    assert result.removeprefix("acc ") in compared
    assert compared.split()[-1] == "-" or task_type == "ordered"  # p of McNemar's test
    header = cli("models", "show", "mine").stdout.splitlines()[2]
    assert f"test {result.split()[0]}" in header


def test_each_of_several_targets_has_its_calibration(
    cli: Run, url: str, resources: Resources
) -> None:
    with httpx2.Client(base_url=url) as client:
        job = succeed(client, resources, "several_targets")
    shown = " ".join(cli("jobs", "show", job).stdout.split())
    for sentence in (
        "flags: Calibration of each label changes the Brier score",
        "number: 90% of predictions on validation are within",
        "stars: Temperature",
    ):
        assert sentence in shown
