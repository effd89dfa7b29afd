"""Export as CSV and as results.txt."""

import csv
import io
from typing import Any

import pytest

from app.sweeps.results import to_csv, to_lora_results_txt
from tests.sweep_snapshots import grid_snapshot, make_snapshot, make_trial

ACCURACIES = {
    "train": {"accuracy": 0.92149},
    "validation": {"accuracy": 0.8998},
    "test": {"accuracy": 0.89444, "loss": 0.25},
}
SETTINGS = {"method.r": 8, "method.alpha": 16.0, "method.targets": ["query", "value"]}
# The format of the original script, without device and verbose.
BLOCK = """\
------------------------------------------------
lora_r: 8
lora_alpha: 16
lora_query: True
lora_key: False
lora_value: True
lora_projection: False
lora_mlp: False
lora_head: False
Train acc: 92.15%
Val acc:   89.98%
Test acc:  89.44%
------------------------------------------------
"""


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_results_txt_has_the_format_of_the_original() -> None:
    other = {"method.alpha": 0.5, "method.targets": ["mlp", "key"], "method.head": "lora"}
    text = to_lora_results_txt(
        make_snapshot(
            make_trial(1, settings=SETTINGS, metrics=ACCURACIES),
            make_trial(2, settings=other, metrics=ACCURACIES),
        )
    )
    first, second = text[: len(BLOCK)], text[len(BLOCK) :]
    assert first == BLOCK
    assert second.splitlines()[1:9] == [
        "lora_r: 8", "lora_alpha: 0.5", "lora_query: False", "lora_key: True", "lora_value: False",
        "lora_projection: False", "lora_mlp: True", "lora_head: True",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "fields",
    [
        {"budget": 0.5},
        {"state": "failed"},
        {"spec": {"method": {"type": "full"}}},
        {"metrics": {part: ACCURACIES[part] for part in ("validation", "test")}},
    ],
)
def test_results_txt_contains_only_complete_lora_trials(fields: dict[str, Any]) -> None:
    complete: dict[str, Any] = {"settings": SETTINGS, "metrics": ACCURACIES}
    assert to_lora_results_txt(make_snapshot(make_trial(1, **complete | fields))) == ""


def test_csv_has_a_row_per_trial() -> None:
    done = make_trial(1, settings=SETTINGS, metrics=ACCURACIES, seconds=12.5, job_id="j1")
    waiting = make_trial(2, settings={"method.r": 4}, state="waiting", budget=0.0, seconds=None)
    assert to_csv(make_snapshot(done, waiting)) == (
        "number,state,method.r,method.alpha,method.targets,budget,trainable_parameters,seconds,"
        "train_accuracy,validation_accuracy,test_accuracy,test_loss,job_id,error\r\n"
        "1,succeeded,8,16.0,query+value,1.0,1000,12.5,0.92149,0.8998,0.89444,0.25,j1,\r\n"
        "2,waiting,4,,,0.0,1000,,,,,,,\r\n"
    )


def test_csv_has_every_metric_of_a_sweep() -> None:
    snapshot = grid_snapshot()
    parsed = rows(to_csv(snapshot))
    assert [int(row["number"]) for row in parsed] == [trial.number for trial in snapshot.trials]
    for row, trial in zip(parsed, snapshot.trials, strict=True):
        for split, metrics in trial.metrics.items():
            for name, value in metrics.items():
                assert float(row[f"{split}_{name}"]) == value


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "\n=1", "＝1", "＋1", "－1", "＠x"],  # noqa: RUF001
)
def test_csv_has_no_formulas(text: str) -> None:
    (row,) = rows(
        to_csv(
            make_snapshot(
                make_trial(1, settings={"base": text, "list": [text, "b"]}, error=text),
                fields=("base", "list"),
            )
        )
    )
    assert (row["base"], row["list"], row["error"]) == (f"'{text}", f"'{text}+b", f"'{text}")


def test_csv_keeps_numbers_and_quotes() -> None:
    settings = {"a": -0.5, "b": True, "c": None, "d": {"x": 1}, "e": 'say "no", then\ngo'}
    (row,) = rows(to_csv(make_snapshot(make_trial(1, settings=settings), fields=tuple("abcde"))))
    assert [row[name] for name in "abcde"] == ["-0.5", "true", "", '{"x": 1}', settings["e"]]
