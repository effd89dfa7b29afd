"""The learning curve in the result of a run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_core.data import learning_curve as curve
from lora_core.errors.training import StopRequested
from lora_core.events import Phase
from lora_core.specs.train import TrainSpec
from lora_core.training import linear, probe_learning_curve
from lora_core.training.encoder import train_encoder
from tests.recording_observer import RecordingObserver
from tests.slow import slow_but
from tests.task_files import make_label_sets, make_numbers
from tests.tiny_base import make_base, make_reviews

Spec = Callable[..., TrainSpec]
Train = Callable[..., tuple[RecordingObserver, Path]]
SHORT = {"epochs": 1, "batch_size": 64}
PROBE = {"type": "probe"}
LINEAR = {"type": "linear"}


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A dataset with 280 training texts."""
    return make_reviews(tmp_path / "many.csv", rows=400)


class StopIn(RecordingObserver):
    """A stop signal that is given as soon as a phase begins."""

    def __init__(self, phase: Phase) -> None:
        super().__init__()
        self.phase = phase

    def requested(self) -> bool:
        return any(tick.phase is self.phase for tick in self.all("tick"))


def summary(listener: RecordingObserver) -> dict[str, Any]:
    found: dict[str, Any] = listener.all("finished")[0].summary
    return found


def phases(listener: RecordingObserver) -> set[Phase]:
    return {tick.phase for tick in listener.all("tick")}


def test_encoder_run_reports_the_learning_curve_of_the_probe(
    spec: Spec, train: Train, many: Path
) -> None:
    data = {"source": str(many)}
    observer, _ = train(spec(data=data, optim=SHORT))
    found = summary(observer)["more_labels"]
    assert (found["code"], found["basis"]) == ("measured", "probe")
    assert (found["texts"], found["used"]) == (280, 280)
    assert [each["texts"] for each in found["gains"]] == [560, 1120]
    assert Phase.LEARNING_CURVE in phases(observer)


@pytest.mark.parametrize(
    ("task", "metric", "make"),
    [("multi_label", "macro_f1", make_label_sets), ("regression", "rmse", make_numbers)],
    ids=["multi_label", "regression"],
)
@pytest.mark.parametrize("method", slow_but([PROBE, LINEAR], PROBE), ids=["probe", "linear"])
def test_learning_curve_of_other_tasks(
    spec: Spec,
    tmp_path: Path,
    task: str,
    metric: str,
    make: Callable[[Path, int], Path],
    method: dict[str, str],
) -> None:
    source = make(tmp_path / f"many.{'jsonl' if task == 'multi_label' else 'csv'}", 400)
    described = spec(method=method, task={"type": task}, data={"source": str(source)})
    listener = RecordingObserver()
    go = linear.train_linear if method["type"] == "linear" else train_encoder
    result = go(described, out_dir=tmp_path / "out", observer=listener, stop=listener)
    found = result["more_labels"]
    assert (found["code"], found["metric"], found["basis"]) == ("measured", metric, method["type"])
    assert len(found["measured"]) == 5
    assert found["gains"]


def test_learning_curves_of_several_targets(spec: Spec, train: Train, tmp_path: Path) -> None:
    source = tmp_path / "both.csv"
    rows = [
        f"{['bad', 'fine'][i % 2]} film {i},{'ab'[i % 2]},{3 * (i % 2) + i % 3}" for i in range(400)
    ]
    source.write_text("\n".join(["text,topic,stars", *rows]))
    task = {
        "type": "several_targets",
        "targets": {"topic": {"type": "single_label"}, "stars": {"type": "regression"}},
    }
    observer, _ = train(spec(method=PROBE, task=task, data={"source": str(source)}))
    assert Phase.LEARNING_CURVE in phases(observer)
    found = summary(observer)["more_labels"]
    assert found["code"] == "by_target"
    assert {name: each["code"] for name, each in found["targets"].items()} == {
        "topic": "measured",
        "stars": "measured",
    }
    assert {each["basis"] for each in found["targets"].values()} == {"linear"}


@pytest.mark.slow  # measures three curves; `basis` says of what they are
def test_learning_curve_does_not_depend_on_the_method(
    spec: Spec, train: Train, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = []
    for name, method in (("lora", {"type": "lora", "r": 4}), ("full", {"type": "full"}),
                         ("probe", PROBE)):  # fmt: skip
        monkeypatch.setenv("LORAWORKS_CACHE", str(tmp_path / name))  # separate caches
        observer, _ = train(spec(method=method, data={"source": str(many)}, optim=SHORT))
        answers.append(summary(observer)["more_labels"])
    assert answers[0]["code"] == "measured"
    for answer in answers[1:]:
        for one, other in zip(answer["measured"], answers[0]["measured"], strict=True):
            assert one["accuracy"] == pytest.approx(other["accuracy"], abs=0.02)


@pytest.mark.slow
def test_learning_curve_does_not_affect_training(
    spec: Spec, train: Train, many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = spec(data={"source": str(many)}, optim={**SHORT, "encoder_dropout": 0.1})
    with_it, _ = train(described)
    monkeypatch.setattr(probe_learning_curve, "estimate_label_gain", lambda *_: None)
    without, _ = train(described)
    assert "more_labels" not in summary(without)
    losses = [[step.loss for step in observer.all("step")] for observer in (with_it, without)]
    assert losses[0] == losses[1]


def test_learning_curve_is_cached_by_texts_and_base(
    spec: Spec, train: Train, many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = train(spec(data={"source": str(many)}, optim=SHORT))
    monkeypatch.setattr(curve, "measure_curve", None)
    again, _ = train(spec(data={"source": str(many)}, optim={**SHORT, "learning_rate": 0.02}))
    assert summary(again)["more_labels"] == summary(first)["more_labels"]


@pytest.mark.slow  # measures three curves
def test_learning_curve_is_cached_by_pooling_and_tokenizer(
    spec: Spec, train: Train, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of ModernBERT, the weights are the same."""
    base, measure, measured = make_base(tmp_path / "modern", "modernbert"), curve.measure_curve, []

    def count(*arguments: Any) -> curve.CurveScores:
        measured.append(measure(*arguments))
        return measured[-1]

    monkeypatch.setattr(curve, "measure_curve", count)
    for pooling in ("cls", "mean", "mean"):
        train(spec(method=PROBE, base=str(base), pooling=pooling, data={"source": str(many)}))
    assert len(measured) == 2
    file = base / "tokenizer.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "normalizer": {"type": "StripAccents"}}))
    train(spec(method=PROBE, base=str(base), pooling="mean", data={"source": str(many)}))
    assert len(measured) == 3


def test_expensive_base_uses_the_linear_learning_curve(
    spec: Spec, train: Train, many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_learning_curve, "PASS_FLOPS", {"cpu": 1.0, "cuda": 1.0})
    observer, _ = train(spec(data={"source": str(many)}, optim=SHORT))
    found = summary(observer)["more_labels"]
    assert found["basis"] == "linear"
    described = spec(method={"type": "linear"}, data={"source": str(many)})
    listener = RecordingObserver()
    alone = linear.train_linear(
        described, out_dir=many.parent / "out", observer=listener, stop=listener
    )
    assert alone["more_labels"] == found


def test_few_texts_skip_the_learning_curve_with_a_message(spec: Spec, train: Train) -> None:
    observer, _ = train(spec(optim=SHORT))
    found = summary(observer)["more_labels"]
    assert (found["code"], found["texts"], found["measured"]) == ("too_few", 84, [])
    assert Phase.LEARNING_CURVE not in phases(observer)


def test_trial_has_no_learning_curve(spec: Spec, train: Train, many: Path) -> None:
    observer, _ = train(spec(data={"source": str(many)}, optim=SHORT, trial={"budget": 0.5}))
    assert "more_labels" not in summary(observer)
    assert Phase.LEARNING_CURVE not in phases(observer)


@pytest.mark.parametrize("method", ["lora", "linear"])
def test_stop_request_interrupts_the_learning_curve(spec: Spec, many: Path, method: str) -> None:
    described = spec(method={"type": method}, data={"source": str(many)})
    listener, go = (
        StopIn(Phase.LEARNING_CURVE),
        linear.train_linear if method == "linear" else train_encoder,
    )
    with pytest.raises(StopRequested):
        go(described, out_dir=many.parent / "out", observer=listener, stop=listener)
