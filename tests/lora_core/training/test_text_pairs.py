"""Runs on text pairs: against plain transformers, resumed, exported and predicted."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    pipeline,
)

from lora_core import manifest
from lora_core.batch_prediction import predict_file
from lora_core.data.batching import epoch_batches
from lora_core.errors.artifact import InvalidImportedModel, TextPairRequired, TextPairUnsupported
from lora_core.export.hugging_face import export_adapter, export_merged
from lora_core.fast.feature_cache import entry_key, hash_encoder
from lora_core.inference.load import load_predictor
from lora_core.inference.predictor import Predictor
from lora_core.model_imports.check import check_imported_model
from lora_core.progress_reporter import ProgressReporter
from lora_core.saved_predictions import check_golden_predictions
from lora_core.specs.data import Split
from lora_core.specs.predict import PredictDataSpec, PredictRuntimeSpec, PredictSpec
from lora_core.specs.train import TrainSpec
from lora_core.training import auto, linear
from lora_core.training.encoder import train_encoder
from lora_core.training.prepare import PreparedRun, prepare_run
from lora_core.training.resume import build_or_resume_trainer
from tests.lora_core.inference.test_word_spans import word_texts
from tests.lora_core.training.twins import product, stop_and_resume
from tests.recording_observer import RecordingObserver
from tests.slow import slow_but
from tests.tiny_artifact import make_artifact
from tests.tiny_base import EVERY_FAMILY, FAMILIES, make_base, make_pairs, tokenizer

Make = Callable[..., TrainSpec]

LORA = {"type": "lora", "r": 4, "targets": ["query", "key", "value", "mlp"]}
METHODS = {
    "lora": LORA,
    "full": {"type": "full"},
    "baseline": {"type": "baseline", "blocks": 1},
    "probe": {"type": "probe"},
}
PAIRS = [
    ("a good film", "a film good"),
    ("bad " * 40, "a film good"),
    ("the plot was fine", "not a very good story " * 20),
    ("dull " * 50, "boring " * 60),
]


@pytest.fixture
def pair_spec(spec: Make, tmp_path: Path) -> Make:
    """The spec of a run on pairs with a base of `family`."""

    def make(family: str = "bert", **changes: Any) -> TrainSpec:
        base = tmp_path / f"{family}-base"
        if not base.exists():
            make_base(base, family)
        pairs = tmp_path / "pairs.csv"
        if not pairs.exists():
            make_pairs(pairs)
        columns = {"text_column": "first", "text_pair_column": "second"}
        changes.setdefault("method", LORA)
        changes["optim"] = {"epochs": 1, **changes.get("optim", {})}
        return spec(base=str(base), data={"source": str(pairs), **columns}, **changes)

    return make


def train(described: TrainSpec, out: Path) -> dict[str, Any]:
    observer = RecordingObserver()
    return train_encoder(described, out_dir=out, observer=observer, stop=observer)


def plain_logits(model: PreTrainedModel, family: str, pairs: list[tuple[str, str]]) -> torch.Tensor:
    """Return the logits (pairs, classes) of plain transformers, one pair at a time."""
    plain = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer(family),
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    rows = []
    for pair in pairs:
        tokens = plain(*pair, truncation="longest_first", max_length=64, return_tensors="pt")
        if family == "distilbert":
            tokens.pop("token_type_ids")
        with torch.no_grad():
            rows.append(model(**tokens).logits[0])
    return torch.stack(rows)


# Fast: a family with segments, and one without.
@pytest.mark.parametrize(
    ("family", "method"),
    [
        *(
            pytest.param("bert", name, marks=() if name == "probe" else pytest.mark.slow)
            for name in METHODS
            if name != "lora"
        ),
        *(
            pytest.param(name, "lora", marks=() if name == "modernbert" else pytest.mark.slow)
            for name in FAMILIES
        ),
    ],
)
def test_model_of_a_run_answers_like_transformers(
    pair_spec: Make, tmp_path: Path, family: str, method: str
) -> None:
    train(pair_spec(family, method=METHODS[method]), tmp_path / "out")
    facts = manifest.read(tmp_path / "out")
    assert manifest.reads_pairs(facts)
    predictor = Predictor.load(tmp_path / "out")
    assert predictor.pairs
    assert check_golden_predictions(predictor, tmp_path / "out") < 1e-4
    assert check_imported_model(tmp_path / "out").difference < 1e-4
    export_merged(tmp_path / "out", tmp_path / "merged")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    ours = predictor.forward(predictor.encode(PAIRS))
    torch.testing.assert_close(ours, plain_logits(model, family, PAIRS), rtol=1e-4, atol=1e-5)
    with pytest.raises(TextPairRequired):
        predictor.encode(["a good film"])


@pytest.mark.parametrize("family", slow_but(EVERY_FAMILY, "bert"))
def test_exported_model_answers_the_same_in_the_stock_pipeline(
    pair_spec: Make, tmp_path: Path, family: str
) -> None:
    train(pair_spec(family), tmp_path / "out")
    export_merged(tmp_path / "out", tmp_path / "merged")
    predictor = Predictor.load(tmp_path / "out")
    stock = pipeline("text-classification", model=str(tmp_path / "merged"), top_k=None)
    inputs = [{"text": text, "text_pair": pair} for text, pair in PAIRS]
    logits = predictor.forward(predictor.encode(PAIRS))
    for expected, answer in zip(
        predictor.decode_label_scores(logits, "softmax"),
        stock(inputs, truncation=True),
        strict=True,
    ):
        assert [each["label"] for each in answer] == [label for label, _ in expected]
        np.testing.assert_allclose(
            [each["score"] for each in answer], [score for _, score in expected], atol=1e-5
        )


def test_adapter_is_exported_with_the_tokenizer_of_pairs(pair_spec: Make, tmp_path: Path) -> None:
    train(pair_spec(), tmp_path / "out")
    export_adapter(tmp_path / "out", tmp_path / "adapter")  # checks its golden pairs
    for directory in (tmp_path / "adapter", tmp_path / "adapter" / "base"):
        settings = json.loads((directory / "tokenizer_config.json").read_text())
        assert settings["model_input_names"] == ["input_ids", "token_type_ids", "attention_mask"]


def first_loss_of_transformers(prepared: PreparedRun) -> float:
    """Return the mean loss of the first update, computed pair by pair with the plain model."""
    model = AutoModelForSequenceClassification.from_config(prepared.model.config)
    model.load_state_dict(prepared.model.state_dict())
    data, size = prepared.tokenized[Split.TRAIN], prepared.spec.optim.batch_size or 0
    [first, *_] = epoch_batches(data.lengths, batch_size=size, seed=3, epoch=0)
    examples = [prepared.splits.train[i] for i in first]
    logits = plain_logits(model.eval(), "bert", [(e.text, e.pair or "") for e in examples])
    return F.cross_entropy(logits, torch.tensor([e.label for e in examples])).item()


@pytest.mark.parametrize("method", [{"type": "full"}, {"type": "baseline", "blocks": 1}])
def test_first_update_has_the_loss_of_transformers(pair_spec: Make, method: dict[str, Any]) -> None:
    """Block by block with segments, and on the cached states of a frozen block."""
    optim = {"head_dropout": 0.0, "micro_batch_tokens": 64}
    described = pair_spec(method=method, optim=optim, runtime={"precision": "fp32"})
    observer = RecordingObserver()
    progress = ProgressReporter(observer, observer)
    prepared = prepare_run(described, observer, progress)
    trainer = build_or_resume_trainer(
        prepared, observer=observer, progress=progress, checkpoint_settings=None, saved=None
    )
    expected = first_loss_of_transformers(prepared)
    trainer.train()
    assert observer.all("step")[0].loss == pytest.approx(expected, rel=1e-5)


def test_segments_are_part_of_the_feature_key(pair_spec: Make, tmp_path: Path) -> None:
    """The same ids as another segment must not get the cached states of the first."""
    observer = RecordingObserver()
    progress = ProgressReporter(observer, observer)
    prepared = prepare_run(pair_spec(method={"type": "probe"}), observer, progress)
    data = prepared.tokenized[Split.TEST]
    assert data.segment_starts is not None
    assert (data.segment_starts < data.lengths).all()
    digest = hash_encoder((), ())
    in_one_segment = replace(data, segment_starts=data.lengths)
    assert entry_key(digest, in_one_segment) != entry_key(digest, data)


@pytest.mark.slow  # resumes as test_exactness.py and test_tasks.py do
def test_resumed_run_is_bitwise_equal(pair_spec: Make, tmp_path: Path) -> None:
    described = pair_spec(optim={"epochs": 3, "encoder_dropout": 0.1})
    train(described, tmp_path / "whole")
    resumed = stop_and_resume(described, tmp_path, stop_at=10)
    assert product(resumed) == product(tmp_path / "whole")


def test_linear_and_auto_runs(pair_spec: Make, tmp_path: Path) -> None:
    observer = RecordingObserver()
    described = pair_spec(method={"type": "linear"})
    summary = linear.train_linear(
        described, out_dir=tmp_path / "linear", observer=observer, stop=observer
    )
    assert summary["test"]["accuracy"] > 0.9
    predictor = load_predictor(tmp_path / "linear")
    assert predictor.pairs
    assert check_imported_model(tmp_path / "linear").difference < 1e-9
    candidates = [{"method": {"type": "linear"}}, {"method": {"type": "probe"}}]
    auto.train_auto(
        pair_spec(method={"type": "auto", "candidates": candidates}),
        out_dir=tmp_path / "auto",
        observer=observer,
        stop=observer,
    )
    facts = manifest.verify(tmp_path / "auto")
    assert facts["spec"]["method"]["type"] == "linear"  # a probe of random weights learns nothing
    assert manifest.reads_pairs(facts)


def test_file_of_pairs_is_predicted(pair_spec: Make, tmp_path: Path) -> None:
    train(pair_spec(), tmp_path / "out")
    file = tmp_path / "to-predict.csv"
    with file.open("w", newline="") as handle:
        csv.writer(handle).writerows(
            [["id", "b", "a"], *([i, b, a] for i, (a, b) in enumerate(PAIRS))]
        )
    data = PredictDataSpec(source=str(file), text_column="a", text_pair_column="b")
    observer = RecordingObserver()
    predict_file(
        PredictSpec(model=str(tmp_path / "out"), data=data, runtime=PredictRuntimeSpec(threads=1)),
        out_dir=tmp_path / "predicted",
        observer=observer,
        stop=observer,
    )
    lines = (tmp_path / "predicted" / "results.jsonl").read_text().splitlines()
    predicted = [json.loads(line) for line in lines]
    expected = Predictor.load(tmp_path / "out").predict(PAIRS)
    for line, (_, second), scores in zip(predicted, PAIRS, expected, strict=True):
        assert line["b"] == second
        assert line["predicted_label"] == scores[0][0]
        assert line["predicted_score"] == pytest.approx(scores[0][1], abs=1e-5)


def test_words_of_both_texts_are_masked(pair_spec: Make, tmp_path: Path) -> None:
    train(pair_spec(), tmp_path / "out")
    predictor = Predictor.load(tmp_path / "out")
    words = predictor.tokenize_into_words(("a good film", "not bad"))
    assert word_texts(words) == ["a", "good", "film", "not", "bad"]
    [whole] = predictor.encode([("a good film", "not bad")])
    assert words.keep_words([True] * 5) == whole
    [without] = predictor.encode([("a film", "bad")])
    assert words.keep_words([True, False, True, False, True]) == without
    assert [word.side for word in words.grouped(2).words] == [0, 1]
    long = predictor.tokenize_into_words(PAIRS[3])
    [cut] = predictor.encode([PAIRS[3]])
    assert long.keep_words([True] * len(long.words)) == cut


def test_model_of_single_texts_refuses_pairs(tmp_path: Path) -> None:
    predictor = Predictor.load(make_artifact(tmp_path / "made"))
    with pytest.raises(TextPairUnsupported):
        predictor.encode(["a film", ("a film", "bad")])


def test_import_with_golden_texts_of_the_other_kind_is_refused(tmp_path: Path) -> None:
    directory = make_artifact(tmp_path / "made")
    facts = manifest.read(directory)
    facts["spec"]["data"]["text_pair_column"] = "second"
    facts.pop("files")
    (directory / "manifest.json").unlink()
    manifest.create_and_save(directory, facts)
    with pytest.raises(InvalidImportedModel, match="pairs of texts"):
        check_imported_model(directory)
