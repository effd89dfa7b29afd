"""Every reader copes with its corpus, and with whatever once crashed it."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fuzz import __main__ as fuzzing
from tests.fuzz.readers import CORPUS, CRASHES, MINUTES, READERS, kept_files
from tests.fuzz.replay import find_crashes

MAX_CORPUS_BYTES = 300_000


@pytest.mark.slow  # reads the whole corpus
def test_no_kept_file_crashes_its_reader() -> None:
    replay = [sys.executable, "-m", "tests.fuzz.replay"]
    done = subprocess.run(replay, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    files = sum(len(list(kept_files(name))) for name in READERS)
    assert json.loads(done.stdout) == {"readers": len(READERS), "files": files, "crashes": 0}


@pytest.mark.parametrize("name", READERS)
def test_reader_has_a_corpus(name: str) -> None:
    assert any((CORPUS / name).iterdir())


def test_kept_files_belong_to_readers() -> None:
    kept = {path.name for directory in (CORPUS, CRASHES) for path in directory.glob("*")}
    assert kept | json.loads(MINUTES.read_text()).keys() <= READERS.keys()


def test_corpus_is_small() -> None:
    files = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MAX_CORPUS_BYTES


TARGETS = {  # what a target does: write to its log, keep an input, exit with a status
    "dies at an import": ("ModuleNotFoundError", False, 1),
    "reads nothing": ("Done 0 runs", False, 0),
    "counts no input": ("stat::number_of_executed_units: 0", False, 0),
    "dies later": ("stat::number_of_executed_units: 7", False, 1),
    "finds a crash": ("Test unit written to crash-1", True, 77),
    "finds none": ("stat::number_of_executed_units: 7", False, 0),
}


@pytest.mark.parametrize("kind", TARGETS)
def test_a_run_that_fuzzes_nothing_is_an_error(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, crashes, status = TARGETS[kind]
    target = (
        "import pathlib, sys; prefix = 'artifact_prefix='; "
        "at = next(each.partition('=')[2] for each in sys.argv if prefix in each); "
        f"{crashes} and pathlib.Path(at, 'crash-1').touch(); print({said!r}); sys.exit({status})"
    )
    monkeypatch.setattr(fuzzing, "TARGET", (sys.executable, "-c", target))
    monkeypatch.setattr(fuzzing, "FOUND", tmp_path / "found")
    monkeypatch.setattr(fuzzing, "CRASHES", tmp_path / "crashes")
    if kind in ("finds a crash", "finds none"):
        assert 0 < fuzzing.fuzz("csv", seconds=1) < 1
    else:
        with pytest.raises(fuzzing.NothingFuzzed, match=rf"csv ended with status {status}"):
            fuzzing.fuzz("csv", seconds=1)
    assert (tmp_path / "crashes" / "csv").exists() == crashes


def test_errors_and_hangs_are_crashes(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("good", "raises", "hangs")]
    for file in files:
        file.write_text(file.name)

    def read(data: bytes) -> None:
        if data == b"raises":
            raise KeyError("x")
        while data == b"hangs":
            time.sleep(0.01)

    crashes = {crash["file"]: crash["error"] for crash in find_crashes(read, files, seconds=1)}
    assert crashes == {"raises": "KeyError: 'x'", "hangs": "TimeoutError: the reader is too slow"}
