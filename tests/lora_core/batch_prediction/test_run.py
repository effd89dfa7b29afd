"""Tests of prediction runs, uninterrupted and resumed."""

import errno
import hashlib
import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from lora_core import batch_prediction, child_protocol, cpu, embed_file, manifest
from lora_core.batch_prediction import (
    CHUNK_ROWS,
    PredictionState,
    predict_file,
    read_checkpoint,
    write_checkpoint,
)
from lora_core.embed_file import EmbeddingState, write_vectors_checkpoint
from lora_core.errors.artifact import ArtifactCorrupt
from lora_core.errors.data import MissingText
from lora_core.errors.training import CheckpointCorrupt, CheckpointMismatch, DiskFull, StopRequested
from lora_core.events import Failed
from lora_core.fast.native.library import best_library
from lora_core.inference import engines
from lora_core.inference.linear import LinearPredictor
from lora_core.inference.load import load_native_or_torch_predictor
from lora_core.inference.predictor import Predictor
from lora_core.specs.predict import RESULTS_FILE, PredictSpec
from lora_core.training.checkpoint_schedule import CheckpointSettings
from tests.linear_artifact import make_linear_artifact
from tests.lora_core.batch_prediction.conftest import LABELS, ROWS, make_spec, make_texts
from tests.lora_core.training.processes import Attempts
from tests.recording_observer import RecordingObserver
from tests.tiny_artifact import (
    TARGETS,
    TOPICS,
    make_artifact,
    make_multi_label_artifact,
    make_regression_artifact,
    make_several_targets_artifact,
)

KILLED = -signal.SIGKILL
IN_FLOAT32 = "onednn-fp32" if engines.has_onednn() else "torch-fp32"


class StoppingListener(RecordingObserver):
    """Requests a stop once `stop_at` rows are saved."""

    def requested(self) -> bool:
        saved = [event.step for event in self.all("checkpoint")]
        return self.stop_at is not None and bool(saved) and saved[-1] >= self.stop_at


def rows(out: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line) for line in (out / RESULTS_FILE).read_text(encoding="utf-8").splitlines()
    ]


def digest(out: Path) -> str:
    return hashlib.sha256((out / RESULTS_FILE).read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def uninterrupted(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of an uninterrupted run of `spec`."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    make_texts(folder / "texts.csv")
    listener, out = StoppingListener(), folder / "out"
    predict_file(make_spec(model, folder), out_dir=out, observer=listener, stop=listener)
    return out


def test_rows_keep_their_order_and_match_transformers(
    uninterrupted: Path, model: Path, texts: list[str]
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model / "merged")
    plain = AutoModelForSequenceClassification.from_pretrained(model / "merged")
    results = rows(uninterrupted)
    assert [(row["id"], row["body"]) for row in results] == [
        (str(i), text) for i, text in enumerate(texts)
    ]
    for row, text in zip(results, texts, strict=True):
        inputs = tokenizer(text, truncation=True, max_length=64, return_tensors="pt")
        with torch.no_grad():
            scores = plain(**inputs).logits[0].softmax(-1).tolist()
        expected = dict(zip(LABELS, scores, strict=True))
        assert row["predicted_scores"] == pytest.approx(expected, abs=1e-5)
        best = max(row["predicted_scores"].items(), key=lambda each: each[1])
        assert (row["predicted_label"], row["predicted_score"]) == best


def test_results_match_the_predictor(uninterrupted: Path, model: Path, texts: list[str]) -> None:
    expected = Predictor.load(model).predict(texts)
    for row, scored in zip(rows(uninterrupted), expected, strict=True):
        assert row["predicted_scores"] == pytest.approx(dict(scored), abs=1e-5)


def test_finished_run_reports_its_counts(
    spec: PredictSpec, texts: list[str], tmp_path: Path, model: Path
) -> None:
    listener, out = StoppingListener(), tmp_path / "out"
    summary = predict_file(spec, out_dir=out, observer=listener, stop=listener)
    assert manifest.verify(out)["metrics"] == summary
    assert manifest.read(out)["columns"] == ["id", "body"]
    assert manifest.read(out)["labels"] == list(LABELS)
    assert summary["predicted"] == Counter(row["predicted_label"] for row in rows(out))
    tokenizer = Predictor.load(model).tokenizer.tokenizer
    long = sum(len(tokenizer.encode(text).ids) > 64 for text in texts)
    assert 0 < long < ROWS
    assert (summary["rows"], summary["cut"]) == (ROWS, long)
    [note] = [event for event in listener.events if event.event == "noted"]
    assert note.message.startswith(f"{long} of {ROWS} texts")
    assert [event.event for event in listener.events][-1] == "finished"
    assert max(event.step for event in listener.events if event.event == "tick") == ROWS


def test_rows_of_another_engine_are_predicted_again(
    spec: PredictSpec, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(directory: Path, *, threads: int | None) -> Predictor:
        return Predictor.load(directory, engine="torch-bf16")

    checkpoints, listener = tmp_path / "checkpoints", StoppingListener(CHUNK_ROWS)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(batch_prediction, "load_native_or_torch_predictor", load)
        with pytest.raises(StopRequested):
            predict_file(
                spec, out_dir=tmp_path / "stopped", observer=listener, stop=listener,
                checkpoint_settings=CheckpointSettings(checkpoints, 0.0),
            )  # fmt: skip
    [resume] = checkpoints.iterdir()
    listener = StoppingListener()
    predict_file(spec, out_dir=tmp_path / "out", observer=listener, stop=listener, resume=resume)
    assert digest(tmp_path / "out") == digest(uninterrupted)
    assert manifest.read(tmp_path / "out")["engine"] == IN_FLOAT32
    [note] = [each for each in listener.all("noted") if each.code == "engine_changed"]
    assert note.message == f"Rows predicted by torch-bf16 are predicted again by {IN_FLOAT32}."


@pytest.mark.parametrize("heads", [1, 4])
def test_native_engine_is_used_where_it_computes_the_encoder(tmp_path: Path, heads: int) -> None:
    artifact = make_artifact(tmp_path / "artifact", heads=heads)  # of 32 or of 8
    native = heads == 1 and best_library() is not None and cpu.has_fast_bf16()
    predictor = load_native_or_torch_predictor(artifact, threads=1)
    assert predictor.engine.name == ("native-bf16" if native else IN_FLOAT32)


def test_stopped_run_resumes_with_the_same_bytes(
    spec: PredictSpec, uninterrupted: Path, tmp_path: Path
) -> None:
    checkpoints, resume = tmp_path / "checkpoints", None
    for leg, stop_at in enumerate((CHUNK_ROWS, 2 * CHUNK_ROWS)):
        listener = StoppingListener(stop_at)
        with pytest.raises(StopRequested):
            predict_file(
                spec, out_dir=tmp_path / f"leg{leg}", observer=listener, stop=listener,
                checkpoint_settings=CheckpointSettings(checkpoints, 0.0), resume=resume,
            )  # fmt: skip
        resume = checkpoints / f"step-{stop_at}"
        assert resume.is_dir()
    listener = StoppingListener()
    summary = predict_file(
        spec, out_dir=tmp_path / "last", observer=listener, stop=listener, resume=resume
    )
    assert digest(tmp_path / "last") == digest(uninterrupted)
    assert summary == manifest.read(uninterrupted)["metrics"]


@pytest.mark.parametrize("saving", [False, True])
def test_logits_are_kept_for_checkpoints_only(
    spec: PredictSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saving: bool
) -> None:
    states: list[PredictionState] = []

    class RecordedState(PredictionState):
        def __init__(self, *values: Any, **fields: Any) -> None:
            super().__init__(*values, **fields)
            states.append(self)

    monkeypatch.setattr(batch_prediction, "PredictionState", RecordedState)
    settings = CheckpointSettings(tmp_path / "checkpoints", 300.0) if saving else None
    listener = StoppingListener()
    predict_file(
        spec, out_dir=tmp_path / "out", observer=listener, stop=listener,
        checkpoint_settings=settings,
    )  # fmt: skip
    [state] = states
    assert (state.step, sum(map(len, state.chunks))) == (ROWS, ROWS if saving else 0)


def test_checkpoint_of_another_engine_is_replaced(tmp_path: Path) -> None:
    for engine, value in (("torch-fp32", 1.0), ("native-bf16 avx512-0", 2.0)):
        state = PredictionState(LABELS, engine)
        state.append(np.full((3, len(LABELS)), value, np.float32), truncated=0, keep=True)
        directory = write_checkpoint(tmp_path, state)
    saved = read_checkpoint(directory, LABELS, "")
    assert (saved.engine, saved.chunks[0][0, 0]) == ("native-bf16 avx512-0", 2.0)


@pytest.mark.parametrize(
    ("module", "write", "state"),
    [
        (batch_prediction, write_checkpoint, PredictionState(LABELS, "")),
        (embed_file, write_vectors_checkpoint, EmbeddingState()),
    ],
)
def test_checkpoint_on_a_full_disk(
    module: Any, write: Any, state: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save_file(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "save_file", save_file)
    with pytest.raises(DiskFull, match="while writing a checkpoint"):
        write(tmp_path, state)


def test_linear_model_resumes_with_the_same_bytes(
    spec: PredictSpec, texts: list[str], tmp_path: Path
) -> None:
    artifact = make_linear_artifact(tmp_path / "words", labels=LABELS)
    spec = spec.model_copy(update={"model": str(artifact)})
    listener = StoppingListener()
    predict_file(spec, out_dir=tmp_path / "uninterrupted", observer=listener, stop=listener)
    expected = LinearPredictor.load(artifact).predict(texts)
    for row, scored in zip(rows(tmp_path / "uninterrupted"), expected, strict=True):
        assert row["predicted_scores"] == pytest.approx(dict(scored), abs=1e-6)
    listener = StoppingListener(CHUNK_ROWS)
    checkpoint_settings = CheckpointSettings(tmp_path / "checkpoints", 0.0)
    with pytest.raises(StopRequested):
        predict_file(
            spec,
            out_dir=tmp_path / "leg",
            observer=listener,
            stop=listener,
            checkpoint_settings=checkpoint_settings,
        )
    listener = StoppingListener()
    resume = tmp_path / "checkpoints" / f"step-{CHUNK_ROWS}"
    predict_file(spec, out_dir=tmp_path / "last", observer=listener, stop=listener, resume=resume)
    assert digest(tmp_path / "last") == digest(tmp_path / "uninterrupted")


def test_stop_between_checkpoints_loses_only_the_current_chunk(
    spec: PredictSpec, tmp_path: Path
) -> None:
    """No checkpoint was due, so the stop writes one."""

    class StopDuringChunk(StoppingListener):
        looks = 0

        def requested(self) -> bool:
            self.looks += 1
            return self.looks > 15  # two before the first row, nine in each chunk

    listener = StopDuringChunk()
    with pytest.raises(StopRequested):
        predict_file(
            spec, out_dir=tmp_path / "out", observer=listener, stop=listener,
            checkpoint_settings=CheckpointSettings(tmp_path / "checkpoints", 300.0),
        )  # fmt: skip
    [saved] = [event for event in listener.events if event.event == "checkpoint"]
    assert saved.step == CHUNK_ROWS
    assert not (tmp_path / "out" / manifest.MANIFEST_FILE).exists()


@pytest.fixture
def attempts(spec: PredictSpec, tmp_path: Path) -> Attempts:
    """Processes that write a checkpoint after each chunk."""
    described = tmp_path / "spec.json"
    described.write_text(spec.model_dump_json())
    return Attempts(described, command="predict-file")


def test_killed_run_resumes_with_the_same_bytes(attempts: Attempts, uninterrupted: Path) -> None:
    checkpoint_steps = []
    for fault in ("answered@1:kill", "answered@2:kill", "answers_published@1:kill", ""):
        status, events = attempts.attempt(fault)
        assert status == (KILLED if fault else 0), fault
        checkpoint_steps += [event.step for event in events if event.event == "checkpoint"]
    assert checkpoint_steps == [
        CHUNK_ROWS,
        2 * CHUNK_ROWS,
        ROWS,
    ]  # saved rows are not computed again
    assert digest(attempts.out) == digest(uninterrupted)


def test_process_reports_an_error_with_its_code(attempts: Attempts, spec: PredictSpec) -> None:
    Path(spec.data.source).write_text("id,body\n1,good\n2, \n")
    status, [*_, failed] = attempts.attempt()
    assert status == child_protocol.EXIT_FAILED
    assert isinstance(failed, Failed)
    assert failed.code == MissingText.code
    assert failed.message == "texts.csv: rows without text: 1 (first: 2). Fill in or remove them."


@pytest.fixture
def saved(spec: PredictSpec, tmp_path: Path) -> Path:
    """A checkpoint after two chunks."""
    listener = StoppingListener(2 * CHUNK_ROWS)
    with pytest.raises(StopRequested):
        predict_file(
            spec, out_dir=tmp_path / "begun", observer=listener, stop=listener,
            checkpoint_settings=CheckpointSettings(tmp_path / "checkpoints", 0.0),
        )  # fmt: skip
    return tmp_path / "checkpoints" / f"step-{2 * CHUNK_ROWS}"


def resume(spec: PredictSpec, saved: Path) -> None:
    listener = StoppingListener()
    out = saved.parent.parent / "out"
    predict_file(spec, out_dir=out, observer=listener, stop=listener, resume=saved)


def test_checkpoint_with_more_rows_than_the_file_is_rejected(
    spec: PredictSpec, saved: Path
) -> None:
    Path(spec.data.source).write_text("body\ngood\n")
    with pytest.raises(CheckpointMismatch, match="the file has 1 rows, not the 512"):
        resume(spec, saved)


def test_checkpoint_with_other_labels_is_rejected(
    spec: PredictSpec, saved: Path, tmp_path: Path
) -> None:
    other = make_artifact(tmp_path / "other", labels=("no", "yes", "so"), top_label="so")
    changed = spec.model_copy(update={"model": str(other)})
    with pytest.raises(CheckpointMismatch, match="other labels"):
        resume(changed, saved)


@pytest.mark.parametrize(
    ("changed", "what"), [("model", "the model is another one"), ("data", "other texts")]
)
def test_checkpoint_of_another_model_or_column_is_rejected(
    changed: str, what: str, spec: PredictSpec, saved: Path, tmp_path: Path
) -> None:
    other = make_artifact(tmp_path / "other", labels=LABELS, top_label="fine", seed=1)
    data = spec.data.model_copy(update={"text_column": "id"})
    update = {"model": str(other)} if changed == "model" else {"data": data}
    with pytest.raises(CheckpointMismatch, match=what):
        resume(spec.model_copy(update=update), saved)


def test_corrupt_checkpoint_is_rejected(spec: PredictSpec, saved: Path) -> None:
    (saved / "logits.safetensors").write_bytes(b"?")
    with pytest.raises(CheckpointCorrupt, match=r"logits\.safetensors has changed"):
        resume(spec, saved)


def test_corrupt_model_is_rejected(spec: PredictSpec, tmp_path: Path) -> None:
    model = make_artifact(tmp_path / "model")
    (model / "golden.json").write_text("[]")
    changed = spec.model_copy(update={"model": str(model)})
    with pytest.raises(ArtifactCorrupt):
        predict_file(
            changed, out_dir=tmp_path / "out", observer=StoppingListener(), stop=StoppingListener()
        )
    assert not (tmp_path / "out" / manifest.MANIFEST_FILE).exists()


def test_labels_of_each_row_match_transformers(
    spec: PredictSpec, texts: list[str], tmp_path: Path
) -> None:
    artifact = make_multi_label_artifact(tmp_path / "topics")
    listener, out = StoppingListener(), tmp_path / "out"
    multi_label = spec.model_copy(update={"model": str(artifact)})
    summary = predict_file(multi_label, out_dir=out, observer=listener, stop=listener)
    tokenizer = AutoTokenizer.from_pretrained(artifact / "merged")
    plain = AutoModelForSequenceClassification.from_pretrained(artifact / "merged")
    calibration = manifest.read(artifact)["calibration"]
    scale, offset, thresholds = (
        torch.tensor(calibration[name]) for name in ("scale", "offset", "thresholds")
    )
    counts: Counter[str] = Counter()
    for row, text in zip(rows(out), texts, strict=True):
        inputs = tokenizer(text, truncation=True, max_length=64, return_tensors="pt")
        with torch.no_grad():
            scores = (scale * plain(**inputs).logits[0] + offset).sigmoid()
        expected = dict(zip(TOPICS, scores.tolist(), strict=True))
        assert row["predicted_scores"] == pytest.approx(expected, abs=1e-5)
        reached = (scores >= thresholds).tolist()
        labels = [topic for topic, each in zip(TOPICS, reached, strict=True) if each]
        assert row["predicted_labels"] == sorted(labels)
        assert "predicted_label" not in row
        counts.update(labels)
    without = sum(not row["predicted_labels"] for row in rows(out))
    assert summary == {"rows": ROWS, "cut": summary["cut"], "predicted": counts,
                       "unlabeled": without}  # fmt: skip
    assert manifest.read(out)["task"] == "multi_label"


def test_rows_get_numbers_with_their_interval(spec: PredictSpec, tmp_path: Path) -> None:
    artifact = make_regression_artifact(tmp_path / "stars", half_width=0.25)
    listener, out = StoppingListener(), tmp_path / "out"
    regression = spec.model_copy(update={"model": str(artifact)})
    summary = predict_file(regression, out_dir=out, observer=listener, stop=listener)
    values = [row["predicted_value"] for row in rows(out)]
    assert [row["predicted_high"] - row["predicted_low"] for row in rows(out)] == pytest.approx(
        [0.5] * ROWS
    )
    assert all("predicted_scores" not in row for row in rows(out))
    assert summary["predicted"] == {}
    assert summary["value"] == {
        "mean": pytest.approx(sum(values) / ROWS), "min": min(values), "max": max(values),
    }  # fmt: skip
    assert (manifest.read(out)["task"], manifest.read(out)["labels"]) == ("regression", [])


def test_rows_get_an_object_for_each_target(spec: PredictSpec, tmp_path: Path) -> None:
    artifact = make_several_targets_artifact(tmp_path / "tickets")
    listener, out = StoppingListener(), tmp_path / "out"
    several = spec.model_copy(update={"model": str(artifact)})
    summary = predict_file(several, out_dir=out, observer=listener, stop=listener)
    predictor = Predictor.load(artifact)
    outputs = predictor.decode_outputs(
        predictor.forward(predictor.encode([r["body"] for r in rows(out)]))
    )
    for row, expected in zip(rows(out), outputs, strict=True):
        targets = row["predicted_targets"]
        assert list(targets) == list(TARGETS)
        topic = {each.label: each.score for each in expected if each.target == "topic"}
        assert targets["topic"]["predicted_scores"] == pytest.approx(topic, abs=1e-5)
        [number] = [each.score for each in expected if each.target == "stars"]
        assert targets["stars"]["predicted_value"] == pytest.approx(number, abs=1e-5)
    labels = Counter(row["predicted_targets"]["topic"]["predicted_label"] for row in rows(out))
    assert {f"topic/{label}": count for label, count in labels.items()}.items() <= summary[
        "predicted"
    ].items()
    assert list(summary["values"]) == ["stars"]
    flags = [row["predicted_targets"]["flags"]["predicted_labels"] for row in rows(out)]
    assert summary["unlabeled_by_target"] == {"flags": flags.count([])}
    assert manifest.read(out)["targets"]["topic"]["labels"] == ["billing", "refund"]
