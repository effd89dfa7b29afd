"""The method `auto`: what it chooses by, and that the chosen run is one like any other."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from safetensors.numpy import load_file
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from lora_core import cross_validation, manifest
from lora_core.cross_validation import training_pool
from lora_core.data import linear_baseline as comparison
from lora_core.data.load import load_splits
from lora_core.data.records import Example
from lora_core.data.split import assign_folds
from lora_core.errors.training import CheckpointMismatch, StopRequested
from lora_core.linear.model import LinearModel
from lora_core.progress_reporter import ProgressReporter
from lora_core.specs.method import LinearSpec
from lora_core.specs.train import TrainSpec
from lora_core.training import auto
from lora_core.training.checkpoint_schedule import CheckpointSettings
from lora_core.training.run import run
from tests.listener import Listener, StopDuringFit

Make = Callable[..., TrainSpec]

LINEAR = {"type": "linear", "C": 30.0, "ngram_range": [1, 1], "min_df": 1}
LORA = {"type": "lora", "r": 4, "targets": ["query", "value"]}
PROBE = {"type": "probe"}


def choosing(*methods: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "auto", "candidates": [{"method": each, **more} for each in methods]}


@pytest.fixture
def go(tmp_path: Path) -> Callable[..., tuple[Listener, Path]]:
    counter = iter(range(100))

    def train(spec: TrainSpec, **more: Any) -> tuple[Listener, Path]:
        heard, out = Listener(more.pop("stop_at", None)), tmp_path / f"auto-{next(counter)}"
        auto.run(spec, out_dir=out, observer=heard, stop=heard, **more)
        return heard, out

    return train


def answered(out: Path, split: str) -> list[dict[str, Any]]:
    lines = (out / "predictions" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_validation_figures_are_those_of_texts_that_were_held_out(
    spec: Make, go: Callable[..., tuple[Listener, Path]]
) -> None:
    described = spec(method=choosing(LINEAR))
    _, out = go(described)
    splits = load_splits(described.data)
    examples = training_pool(described, splits)
    assert len(examples) == len(splits.train) + len(splits.validation)
    folds = assign_folds(examples, seed=0)
    texts, labels = [e.text for e in examples], np.array([e.label for e in examples])
    expected = np.empty(len(examples))
    for fold in range(5):
        learned = [text for text, each in zip(texts, folds, strict=True) if each != fold]
        terms = TfidfVectorizer(sublinear_tf=True)
        model = LogisticRegression(C=30.0, max_iter=1000)
        model.fit(terms.fit_transform(learned), labels[folds != fold])
        held = [text for text, each in zip(texts, folds, strict=True) if each == fold]
        expected[folds == fold] = model.decision_function(terms.transform(held))
    found = answered(out, "validation")
    assert [line["row"] for line in found] == [example.row for example in examples]
    logits = np.array([line["logits"] for line in found])
    np.testing.assert_allclose(logits[:, 1] - logits[:, 0], expected, atol=1e-4)


def test_the_chosen_method_learns_from_all_texts(
    spec: Make, go: Callable[..., tuple[Listener, Path]], tmp_path: Path
) -> None:
    """As if it had been named, with every text in the training part."""
    described = spec(method=choosing(PROBE), runtime={"precision": "fp32"})
    _, out = go(described)
    splits = load_splits(described.data)
    given = tmp_path / "given.csv"
    with given.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "label", "split"])
        for part in ("train", "validation", "test"):
            for each in (
                training_pool(described, splits) if part == "train" else getattr(splits, part)
            ):
                rows.writerow([each.text, splits.labels[each.label], part])
    named = spec(method=PROBE, data={"source": str(given)}, runtime={"precision": "fp32"})
    heard = Listener()
    run(named, out_dir=tmp_path / "named", observer=heard, stop=heard)
    ours, theirs = (
        load_file(each / "merged" / "model.safetensors") for each in (out, tmp_path / "named")
    )
    for name, tensor in ours.items():
        np.testing.assert_allclose(tensor, theirs[name], atol=1e-4, err_msg=name)


def test_it_tells_what_it_tried_and_keeps_the_chosen_method(
    spec: Make, go: Callable[..., tuple[Listener, Path]]
) -> None:
    heard, out = go(spec(method=choosing(PROBE, LINEAR)))
    told = [each.result.method.type for each in heard.all("candidate")]
    assert told == ["probe", "linear"]
    facts = manifest.verify(out)
    selection = facts["metrics"]["selection"]
    chosen = selection["candidates"][selection["chosen"]]["method"]["type"]
    assert facts["spec"]["method"]["type"] == chosen == heard.all("selected")[0].method.type
    best = max(selection["candidates"], key=lambda each: each["accuracy"])
    assert best["low"] < best["accuracy"] <= best["high"]


def test_a_resumed_run_ends_with_the_same_bits(
    spec: Make, go: Callable[..., tuple[Listener, Path]], tmp_path: Path
) -> None:
    described = spec(method=choosing(LORA, folds=2))
    whole, expected = go(described)
    with pytest.raises(StopRequested):
        go(described, stop_at=4, checkpoint_settings=CheckpointSettings(tmp_path / "kept", 0.0))
    newest = max((tmp_path / "kept").glob("step-*"), key=lambda each: int(each.name[5:]))
    again, out = go(described, resume=newest)
    assert not again.all("candidate")  # nothing is chosen again
    before, after = (manifest.verify(each) for each in (expected, out))
    names = ("adapter.safetensors", "predictions/validation.jsonl", "predictions/test.jsonl")
    for name in names:
        assert before["files"][name] == after["files"][name], name
    assert before["metrics"]["selection"]["chosen"] == after["metrics"]["selection"]["chosen"]
    assert whole.all("step")[-1].loss == again.all("step")[-1].loss


def test_fits_that_were_made_are_not_made_again(
    spec: Make, go: Callable[..., tuple[Listener, Path]]
) -> None:
    described = spec(method=choosing(LORA, folds=2), optim={"epochs": 20})
    slow, first = go(described)
    quick, second = go(described)
    seconds = [heard.all("candidate")[0].result.seconds for heard in (slow, quick)]
    assert seconds[1] < seconds[0]
    logits = [answered(out, "validation") for out in (first, second)]
    assert logits[0] == logits[1]


def test_a_validation_part_that_is_named_stays_out_of_training(
    spec: Make, go: Callable[..., tuple[Listener, Path]], reviews: Path, tmp_path: Path
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
    assert summary["best_step"] % 10 == 0  # it was evaluated on the way


def test_a_train_size_is_a_limit_for_it_too(
    spec: Make, go: Callable[..., tuple[Listener, Path]]
) -> None:
    _, out = go(spec(method=choosing(LINEAR), data={"train_size": 30}))
    assert manifest.verify(out)["metrics"]["selection"]["texts"] == 30


def test_a_checkpoint_of_a_named_method_is_refused(
    spec: Make, go: Callable[..., tuple[Listener, Path]], tmp_path: Path
) -> None:
    heard = Listener(stop_at=2)
    with pytest.raises(StopRequested):
        run(spec(), out_dir=tmp_path / "out", observer=heard, stop=heard,
            checkpoint_settings=CheckpointSettings(tmp_path / "kept", 0.0))  # fmt: skip
    newest = max((tmp_path / "kept").glob("step-*"))
    with pytest.raises(CheckpointMismatch, match="its method was given by the spec"):
        go(spec(method=choosing(LORA)), resume=newest)


def test_a_stop_is_obeyed_while_a_linear_model_is_fitted(
    spec: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = StopDuringFit()
    monkeypatch.setattr(cross_validation, "fit_examples", stop.fit)
    with pytest.raises(StopRequested):
        auto.run(spec(method=choosing(LINEAR)), out_dir=tmp_path, observer=stop, stop=stop)
    stop.left.set()


def test_of_many_characters_a_fold_learns_from_a_part(
    spec: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = spec(method=choosing(LINEAR))
    splits = load_splits(described.data)
    examples, learned_from = training_pool(described, splits), []

    def counted(train: list[Example], *rest: Any, **more: Any) -> LinearModel:
        learned_from.append(sum(len(example.text) for example in train))
        return comparison.fit_examples(train, *rest, **more)

    monkeypatch.setattr(comparison, "MAX_CHARACTERS", 500)
    monkeypatch.setattr(cross_validation, "fit_examples", counted)
    heard = Listener()
    tried = cross_validation.LinearCrossValidation(
        described, splits.labels, examples, ProgressReporter(observer=heard, stop=heard)
    )
    answers = tried.predictions(LinearSpec())
    assert len(learned_from) == 5
    assert max(learned_from) < 700
    assert len(answers) == len(examples)


def test_how_to_stop_is_refused_with_it(spec: Make) -> None:
    with pytest.raises(ValidationError, match="selects by cross-validation"):
        spec(method={"type": "auto"}, stop={"patience": 2})


def test_a_label_of_one_text_breaks_nothing(
    spec: Make, go: Callable[..., tuple[Listener, Path]], reviews: Path
) -> None:
    with reviews.open("a", encoding="utf-8") as file:
        file.write("a film of its own kind,odd\n")
    _, out = go(spec(method=choosing(PROBE, LINEAR, LORA)))
    assert manifest.verify(out)["metrics"]["labels"] == ["bad", "good", "odd"]
