"""`loraworks train --local`: training without a service."""

import json
import shlex
import sys
from pathlib import Path

import pytest

from app.cli import local_subprocess
from lora_core import manifest
from tests.app.cli.conftest import Run, answer
from tests.tiny_base import make_base, make_reviews

STARTED = {
    "event": "started", "total_steps": 2, "trainable_parameters": 5, "total_parameters": 9,
    "examples": {"train": 8}, "labels": ["bad", "good"], "device": "cpu", "precision": "fp32",
    "threads": 1, "learning_rate": 0.1,
}  # fmt: skip


def scripted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str) -> None:
    """Replace the training with a program."""
    program = tmp_path / "program.py"
    program.write_text(f"import json, sys, time\nSTARTED = {STARTED!r}\n{code}")
    monkeypatch.setattr(local_subprocess, "LORA_CORE_COMMAND", (sys.executable, str(program)))


@pytest.mark.e2e
@pytest.mark.parametrize(
    "method",
    [
        "linear",
        pytest.param("lora", marks=pytest.mark.slow),  # small: tests/lora_core/test_main.py
    ],
)
def test_a_run_writes_an_artifact_and_shows_its_events(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setenv("LORAWORKS_CACHE", str(tmp_path / "cache"))
    data, options = make_reviews(tmp_path / "reviews.csv"), ["--method", method]
    if method == "lora":
        options += ["--base", str(make_base(tmp_path / "base"))]
        options += ["--r", "2", "--batch-size", "8", "--epochs", "1"]
    result = run("train", "--local", "--out", str(tmp_path / "out"), "--data", str(data), *options)
    assert result.exit_code == 0, result.output
    made = manifest.verify(tmp_path / "out")["spec"]["method"]
    assert (made["type"], made.get("r")) == (method, 2 if method == "lora" else None)
    assert "parameters are trainable" in result.stderr
    assert "Saved the model to" in " ".join(result.stdout.split())
    if method == "linear":
        return
    assert "linear (TF-IDF + logistic regression)" in result.stdout
    assert "alibration error on the test split" in " ".join(result.stdout.split())


@pytest.mark.parametrize(
    ("fitted", "shown"),
    [
        ({"validation": {"accuracy": 0.5}, "test": {"accuracy": 0.25}},
         "linear model (TF-IDF + logistic regression): validation accuracy 50.0%"),
        ({"validation": {}, "test": {"rmse": 0.25, "mae": 0.2}},
         "linear model (TF-IDF + ridge regression): test RMSE 0.25"),
    ],
)  # fmt: skip
def test_the_linear_model_is_named_and_has_a_metric(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fitted: object, shown: str
) -> None:
    event = {"event": "linear_model", "train_texts": 9, "seconds": 1.0, "cached": False}
    done = {"event": "finished", "summary": {"test": {"accuracy": 0.5}}}
    scripted(
        monkeypatch,
        tmp_path,
        "print(json.dumps(STARTED))\n"
        f"print(json.dumps({event!r} | {fitted!r}))\n"
        f"print(json.dumps({done!r}))",
    )
    assert shown in run("train", "--local", "--out", str(tmp_path / "out")).stderr


def test_failure_exits_with_1_and_its_code(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = {"event": "failed", "code": "one_class", "message": "Only one label.", "detail": {}}
    scripted(monkeypatch, tmp_path, f"print(json.dumps({failed!r})); sys.exit(65)")
    result = run("train", "--local", "--out", str(tmp_path / "out"))
    assert result.exit_code == 1
    assert result.stderr.endswith("error: Only one label. (one_class)\n")


def test_a_crash_shows_the_end_of_the_log(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, tmp_path, "print(json.dumps(STARTED)); raise SystemExit('out of luck')")
    result = run("train", "--local", "--out", str(tmp_path / "out"))
    assert result.exit_code == 1
    assert "status 1: out of luck (training_crashed)" in result.stderr


def test_json_output_is_only_the_result(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = {"event": "finished", "summary": {"test": {"accuracy": 0.5}}}
    scripted(monkeypatch, tmp_path, f"print(json.dumps(STARTED)); print(json.dumps({done!r}))")
    result = run("train", "--local", "--out", str(tmp_path / "out"), "--json")
    assert answer(result)["summary"] == done["summary"]
    assert result.stderr == ""


def test_the_data_checks_of_local_files_are_shown(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = {"event": "finished", "summary": {"test": {"accuracy": 0.5}}}
    scripted(monkeypatch, tmp_path, f"print(json.dumps(STARTED)); print(json.dumps({done!r}))")
    path = tmp_path / "my films.csv"
    rows = [f"film {i},{'Ab'[i % 2]},c;{'aA'[i % 2]},test" for i in range(20)]
    path.write_text("\n".join(["text,kind,topics,Split", *rows]))

    def findings(*options: str) -> str:
        out = ("--local", "--out", str(tmp_path / "out"))
        result = run("train", str(path), *out, "--method", "linear", *options, "--json")
        assert result.exit_code == 0, result.output
        return result.stderr

    shown = findings("--label-column", "kind")
    assert "warning: The column 'Split' was not read" in shown
    assert f"loraworks datasets check '{path}' --label-column kind\n" in shown
    options = ("--task", "multi_label", "--label-separator", ";")
    shown = findings("--label-column", "topics", *options)
    assert "error: Labels that differ in case" in shown
    assert shown.endswith("--label-column topics --task multi_label --label-separator ';'\n")
    shown = findings("--targets", "kind,topics")
    command = shown.splitlines()[-1].removeprefix("Examples and advice: loraworks ")
    assert run(*shlex.split(command)).exit_code == 1  # `a` and `A`
    assert findings("--label-column", "nothing") == ""  # the training refuses the file


def test_ctrl_c_stops_the_training(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = tmp_path / "stopped"
    scripted(
        monkeypatch,
        tmp_path,
        "import os, signal\n"
        f"signal.signal(signal.SIGTERM, lambda *_: (open({str(stopped)!r}, 'w'), os._exit(75)))\n"
        "print(json.dumps(STARTED), flush=True)\n"
        "time.sleep(60)",
    )

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(local_subprocess, "_apply_event", interrupt)
    assert run("train", "--local", "--out", str(tmp_path / "out")).exit_code == 130
    assert stopped.exists()


def test_invalid_input_is_reported_before_start(run: Run, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    rank = run("train", "--local", "--out", out, "--r", "0")
    assert rank.exit_code == 2
    assert "error: method.r: must be at least 1" in rank.stderr
    for option in (("--register-as", "sentiment"), ("--wait",), ("--watch",)):
        of_the_service = run("train", "--local", "--out", out, *option)
        assert (of_the_service.exit_code, option[0] in of_the_service.stderr) == (2, True)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").write_text(json.dumps({}))
    taken = run("train", "--local", "--out", out)
    assert taken.exit_code == 2
    assert "(output_exists)" in taken.stderr
