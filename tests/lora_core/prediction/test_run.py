"""The answers to every row of a file, in one go or in many."""

import hashlib
import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from lora_core import child_protocol, manifest
from lora_core.errors.artifact import ArtifactCorrupt
from lora_core.errors.data import EmptyText
from lora_core.errors.training import CheckpointCorrupt, CheckpointMismatch, Stopped
from lora_core.events import Failed
from lora_core.inference.linear import LinearPredictor
from lora_core.inference.predictor import Predictor
from lora_core.prediction.run import CHUNK, run
from lora_core.specs.predict import RESULTS, PredictSpec
from lora_core.training.checkpoint_schedule import SavePlan
from tests.linear_artifact import make_linear_artifact
from tests.listener import Listener
from tests.lora_core.prediction.conftest import LABELS, ROWS
from tests.lora_core.training.processes import Attempts
from tests.tiny_artifact import make_artifact

KILLED = -signal.SIGKILL


class Ear(Listener):
    """Asks to stop once so many rows were saved."""

    def requested(self) -> bool:
        saved = [event.step for event in self.all("checkpoint")]
        return self.stop_at is not None and bool(saved) and saved[-1] >= self.stop_at


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / RESULTS).read_text(encoding="utf-8").splitlines()]


def digest(out: Path) -> str:
    return hashlib.sha256((out / RESULTS).read_bytes()).hexdigest()


@pytest.fixture
def whole(spec: PredictSpec, tmp_path: Path) -> Path:
    """The results of an unbroken run."""
    ear = Ear()
    run(spec, out_dir=tmp_path / "whole", observer=ear, stop=ear)
    return tmp_path / "whole"


def test_every_row_comes_back_in_its_place_with_the_answer_of_transformers(
    whole: Path, model: Path, texts: list[str]
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model / "merged")
    plain = AutoModelForSequenceClassification.from_pretrained(model / "merged")
    found = rows(whole)
    assert [(row["id"], row["body"]) for row in found] == [
        (str(i), text) for i, text in enumerate(texts)
    ]
    for row, text in zip(found, texts, strict=True):
        inputs = tokenizer(text, truncation=True, max_length=64, return_tensors="pt")
        with torch.no_grad():
            scores = plain(**inputs).logits[0].softmax(-1).tolist()
        expected = dict(zip(LABELS, scores, strict=True))
        assert row["predicted_scores"] == pytest.approx(expected, abs=1e-5)
        best = max(row["predicted_scores"].items(), key=lambda each: each[1])
        assert (row["predicted_label"], row["predicted_score"]) == best


def test_the_answers_are_those_of_the_predictor(whole: Path, model: Path, texts: list[str]) -> None:
    expected = Predictor.load(model).predict(texts)
    for row, scored in zip(rows(whole), expected, strict=True):
        assert row["predicted_scores"] == pytest.approx(dict(scored), abs=1e-5)


def test_a_finished_run_tells_what_it_counted(
    spec: PredictSpec, texts: list[str], tmp_path: Path, model: Path
) -> None:
    ear, out = Ear(), tmp_path / "out"
    summary = run(spec, out_dir=out, observer=ear, stop=ear)
    assert manifest.verify(out)["metrics"] == summary
    assert manifest.read(out)["columns"] == ["id", "body"]
    assert manifest.read(out)["labels"] == list(LABELS)
    assert summary["predicted"] == Counter(row["predicted_label"] for row in rows(out))
    tokenizer = Predictor.load(model).reader.tokenizer
    long = sum(len(tokenizer.encode(text).ids) > 64 for text in texts)
    assert 0 < long < ROWS
    assert (summary["rows"], summary["cut"]) == (ROWS, long)
    [note] = [event for event in ear.events if event.event == "noted"]
    assert note.message.startswith(f"{long} of {ROWS} texts")
    assert [event.event for event in ear.events][-1] == "finished"
    assert max(event.step for event in ear.events if event.event == "tick") == ROWS


def test_a_stop_saves_and_the_next_leg_gives_the_same_bytes(
    spec: PredictSpec, whole: Path, tmp_path: Path
) -> None:
    saves, resume = tmp_path / "saves", None
    for leg, stop_at in enumerate((CHUNK, 2 * CHUNK)):
        ear = Ear(stop_at)
        with pytest.raises(Stopped):
            run(
                spec, out_dir=tmp_path / f"leg{leg}", observer=ear, stop=ear,
                plan=SavePlan(saves, 0.0), resume=resume,
            )  # fmt: skip
        resume = saves / f"step-{stop_at}"
        assert resume.is_dir()
    ear = Ear()
    summary = run(spec, out_dir=tmp_path / "last", observer=ear, stop=ear, resume=resume)
    assert digest(tmp_path / "last") == digest(whole)
    assert summary == manifest.read(whole)["metrics"]


def test_a_linear_model_goes_on_with_the_same_bytes(
    spec: PredictSpec, texts: list[str], tmp_path: Path
) -> None:
    made = make_linear_artifact(tmp_path / "words", labels=LABELS)
    spec = spec.model_copy(update={"model": str(made)})
    ear = Ear()
    run(spec, out_dir=tmp_path / "whole", observer=ear, stop=ear)
    expected = LinearPredictor.load(made).predict(texts)
    for row, scored in zip(rows(tmp_path / "whole"), expected, strict=True):
        assert row["predicted_scores"] == pytest.approx(dict(scored), abs=1e-6)
    ear = Ear(CHUNK)
    plan = SavePlan(tmp_path / "saves", 0.0)
    with pytest.raises(Stopped):
        run(spec, out_dir=tmp_path / "leg", observer=ear, stop=ear, plan=plan)
    ear = Ear()
    resume = tmp_path / "saves" / f"step-{CHUNK}"
    run(spec, out_dir=tmp_path / "last", observer=ear, stop=ear, resume=resume)
    assert digest(tmp_path / "last") == digest(tmp_path / "whole")


def test_a_stop_between_two_saves_loses_only_the_chunk_at_work(
    spec: PredictSpec, tmp_path: Path
) -> None:
    """No save was due, so the stop itself saves."""

    class Late(Ear):
        looks = 0

        def requested(self) -> bool:
            self.looks += 1
            return self.looks > 15  # two before the first row, nine in each chunk

    ear = Late()
    with pytest.raises(Stopped):
        run(
            spec, out_dir=tmp_path / "out", observer=ear, stop=ear,
            plan=SavePlan(tmp_path / "saves", 300.0),
        )  # fmt: skip
    [saved] = [event for event in ear.events if event.event == "checkpoint"]
    assert saved.step == CHUNK
    assert not (tmp_path / "out" / manifest.MANIFEST).exists()


@pytest.fixture
def attempts(spec: PredictSpec, tmp_path: Path) -> Attempts:
    """Processes that save after each chunk."""
    described = tmp_path / "spec.json"
    described.write_text(spec.model_dump_json())
    return Attempts(described, command="predict-file")


def test_killed_at_any_moment_it_ends_with_the_same_bytes(attempts: Attempts, whole: Path) -> None:
    told = []
    for fault in ("answered@1:kill", "answered@2:kill", "answers_published@1:kill", ""):
        status, events = attempts.attempt(fault)
        assert status == (KILLED if fault else 0), fault
        told += [event.step for event in events if event.event == "checkpoint"]
    assert told == [CHUNK, 2 * CHUNK, ROWS]  # what was told is not computed again
    assert digest(attempts.out) == digest(whole)


def test_an_error_is_told_by_the_process_with_its_code(
    attempts: Attempts, spec: PredictSpec
) -> None:
    Path(spec.data.source).write_text("id,body\n1,good\n2, \n")
    status, [*_, failed] = attempts.attempt()
    assert status == child_protocol.FAILED
    assert isinstance(failed, Failed)
    assert failed.code == EmptyText.code
    assert (
        failed.message == "texts.csv: no text in 1 of the rows, first in 2. Fill in or remove them."
    )


@pytest.fixture
def saved(spec: PredictSpec, tmp_path: Path) -> Path:
    """What is known after two chunks."""
    ear = Ear(2 * CHUNK)
    with pytest.raises(Stopped):
        run(
            spec, out_dir=tmp_path / "begun", observer=ear, stop=ear,
            plan=SavePlan(tmp_path / "saves", 0.0),
        )  # fmt: skip
    return tmp_path / "saves" / f"step-{2 * CHUNK}"


def test_answers_to_more_rows_than_there_are_belong_to_another_file(
    spec: PredictSpec, saved: Path, tmp_path: Path
) -> None:
    Path(spec.data.source).write_text("body\ngood\n")
    with pytest.raises(CheckpointMismatch, match="the file has 1 rows, not the 512"):
        run(spec, out_dir=tmp_path / "out", observer=Ear(), stop=Ear(), resume=saved)


def test_answers_of_other_labels_belong_to_another_model(
    spec: PredictSpec, saved: Path, tmp_path: Path
) -> None:
    other = make_artifact(tmp_path / "other", labels=("no", "yes", "so"), favours="so")
    changed = spec.model_copy(update={"model": str(other)})
    with pytest.raises(CheckpointMismatch, match="other labels"):
        run(changed, out_dir=tmp_path / "out", observer=Ear(), stop=Ear(), resume=saved)


def test_damaged_answers_are_not_used(spec: PredictSpec, saved: Path, tmp_path: Path) -> None:
    (saved / "logits.safetensors").write_bytes(b"?")
    with pytest.raises(CheckpointCorrupt, match=r"logits\.safetensors has changed"):
        run(spec, out_dir=tmp_path / "out", observer=Ear(), stop=Ear(), resume=saved)


def test_a_damaged_model_answers_nothing(spec: PredictSpec, tmp_path: Path) -> None:
    model = make_artifact(tmp_path / "model")
    (model / "golden.json").write_text("[]")
    changed = spec.model_copy(update={"model": str(model)})
    with pytest.raises(ArtifactCorrupt):
        run(changed, out_dir=tmp_path / "out", observer=Ear(), stop=Ear())
    assert not (tmp_path / "out" / manifest.MANIFEST).exists()
