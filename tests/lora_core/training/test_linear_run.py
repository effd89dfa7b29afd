"""A run of the method `linear`, from spec to artifact."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import accuracy_score

from lora_core import manifest, saved_predictions
from lora_core.data import linear_baseline as comparison
from lora_core.data.load import load_splits
from lora_core.errors.spec import PartialRunUnsupported
from lora_core.errors.training import DiskFull, LinearFitOutOfMemory, StopRequested
from lora_core.events import Phase
from lora_core.inference.linear import LinearPredictor
from lora_core.inference.load import load_predictor as load_model
from lora_core.specs.chat import PromptFormat
from lora_core.specs.data import Split
from lora_core.specs.train import PartialRunSpec, TrainSpec
from lora_core.tasks.single_label import SingleLabel
from lora_core.training import linear
from tests.linear_artifact import make_linear_artifact
from tests.recording_observer import RecordingObserver, StopDuringFit
from tests.tiny_base import make_chat_examples, make_reviews


def described(source: Path, **changes: Any) -> TrainSpec:
    body = {"method": {"type": "linear"}, "data": {"source": str(source)}}
    return TrainSpec.model_validate(body | changes)


def run(spec: TrainSpec, out: Path) -> tuple[RecordingObserver, dict[str, Any]]:
    listener = RecordingObserver()
    return listener, linear.train_linear(spec, out_dir=out, observer=listener, stop=listener)


def test_linear_run_writes_a_model_metrics_and_predictions(reviews: Path, tmp_path: Path) -> None:
    spec = described(reviews, result={"train_metrics": True})
    listener, summary = run(spec, tmp_path / "out")
    facts = manifest.verify(tmp_path / "out")
    assert set(facts["files"]) == {
        *("golden.json", "linear.json", "linear.safetensors"),
        *manifest.NEAREST_EXAMPLES_FILES,
        *(f"{kind}/{part}.jsonl" for kind in ("misclassified", "predictions")
          for part in ("validation", "test")),
    }  # fmt: skip
    assert facts["metrics"] == summary
    assert facts["spec"]["base"] is None
    assert facts["spec"]["method"] == {
        "type": "linear", "C": 4.0, "class_weight": None, "ngram_range": [1, 2], "min_df": 1,
    }  # fmt: skip
    [started] = listener.all("started")
    assert started.total_steps == summary["steps"] == 1
    assert started.trainable_parameters == summary["trainable_parameters"] == summary["terms"] + 1
    assert [e.split for e in listener.all("evaluated")] == ["validation", "test"]
    assert {tick.phase for tick in listener.all("tick")} >= {Phase.TRAINING, Phase.SAVING}
    assert listener.all("finished")[0].summary == summary

    predictor = LinearPredictor.load(tmp_path / "out")
    assert saved_predictions.check_golden_predictions(predictor, tmp_path / "out") < 1e-6
    splits = load_splits(spec.data)
    for split in Split:
        examples = splits.examples_of(split)
        answers = predictor.predict([example.text for example in examples])
        truth = [splits.labels[example.label] for example in examples]
        right = accuracy_score(truth, [answer[0][0] for answer in answers])
        assert summary[split.value]["accuracy"] == pytest.approx(right)
    kept = (tmp_path / "out" / "predictions" / "test.jsonl").read_text().splitlines()
    logits = predictor.forward(predictor.encode([example.text for example in splits.test]))
    assert [json.loads(line)["logits"] for line in kept] == pytest.approx(logits, abs=1e-5)
    assert predictor.calibration.temperature == summary["calibration"]["temperature"]


def test_linear_run_matches_the_linear_baseline(reviews: Path, tmp_path: Path) -> None:
    spec = described(reviews)
    _, summary = run(spec, tmp_path / "out")
    splits = load_splits(spec.data)
    baseline = comparison.fit_or_load_linear_baseline(splits, SingleLabel(splits.labels)).metrics
    for split in (Split.VALIDATION, Split.TEST):
        metrics = getattr(baseline, split)
        assert {name: summary[split][name] for name in metrics} == pytest.approx(metrics)


def test_class_weights_are_used(tmp_path: Path) -> None:
    rows = ["text,label", *(f"film {i:03},{'rare' if i % 10 == 0 else 'usual'}"
                            for i in range(200))]  # fmt: skip
    (tmp_path / "reviews.csv").write_text("\n".join(rows))
    means = {}
    for weights in ("none", "balanced"):
        out = tmp_path / weights
        run(described(tmp_path / "reviews.csv", task={"class_weights": weights}), out)
        predictor = LinearPredictor.load(out)
        [answer] = softmax(predictor.model.logits(["film"]), axis=1)
        means[weights] = answer[predictor.labels.index("rare")]
    assert means["balanced"] > 2 * means["none"]


def test_run_without_a_model_writes_metrics_and_predictions(reviews: Path, tmp_path: Path) -> None:
    run(described(reviews, result={"model": False}), tmp_path / "out")
    facts = manifest.verify(tmp_path / "out")
    assert set(facts["files"]) == {"predictions/test.jsonl", "predictions/validation.jsonl"}
    assert not manifest.has_model(facts)


def test_same_spec_gives_the_same_bytes(reviews: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        run(described(reviews), tmp_path / name)
    files = [manifest.read(tmp_path / name)["files"] for name in ("a", "b")]
    assert files[0] == files[1]


def test_partial_linear_run_is_refused(reviews: Path, tmp_path: Path) -> None:
    spec = described(reviews).model_copy(update={"trial": PartialRunSpec(budget=0.5)})
    with pytest.raises(PartialRunUnsupported, match="grid, random or tpe"):
        run(spec, tmp_path / "out")


def test_stop_request_interrupts_the_fit(
    reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = StopDuringFit()
    monkeypatch.setattr(linear, "fit_linear_model", stop.fit)
    with pytest.raises(StopRequested):
        linear.train_linear(described(reviews), out_dir=tmp_path / "out", observer=stop, stop=stop)
    stop.left.set()
    assert not (tmp_path / "out").exists()


def test_many_characters_are_subsampled_stratified(
    reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "MAX_CHARACTERS", 1000)
    listener, summary = run(described(reviews), tmp_path / "out")
    [note] = [n for n in listener.all("noted") if n.code == "training_texts_drawn"]
    assert note.level == "warning"
    assert 20 < summary["examples"]["train"] < 60


@pytest.mark.parametrize(
    ("error", "cause"),
    [(MemoryError(), LinearFitOutOfMemory), (OSError(28, "No space left on device"), DiskFull)],
)
def test_missing_resource_is_reported(
    error: Exception,
    cause: type[Exception],
    reviews: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(linear, "fit_linear_model", fail)
    with pytest.raises(cause):
        run(described(reviews), tmp_path / "out")


def test_base_of_a_linear_model_is_null(reviews: Path) -> None:
    spec = described(reviews, base="no/such-base", base_revision="0" * 40)
    assert (spec.base, spec.base_revision) == (None, None)
    assert TrainSpec.model_validate_json(spec.model_dump_json()) == spec
    with pytest.raises(TypeError):
        _ = spec.encoder_base


def test_linear_training_and_prediction_do_not_import_torch(tmp_path: Path) -> None:
    """In a separate process, where nothing else has imported it."""
    make_reviews(tmp_path / "reviews.csv")
    (tmp_path / "spec.json").write_text(described(tmp_path / "reviews.csv").model_dump_json())
    job = {"model": str(tmp_path / "out"), "data": {"source": str(tmp_path / "reviews.csv")}}
    (tmp_path / "job.json").write_text(json.dumps(job))
    program = """
import sys
from lora_core.__main__ import main
for words in (["train", "spec.json", "--out", "out"], ["predict", "out", "a good film"],
              ["predict-file", "job.json", "--out", "answers"]):
    sys.argv = ["lora_core", *words]
    assert main() == 0, words
assert "torch" not in sys.modules
assert "transformers" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "answers" / "results.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert np.mean([row["label"] == row["predicted_label"] for row in rows]) > 0.9


def test_resuming_a_linear_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text(described(tmp_path / "reviews.csv").model_dump_json())
    words = ["train", "spec.json", "--out", "out", "--resume", "step-3"]
    done = subprocess.run(
        [sys.executable, "-m", "lora_core", *words], cwd=tmp_path, capture_output=True, text=True
    )
    failed = json.loads(done.stdout)
    assert (failed["event"], failed["code"]) == ("failed", "checkpoint_mismatch")
    assert "the method linear has no checkpoints" in failed["message"]


def test_linear_model_is_loaded_like_any_model(tmp_path: Path) -> None:
    made = make_linear_artifact(tmp_path / "made", labels=("bad", "fine", "good"))
    predictor = load_model(made)
    assert isinstance(predictor, LinearPredictor)
    [answer] = predictor.predict(["so good good"])
    assert answer[0][0] == "good"
    assert sum(score for _, score in answer) == pytest.approx(1.0)


def test_a_model_of_chat_examples_knows_their_format(tmp_path: Path) -> None:
    file = make_chat_examples(tmp_path / "job.jsonl")
    listener, _ = run(described(file), tmp_path / "out")
    [note] = [each for each in listener.all("noted") if each.code == "prompt_format"]
    assert "'Sort the review:'" in note.message
    predictor = LinearPredictor.load(tmp_path / "out")
    expected = PromptFormat(prefix="Sort the review:", suffix="###", answer_key="mood")
    assert predictor.prompt_format == expected
    assert list(predictor.labels) == ["bad", "good"]
    again, _ = run(described(file).with_prompt_format(expected), tmp_path / "again")
    assert [each.message for each in again.all("noted") if each.code == "prompt_format"]
