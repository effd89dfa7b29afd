"""`python -m lora_core`, most of it in a fork of the process of the tests."""

import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lora_core import manifest
from lora_core.events import parse_event
from lora_core.specs.method import LoraSpec
from tests.lora_artifact import make_lora_artifact
from tests.lora_core.training.processes import fork
from tests.slow import slow_but
from tests.tiny_base import make_base, make_reviews

pytestmark = pytest.mark.e2e

COMMAND = [sys.executable, "-m", "lora_core"]


@pytest.fixture
def spec_file(tmp_path: Path) -> Path:
    spec = {
        "method": {"type": "lora", "r": 4},
        "base": str(make_base(tmp_path / "base")),
        "data": {"source": str(make_reviews(tmp_path / "reviews.csv"))},
        "optim": {"epochs": 2, "batch_size": 8},
        "runtime": {"threads": 1},
        "result": {"cross_validation": False},
    }
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(spec))
    return path


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "LORAWORKS_CACHE": str(tmp_path / "cache")}


@pytest.fixture
def endless(spec_file: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A run that would take hours, past its first step."""
    spec = json.loads(spec_file.read_text())
    spec["optim"]["epochs"] = 1000
    spec_file.write_text(json.dumps(spec))
    child = subprocess.Popen(
        [*COMMAND, "train", str(spec_file),
         "--out", str(spec_file.parent / "out"), "--exit-with-parent"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    with child:
        assert child.stdout is not None
        for line in child.stdout:
            if parse_event(line).event == "step":
                break
        yield child
        child.kill()


def run(*arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, env=environment, timeout=100
    )


def forked(*arguments: str, output: Path, status: int = 0) -> str:
    """The output of a command that exits with this status, in a process that is forked."""
    output.unlink(missing_ok=True)
    child = fork(list(arguments), {"LORAWORKS_CACHE": str(output.parent / "cache")}, output)
    child.join(60)
    assert child.exitcode == status
    return output.read_text()


def test_train_writes_events_and_an_artifact_for_predict(spec_file: Path, tmp_path: Path) -> None:
    out, output = tmp_path / "out", tmp_path / "output"
    printed = forked("train", str(spec_file), "--out", str(out), output=output)
    events = [parse_event(line) for line in printed.splitlines()]
    assert events[-1].event == "finished"
    assert manifest.verify(out)["labels"] == ["bad", "good"]

    printed = forked("predict", str(out), "a good film", "bad", output=output)
    answers = [json.loads(line) for line in printed.splitlines()]
    assert [answer["text"] for answer in answers] == ["a good film", "bad"]
    for answer in answers:
        assert sum(row["score"] for row in answer["labels"]) == pytest.approx(1)


# Found before anything is loaded, as tests/lora_core/test_problems.py shows for every kind.
OTHER_SPECS = [
    # The one that needs torch; tests/app/jobs/test_bad_bodies.py covers it without a process.
    ('{"method": {"type": "lora", "r": 999}}', "rank_too_large", "at most 384"),
    ('{"method": {"type": "lora", "r": 0}}', "invalid_spec", "method.r"),
    ('{"method": {"type": "lora", "r": -1}}', "invalid_spec", "method.r"),
    ('{"method": {"type": "lora", "r": true}}', "invalid_spec", "an integer"),
    ('{"method": {"type": "lora", "r": "8"}}', "invalid_spec", "an integer"),
    ('{"method": {"type": "lora", "alpha": NaN}}', "invalid_spec", "method.alpha"),
    ('{"method": {"type": "lora", "targets": ["knee"]}}', "invalid_spec", "targets"),
    ('{"method": {"type": "magic"}}', "invalid_spec", "method"),
    ('{"method": {"type": "full"}, "color": 1}', "invalid_spec", "color"),
]


@pytest.mark.parametrize(
    ("content", "code", "word"),
    [
        ("{", "invalid_spec", "JSON"),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in OTHER_SPECS),
    ],
)
def test_bad_input_is_reported_without_a_traceback(
    tmp_path: Path, environment: dict[str, str], content: str, code: str, word: str
) -> None:
    path = tmp_path / "spec.json"
    path.write_text(content)
    done = run("train", str(path), "--out", str(tmp_path / "out"), environment=environment)
    assert done.returncode == 65
    event = parse_event(done.stdout.splitlines()[-1])
    assert event.event == "failed"
    assert event.code == code
    assert word in event.message
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_train_refuses_an_output_directory_with_files(tmp_path: Path) -> None:
    """Otherwise they would become files of the artifact."""
    spec, out = tmp_path / "spec.json", tmp_path / "out"
    spec.write_text('{"method": {"type": "linear"}, "data": {"source": "no.csv"}}')
    out.mkdir()
    (out / "manifest.json").write_text("{}")
    child = fork(["train", str(spec), "--out", str(out)], {}, tmp_path / "output")
    child.join(60)
    assert child.exitcode == 65
    assert json.loads((tmp_path / "output").read_text())["code"] == "output_exists"


@pytest.mark.slow  # tests/lora_core/training/test_kill.py stops forked processes at every moment
def test_sigterm_stops_at_the_next_step(endless: subprocess.Popen[str]) -> None:
    endless.send_signal(signal.SIGTERM)
    assert endless.wait(timeout=30) == 75


@pytest.mark.slow  # the small form is in tests/worker/test_spawn.py
def test_process_exits_when_its_parent_dies(endless: subprocess.Popen[str]) -> None:
    assert endless.stdin is not None
    endless.stdin.close()
    assert endless.wait(timeout=30) == 75


@pytest.mark.parametrize(
    "seconds", ["nan", *(pytest.param(s, marks=pytest.mark.slow) for s in ("-1", "inf", "soon"))]
)
def test_invalid_checkpoint_interval_is_refused(
    tmp_path: Path, environment: dict[str, str], seconds: str
) -> None:
    arguments = ["train", "spec.json", "--out", str(tmp_path), "--checkpoint-seconds", seconds]
    done = run(*arguments, environment=environment)
    assert done.returncode == 2
    assert "--checkpoint-seconds" in done.stderr


@pytest.mark.parametrize(
    "targets",
    slow_but(
        ["topic,stars=regression", '{"topic": {}, "stars": {"type": "regression"}}'],
        "topic,stars=regression",
    ),
)
def test_inspect_reads_several_targets(
    targets: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    file = tmp_path / "tickets.csv"
    rows = [f"text {i},t{i % 2},{i}" for i in range(20)]
    file.write_text("\n".join(["text,topic,stars", *rows]))
    done = run("inspect", str(file), "--targets", targets, environment=environment)
    profile, *diagnoses = map(json.loads, done.stdout.splitlines())
    assert profile["labels"] == {"topic/t0": 10, "topic/t1": 10}
    assert diagnoses[0]["targets"]["stars"]["numbers"]["maximum"] == 19
    estimates = diagnoses[0]["more_labels"]["targets"]
    assert {name: each["code"] for name, each in estimates.items()} == {
        "topic": "too_few",
        "stars": "too_few",
    }
    done = run("inspect", str(file), "--targets", "topic", environment=environment)
    assert json.loads(done.stdout)["code"] == "invalid_spec"


def test_inspect_describes_a_file_and_refuses_a_damaged_one(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    reviews = make_reviews(tmp_path / "reviews.csv", rows=10)
    done = run("inspect", str(reviews), environment=environment)
    assert done.returncode == 0, done.stderr
    profile, diagnosis = map(json.loads, done.stdout.splitlines())
    assert (profile["rows"], diagnosis["rows"]) == (10, 10)
    assert profile["labels"] == {"bad": 5, "good": 5}
    assert [each["code"] for each in diagnosis["findings"]] == ["few_rows", "rare_labels"]
    assert diagnosis["more_labels"]["code"] == "too_few"

    output = tmp_path / "output"
    make_reviews(reviews, rows=260)
    printed = forked("inspect", str(reviews), output=output)
    _, diagnosis, full = map(json.loads, printed.splitlines())
    assert (diagnosis["more_labels"], diagnosis["findings"]) == (None, [])
    assert full["more_labels"]["code"] == "measured"
    assert {**full, "more_labels": None} == diagnosis

    reviews.write_text("text,label\nfine,good\n,bad\n")
    printed = forked("inspect", str(reviews), output=output, status=65)
    assert json.loads(printed)["code"] == "empty_text"

    reviews.write_text("text,label\nfine,gö\x9bod\nbad,bad\n", encoding="utf-8")
    printed = forked("inspect", str(reviews), output=output)
    profile, _ = map(json.loads, printed.splitlines())
    assert profile["labels"] == {"bad": 1, "gö od": 1}
    assert printed.isascii()  # contains no terminal escape sequences


def test_failure_is_reported_while_the_parent_is_connected(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    """The thread that waits for the parent must not block the exit."""
    child = subprocess.Popen(
        [*COMMAND, "train", str(tmp_path / "no.json"),
         "--out", str(tmp_path / "out"), "--exit-with-parent"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    with child:
        assert child.wait(timeout=60) == 65
        assert child.stdout is not None
        assert json.loads(child.stdout.readline())["code"] == "invalid_spec"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--format", "peft", "--int8"), "--int8 needs --format onnx"),
        (("--format", "transformers", "--base", "x"), "--base needs --format peft"),
        (("--format", "onnx", "--base", "x"), "--base needs --format peft"),
        (("--format", "onnx", "--texts", "x"), "--texts needs --int8"),
        (("--format", "peft", "--texts", "x"), "--texts needs --int8"),
    ],
)
def test_export_options_that_do_not_apply_are_refused(
    options: tuple[str, ...], problem: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    arguments = ["export", str(tmp_path), *options, "--out", str(tmp_path / "out")]
    refused = run(*arguments, environment=environment)
    assert refused.returncode == 2
    assert problem in refused.stderr


def test_export_import_and_unpack_commands(tmp_path: Path) -> None:
    made = make_lora_artifact(tmp_path, LoraSpec(r=2))
    for form in ("peft", "transformers"):
        out = ["--format", form, "--out", str(tmp_path / form)]
        assert forked("export", str(made), *out, output=tmp_path / "output") == ""

    wanted = ["--base", str(tmp_path / "base"), "--labels", "no", "yes", "--max-length", "32"]
    back = ["import-peft", str(tmp_path / "peft"), "--out", str(tmp_path / "back"), *wanted]
    forked(*back, output=tmp_path / "output")
    facts = manifest.verify(tmp_path / "back")
    assert (facts["labels"], facts["max_length"]) == (["no", "yes"], 32)

    archive, into = tmp_path / "m.tar", tmp_path / "into"
    into.mkdir()
    with tarfile.open(archive, "w") as tar:
        tar.add(tmp_path / "back", arcname="m")
    printed = forked("unpack", str(archive), "--into", str(into), output=tmp_path / "output")
    assert json.loads(printed)["facts"]["spec"]["method"]["type"] == "lora"
    assert manifest.verify(into / "m") == facts
