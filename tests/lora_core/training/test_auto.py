"""The method `auto`: how it chooses, and that the chosen run equals an explicit one."""

import csv
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.numpy import load_file, save_file
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from lora_core import cross_validation, distributed, manifest, model_selection
from lora_core.cache import cache_dir
from lora_core.cost_model import DEFAULT_FLOPS_PER_SECOND, CostModel
from lora_core.cross_validation import LinearCrossValidator, Logits, trainable_examples
from lora_core.data import linear_baseline as comparison
from lora_core.data.load import load_splits
from lora_core.data.split import Example, assign_folds
from lora_core.errors.training import CheckpointMismatch, StopRequested
from lora_core.events import NullObserver
from lora_core.linear.model import LinearModel
from lora_core.progress_reporter import ProgressReporter
from lora_core.specs.method import NUM_FOLDS, CandidateSpec, LinearSpec
from lora_core.specs.train import TrainSpec
from lora_core.training import auto, checkpoint, resume, verdict
from lora_core.training.checkpoint_schedule import CheckpointSettings
from lora_core.training.cross_validation import AnyMethodCrossValidator
from lora_core.training.encoder import train_encoder
from lora_core.training.loop import Trainer
from lora_core.training.prepare import PreparedRun, prepare_run
from tests.recording_observer import RecordingObserver, StopDuringFit
from tests.task_files import make_rare
from tests.tiny_base import make_base

Make = Callable[..., TrainSpec]

LINEAR = {"type": "linear", "C": 30.0, "ngram_range": [1, 1], "min_df": 1}
LORA = {"type": "lora", "r": 4, "targets": ["query", "value"]}
PROBE = {"type": "probe"}


def choosing(*methods: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "auto", "candidates": [{"method": each, **more} for each in methods]}


@pytest.fixture
def go(tmp_path: Path) -> Callable[..., tuple[RecordingObserver, Path]]:
    counter = iter(range(100))

    def train(spec: TrainSpec, **more: Any) -> tuple[RecordingObserver, Path]:
        observer, out = (
            RecordingObserver(more.pop("stop_at", None)),
            tmp_path / f"auto-{next(counter)}",
        )
        auto.train_auto(spec, out_dir=out, observer=observer, stop=observer, **more)
        return observer, out

    return train


def answered(out: Path, split: str) -> list[dict[str, Any]]:
    lines = (out / "predictions" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_validation_metrics_come_from_held_out_folds(
    spec: Make, go: Callable[..., tuple[RecordingObserver, Path]]
) -> None:
    described = spec(method=choosing(LINEAR))
    _, out = go(described)
    splits = load_splits(described.data)
    examples = trainable_examples(described, splits)
    assert len(examples) == len(splits.train) + len(splits.validation)
    folds = assign_folds(examples, seed=0)
    texts, labels = [e.text for e in examples], np.array([e.label for e in examples])
    expected = np.empty(len(examples))
    for fold in range(5):
        learned = [text for text, each in zip(texts, folds, strict=True) if each != fold]
        terms = TfidfVectorizer(sublinear_tf=True)
        model = LogisticRegression(C=30.0, max_iter=1000)
        model.fit(terms.fit_transform(learned), labels[folds != fold])
        held_out = [text for text, each in zip(texts, folds, strict=True) if each == fold]
        expected[folds == fold] = model.decision_function(terms.transform(held_out))
    found = answered(out, "validation")
    assert [line["row"] for line in found] == [example.row for example in examples]
    logits = np.array([line["logits"] for line in found])
    np.testing.assert_allclose(logits[:, 1] - logits[:, 0], expected, atol=1e-4)


def test_chosen_method_trains_on_all_texts(
    spec: Make, go: Callable[..., tuple[RecordingObserver, Path]], tmp_path: Path
) -> None:
    """As if it had been requested explicitly, with all texts in the training split."""
    described = spec(method=choosing(PROBE), runtime={"precision": "fp32"})
    _, out = go(described)
    splits = load_splits(described.data)
    given = tmp_path / "given.csv"
    with given.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "label", "split"])
        for part in ("train", "validation", "test"):
            for each in (
                trainable_examples(described, splits) if part == "train" else getattr(splits, part)
            ):
                rows.writerow([each.text, splits.labels[each.label], part])
    named = spec(method=PROBE, data={"source": str(given)}, runtime={"precision": "fp32"})
    observer = RecordingObserver()
    train_encoder(named, out_dir=tmp_path / "named", observer=observer, stop=observer)
    ours, theirs = (load_file(each / "head.safetensors") for each in (out, tmp_path / "named"))
    for name, tensor in ours.items():
        np.testing.assert_allclose(tensor, theirs[name], atol=1e-4, err_msg=name)


def test_candidates_are_reported_and_the_chosen_method_is_stored(
    spec: Make, go: Callable[..., tuple[RecordingObserver, Path]]
) -> None:
    observer, out = go(spec(method=choosing(PROBE, LINEAR)))
    types = [each.result.method.type for each in observer.all("candidate")]
    assert types == ["probe", "linear"]
    facts = manifest.verify(out)
    assert facts["metrics"]["cross_validated"]
    selection = facts["metrics"]["selection"]
    chosen = selection["candidates"][selection["chosen"]]["method"]["type"]
    assert facts["spec"]["method"]["type"] == chosen == observer.all("selected")[0].method.type
    best = max(selection["candidates"], key=lambda each: each["accuracy"])
    assert best["low"] < best["accuracy"] <= best["high"]


def test_fast_candidates_are_evaluated_first_and_keep_their_place(
    spec: Make, go: Callable[..., tuple[RecordingObserver, Path]]
) -> None:
    observer, out = go(spec(method=choosing(LORA, LINEAR, PROBE)))
    events = observer.all("candidate")
    assert [each.number for each in events] == [1, 2, 3]
    assert [each.result.method.type for each in events] == ["linear", "probe", "lora"]
    selection = manifest.verify(out)["metrics"]["selection"]
    assert [each["method"]["type"] for each in selection["candidates"]] == [
        "lora", "linear", "probe"
    ]  # fmt: skip
    chosen = selection["candidates"][selection["chosen"]]["method"]
    [selected] = observer.all("selected")
    assert (selected.number, selected.method.type) == (selection["chosen"] + 1, chosen["type"])


def test_resumed_auto_run_is_bitwise_equal(
    spec: Make,
    go: Callable[..., tuple[RecordingObserver, Path]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    described = spec(
        method=choosing(LORA, PROBE), optim={"epochs": 1}, result={"cross_validation": True}
    )
    monkeypatch.setattr(model_selection, "select_candidate_index", lambda _: 0)  # LoRA
    uninterrupted, expected = go(described)
    with pytest.raises(StopRequested):
        go(described, stop_at=4, checkpoint_settings=CheckpointSettings(tmp_path / "kept", 0.0))
    newest = max((tmp_path / "kept").glob("step-*"), key=lambda each: int(each.name[5:]))
    read = Mock(wraps=checkpoint.read_verified)
    monkeypatch.setattr(checkpoint, "read_verified", read)
    again, out = go(described, resume=newest)
    read.assert_called_once_with(newest)
    assert not again.all("candidate")  # nothing is chosen again
    before, after = (manifest.verify(each) for each in (expected, out))
    names = ("adapter.safetensors", "predictions/validation.jsonl", "predictions/test.jsonl")
    for name in names:
        assert before["files"][name] == after["files"][name], name
    assert before["metrics"]["selection"]["chosen"] == after["metrics"]["selection"]["chosen"]
    assert before["metrics"]["verdict"] == after["metrics"]["verdict"]
    assert uninterrupted.all("step")[-1].loss == again.all("step")[-1].loss


@pytest.mark.slow
def test_cached_fits_are_not_repeated(
    spec: Make, go: Callable[..., tuple[RecordingObserver, Path]]
) -> None:
    described = spec(method=choosing(LORA, folds=2), optim={"epochs": 20})
    slow, first = go(described)
    quick, second = go(described)
    seconds = [observer.all("candidate")[0].result.seconds for observer in (slow, quick)]
    assert seconds[1] < seconds[0]
    logits = [answered(out, "validation") for out in (first, second)]
    assert logits[0] == logits[1]


def test_verdict_on_a_named_method_uses_the_same_fits(
    spec: Make, go: Callable[..., tuple[RecordingObserver, Path]], tmp_path: Path
) -> None:
    """What follows from the number of texts, as the learning rate does, is that of the fold."""
    optim, result = {"epochs": 1, "learning_rate": None}, {"cross_validation": True}
    _, chosen = go(spec(method=choosing(LORA), optim=optim, result=result))
    fits = set((cache_dir() / "cross-validation").iterdir())
    assert len(fits) == NUM_FOLDS
    named, observer = tmp_path / "named", RecordingObserver()
    described = spec(method=LORA, optim=optim, result=result)
    train_encoder(described, out_dir=named, observer=observer, stop=observer)
    assert set((cache_dir() / "cross-validation").iterdir()) == fits
    verdicts = [manifest.verify(out)["metrics"]["verdict"] for out in (chosen, named)]
    assert verdicts[0] == verdicts[1]


def test_fold_is_evaluated_once_with_the_same_result(
    spec: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evaluations in between would cost a tenth of the time, and nobody would see them."""
    described = spec(method=LORA, optim={"epochs": 3})
    splits = load_splits(described.data)
    examples = trainable_examples(described, splits)
    candidate = CandidateSpec(method=described.encoder_method, folds=1)

    progress = ProgressReporter(NullObserver(), RecordingObserver())
    folds = AnyMethodCrossValidator(described, splits.labels, examples, progress)
    evaluated, evaluate = [], Trainer._evaluate

    def counted(trainer: Trainer) -> None:
        evaluated.append(trainer.state.step)
        evaluate(trainer)

    monkeypatch.setattr(Trainer, "_evaluate", counted)
    once = folds.predict_held_out_logits(candidate)
    assert len(evaluated) == 1
    shutil.rmtree(cache_dir() / "cross-validation")
    monkeypatch.setattr(
        "lora_core.training.cross_validation.Trainer",
        lambda *args, **more: Trainer(*args, **more | {"evaluate_last_only": False}),
    )
    again = folds.predict_held_out_logits(candidate)
    assert len(evaluated) > 3
    np.testing.assert_array_equal(once, again)


def test_processes_agree_whether_a_fit_is_cached(
    spec: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fit needs all processes, so one that finds it joins those that do not."""
    described = spec(method=LORA, optim={"epochs": 1})
    splits = load_splits(described.data)
    progress = ProgressReporter(NullObserver(), RecordingObserver())
    folds = AnyMethodCrossValidator(
        described, splits.labels, trainable_examples(described, splits), progress
    )
    candidate = CandidateSpec(method=described.encoder_method, folds=1)
    folds.predict_held_out_logits(candidate)
    train, trained = folds._train, []

    def counted(prepared: PreparedRun) -> Logits:
        trained.append(prepared)
        return train(prepared)

    monkeypatch.setattr(folds, "_train", counted)
    folds.predict_held_out_logits(candidate)
    assert not trained
    monkeypatch.setattr(distributed, "all_reduce_scalar", lambda value: value + 1.0)  # the other
    folds.predict_held_out_logits(candidate)
    assert len(trained) == 1


def test_fits_with_another_scikit_learn_are_not_reused(
    spec: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fits the probe that the head starts from."""
    progress = ProgressReporter(NullObserver(), RecordingObserver())
    prepared = prepare_run(spec(), NullObserver(), progress)
    digests = {resume.run_digest(prepared)}
    monkeypatch.setattr(resume, "version", lambda _: "0")
    assert len(digests | {resume.run_digest(prepared)}) == 2


@pytest.mark.parametrize("what", ["encoder", "head", "pooling"])
def test_fits_of_another_model_are_not_reused(what: str, spec: Make, tmp_path: Path) -> None:
    """Checkpoints contain what trains, so what identifies them does not tell such models apart."""
    labels = {0: "bad", 1: "good"}
    bases = [tmp_path / "first", tmp_path / "second"]
    for seed, directory in enumerate(bases):
        family = "modernbert" if what == "pooling" else "distilbert"
        make_base(directory, family, seed=seed * (what == "encoder"), id2label=labels)
    if what == "head":
        weights = load_file(bases[1] / "model.safetensors")
        weights["classifier.weight"] *= -1
        save_file(weights, bases[1] / "model.safetensors", metadata={"format": "pt"})
    logits = []
    for directory, pooling in zip(bases, ("cls", "mean"), strict=True):
        described = spec(
            method={"type": "full"},
            base=str(directory),
            pooling=pooling if what == "pooling" else "cls",
            optim={"epochs": 1, "learning_rate": 1e-4},
        )
        splits = load_splits(described.data)
        progress = ProgressReporter(NullObserver(), RecordingObserver())
        folds = AnyMethodCrossValidator(
            described, splits.labels, trainable_examples(described, splits), progress
        )
        candidate = CandidateSpec(method=described.encoder_method, folds=1)
        logits.append(folds.predict_held_out_logits(candidate)[0])
    predicted = ~np.isnan(logits[0])
    assert np.abs(logits[0] - logits[1])[predicted].max() > 1e-3


def test_given_validation_split_is_not_trained_on(
    spec: Make, go: Callable[..., tuple[RecordingObserver, Path]], reviews: Path, tmp_path: Path
) -> None:
    lines = reviews.read_text(encoding="utf-8").splitlines()
    named = tmp_path / "named.csv"
    parts = ["train"] * 80 + ["validation"] * 20 + ["test"] * 20
    rows = [f"{line},{part}" for line, part in zip(lines[1:], parts, strict=True)]
    named.write_text("\n".join([f"{lines[0]},split", *rows]), encoding="utf-8")
    _, out = go(spec(method=choosing(LORA, folds=1), data={"source": str(named)}))
    summary = manifest.verify(out)["metrics"]
    assert summary["examples"] == {"train": 80, "validation": 20, "test": 20}
    assert summary["selection"]["texts"] == 80
    assert not summary["cross_validated"]
    assert summary["best_step"] % 10 == 0  # it was evaluated on the way


def test_thresholds_of_the_linear_baseline_come_from_held_out_folds(
    spec: Make, go: Callable[..., tuple[RecordingObserver, Path]], tmp_path: Path
) -> None:
    """Its validation texts are training texts by then, as those of the model."""
    data = {"source": str(make_rare(tmp_path / "rare.csv"))}
    described = spec(method=choosing(PROBE), task={"tune_thresholds": True}, data=data)
    _, out = go(described)
    splits = load_splits(described.data)
    examples = trainable_examples(described, splits)
    progress = ProgressReporter(NullObserver(), RecordingObserver())
    folds = LinearCrossValidator(described, splits.labels, examples, progress)
    held_out = folds.predict_held_out_logits(CandidateSpec(method=LinearSpec()))[0]
    calibration = folds.task.calibrate(held_out, folds.targets)
    [logits] = comparison.fit_and_predict_logits(examples, [splits.test], folds.task)
    expected = folds.task.report(
        logits, folds.task.targets([each.label for each in splits.test]), calibration
    )
    linear = manifest.read(out)["metrics"]["linear"]
    assert linear["train_texts"] == len(examples)
    assert linear["validation"] == {}
    assert linear["test"]["macro_f1"] == pytest.approx(expected["macro_f1"])


def test_probe_is_trained_on_the_texts_of_the_chosen_linear_model(
    spec: Make, go: Callable[..., tuple[RecordingObserver, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = Mock(wraps=prepare_run)
    monkeypatch.setattr(verdict, "prepare_run", prepare)
    described = spec(method=choosing(LINEAR))
    go(described)
    splits = prepare.call_args.args[3]
    assert len(splits.train) == len(trainable_examples(described, load_splits(described.data)))
    assert splits.validation == ()


@pytest.mark.parametrize("method", [PROBE, LINEAR], ids=["probe", "linear"])
def test_total_seconds_include_the_selection(
    spec: Make,
    go: Callable[..., tuple[RecordingObserver, Path]],
    monkeypatch: pytest.MonkeyPatch,
    method: dict[str, Any],
) -> None:
    select, monotonic = auto._select_method, time.monotonic

    def select_slowly(*arguments: Any) -> Any:
        monkeypatch.setattr(time, "monotonic", lambda: monotonic() + 1000)
        return select(*arguments)

    monkeypatch.setattr(auto, "_select_method", select_slowly)
    _, out = go(spec(method=choosing(method)))
    assert 1000 < manifest.read(out)["metrics"]["total_seconds"] < 1100


@pytest.mark.parametrize(
    ("device", "gpus", "speed"),
    [("auto", 0, "cpu"), ("auto", 1, "cuda"), ("cuda:0", 1, "cuda"), ("cpu", 1, "cpu")],
)
def test_candidates_are_planned_for_the_device(
    device: str, gpus: int, speed: str, spec: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    costs = Mock(wraps=CostModel)
    monkeypatch.setattr(auto, "CostModel", costs)
    described = spec(method={"type": "auto"}, runtime={"device": device})
    examples = trainable_examples(described, load_splits(described.data))
    auto._plan_candidates(described, examples, 2)
    assert costs.call_args.kwargs["flops_per_second"] == DEFAULT_FLOPS_PER_SECOND[speed]


def test_repeats_of_some_folds_predict_more_texts(
    spec: Make, go: Callable[..., tuple[RecordingObserver, Path]]
) -> None:
    """Those of either repeat count, not only those of both, of which there are few."""
    described = spec(method=choosing(LINEAR, folds=2, repeats=2))
    splits = load_splits(described.data)
    examples = trainable_examples(described, splits)
    progress = ProgressReporter(NullObserver(), RecordingObserver())
    folds = LinearCrossValidator(described, splits.labels, examples, progress)
    logits = folds.predict_held_out_logits(CandidateSpec(method=LinearSpec(), folds=2, repeats=2))
    found, by_hand = folds.evaluate_logits(logits), np.full((2, len(examples)), np.nan)
    for repeat in range(2):
        each = assign_folds(examples, seed=repeat) < 2
        by_hand[repeat, each] = logits[repeat, each].argmax(axis=1) == folds.targets[each]
    expected = np.nanmean(by_hand[:, found.scored_mask], axis=0)
    assert found.scored_mask.sum() > 1.4 * (2 / 5) * len(examples)
    np.testing.assert_allclose(found.by_text[found.scored_mask], expected)
    assert found.value == pytest.approx(expected.mean())
    [candidate] = go(described)[0].all("candidate")
    assert candidate.result.texts == found.scored_mask.sum()


def test_choice_of_a_candidate_does_not_flatter_it(spec: Make) -> None:
    """Each is right on one fold alone, so the other folds select another one for that fold."""
    described = spec(method=choosing(LINEAR))
    splits = load_splits(described.data)
    examples = trainable_examples(described, splits)
    progress = ProgressReporter(NullObserver(), RecordingObserver())
    folds = LinearCrossValidator(described, splits.labels, examples, progress)
    right = assign_folds(examples, seed=0) == np.arange(5)[:, None]
    labels = np.where(right, folds.targets, 1 - folds.targets)
    all_logits = [np.eye(2, dtype=np.float32)[each][None] for each in labels]
    scores = [folds.evaluate_logits(each) for each in all_logits]
    assert all(0.1 < each.value < 0.3 for each in scores)
    answers = folds.predict_by_cross_fitted_choice(scores, all_logits)
    np.testing.assert_array_equal(answers, 1 - folds.targets)


@pytest.mark.parametrize("method", [PROBE, LINEAR], ids=["probe", "linear"])
def test_the_verdict_is_on_the_cross_fitted_choice(
    spec: Make,
    go: Callable[..., tuple[RecordingObserver, Path]],
    monkeypatch: pytest.MonkeyPatch,
    method: dict[str, Any],
) -> None:
    monkeypatch.setattr(
        LinearCrossValidator,
        "predict_by_cross_fitted_choice",
        lambda folds, *_: np.zeros(len(folds.targets), dtype=np.int64),
    )
    _, out = go(spec(method=choosing(method), result={"cross_validation": True}))
    verdict = manifest.read(out)["metrics"]["verdict"]
    assert verdict["measured_on"] == "cross_validation"
    assert verdict["never_predicted"] == ["good"]


def test_train_size_limits_auto(
    spec: Make, go: Callable[..., tuple[RecordingObserver, Path]]
) -> None:
    _, out = go(spec(method=choosing(LINEAR), data={"train_size": 30}))
    assert manifest.verify(out)["metrics"]["selection"]["texts"] == 30


def test_checkpoint_of_an_explicit_method_is_refused(
    spec: Make, go: Callable[..., tuple[RecordingObserver, Path]], tmp_path: Path
) -> None:
    observer = RecordingObserver(stop_at=2)
    with pytest.raises(StopRequested):
        train_encoder(spec(), out_dir=tmp_path / "out", observer=observer, stop=observer,
            checkpoint_settings=CheckpointSettings(tmp_path / "kept", 0.0))  # fmt: skip
    newest = max((tmp_path / "kept").glob("step-*"))
    with pytest.raises(CheckpointMismatch, match="its method was given by the spec"):
        go(spec(method=choosing(LORA)), resume=newest)


def test_stop_request_interrupts_a_linear_fit(
    spec: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = StopDuringFit()
    monkeypatch.setattr(cross_validation, "fit_linear_model", stop.fit)
    with pytest.raises(StopRequested):
        auto.train_auto(spec(method=choosing(LINEAR)), out_dir=tmp_path, observer=stop, stop=stop)
    stop.left.set()


def test_fold_with_many_characters_is_subsampled(
    spec: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = spec(method=choosing(LINEAR))
    splits = load_splits(described.data)
    examples, learned_from = trainable_examples(described, splits), []

    def counted(train: list[Example], *rest: Any, **more: Any) -> LinearModel:
        learned_from.append(sum(len(example.text) for example in train))
        return comparison.fit_linear_model(train, *rest, **more)

    monkeypatch.setattr(comparison, "MAX_CHARACTERS", 500)
    monkeypatch.setattr(cross_validation, "fit_linear_model", counted)
    observer = RecordingObserver()
    tried = cross_validation.LinearCrossValidator(
        described, splits.labels, examples, ProgressReporter(observer=observer, stop=observer)
    )
    answers = tried.predict_held_out(LinearSpec())
    assert len(learned_from) == 5
    assert max(learned_from) < 700
    assert len(answers) == len(examples)


def test_early_stopping_settings_are_refused_with_auto(spec: Make) -> None:
    with pytest.raises(ValidationError, match="selects by cross-validation"):
        spec(method={"type": "auto"}, stop={"patience": 2})


def test_label_with_one_text_is_supported(
    spec: Make, go: Callable[..., tuple[RecordingObserver, Path]], reviews: Path
) -> None:
    with reviews.open("a", encoding="utf-8") as file:
        file.write("a film of its own kind,odd\n")
    _, out = go(spec(method=choosing(PROBE, LINEAR, LORA), optim={"epochs": 1}))
    assert manifest.verify(out)["metrics"]["labels"] == ["bad", "good", "odd"]


@pytest.mark.parametrize("method", [PROBE, LORA], ids=["probe", "lora"])
def test_the_verdict_on_few_folds_covers_their_texts(
    spec: Make, go: Callable[..., tuple[RecordingObserver, Path]], method: dict[str, Any]
) -> None:
    described = spec(
        method=choosing(method, folds=2),
        optim={"epochs": 1},
        result={"cross_validation": True},
    )
    _, out = go(described)
    examples = trainable_examples(described, load_splits(described.data))
    verdict = manifest.read(out)["metrics"]["verdict"]
    assert verdict["measured_on"] == "cross_validation"
    texts = int((assign_folds(examples, seed=0) < 2).sum())
    assert verdict["texts"] == texts < len(examples)
    assert {each["texts"] for each in verdict["references"].values()} == {texts}
