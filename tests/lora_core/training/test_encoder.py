"""Full runs on a tiny base: events, artifacts and failures."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from lora_core import manifest
from lora_core.data import linear_baseline
from lora_core.errors.artifact import ArtifactCorrupt
from lora_core.errors.base_model import SpecialTokensNotAdded
from lora_core.errors.spec import DeviceUnavailable, MaxLengthTooLarge, PrecisionUnsupported
from lora_core.errors.training import DiskFull, NonFiniteLoss, StopRequested
from lora_core.inference.predictor import Predictor
from lora_core.runtime import _has_fast_bf16
from lora_core.specs.chat import PromptFormat
from lora_core.specs.pooling import POOLING_FILE
from lora_core.specs.train import TrainSpec
from lora_core.training.encoder import train_encoder
from tests.plain_checkpoint import plain_checkpoint
from tests.recording_observer import RecordingObserver, StopDuringFit
from tests.slow import slow_but
from tests.tiny_base import FAMILIES, make_base, make_chat_examples, make_reviews

Make = Callable[..., TrainSpec]
Train = Callable[..., tuple[RecordingObserver, Path]]

METHODS: list[dict[str, Any]] = [
    {"type": "lora", "r": 4, "targets": ["query", "value", "mlp"]},
    {"type": "lora", "variant": "rslora", "targets": ["query", "key", "value", "projection"]},
    {"type": "lora", "variant": "unscaled", "alpha": 1, "head": "lora"},
    {"type": "lora", "variant": "dora", "head": "frozen", "layers": [1]},
    {"type": "lora", "variant": "lora_fa", "r": 4},
    {"type": "baseline", "blocks": 1},
    {"type": "baseline"},
    {"type": "full"},
    {"type": "probe"},
]
# The variants of LoRA are in tests/lora_core/export/test_peft.py.
QUICK = [each for each in METHODS if each.get("variant", "dora") == "dora" and "blocks" not in each]


@pytest.mark.parametrize("pooling", ["cls", pytest.param("mean", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "method", slow_but(METHODS, *QUICK), ids=lambda m: "-".join(map(str, m.values()))[:40]
)
def test_every_method_exports_a_model_for_transformers(
    spec: Make, train: Train, method: dict[str, object], pooling: str
) -> None:
    observer, out = train(spec(method=method, pooling=pooling, optim={"epochs": 1}))
    facts = manifest.verify(out)
    merged = plain_checkpoint(out)
    model, info = AutoModelForSequenceClassification.from_pretrained(
        merged, output_loading_info=True
    )
    assert not any(info.values())
    assert model.config.id2label == {0: "bad", 1: "good"}
    assert model.config.label2id == {"bad": 0, "good": 1}
    assert facts["metrics"]["merge_difference"] <= 1e-4
    assert (out / "adapter.safetensors").exists() == (method["type"] == "lora")
    trains_encoder = method["type"] == "full" or method.get("blocks") == 1
    assert (out / "merged").exists() == trains_encoder
    assert (out / "base").exists() != trains_encoder

    golden = json.loads((out / "golden.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(merged)
    inputs = tokenizer([row["text"] for row in golden], padding=True, return_tensors="pt")
    logits = model(inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
    expected = torch.tensor([row["logits"] for row in golden])
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    assert observer.all("finished")[0].summary == facts["metrics"]


# Slow: the default of a processor that has it, which `test_run_learns_and_reports_metrics` uses.
BF16 = [pytest.param("bf16", marks=pytest.mark.slow)] if _has_fast_bf16("cpu") else []


@pytest.mark.parametrize("precision", ["fp32", *BF16])
def test_roberta_learns_and_matches_transformers(
    spec: Make, train: Train, tmp_path: Path, precision: str
) -> None:
    base = make_base(tmp_path / "roberta", "roberta")
    observer, out = train(spec(base=str(base), runtime={"precision": precision}))
    assert observer.all("finished")[0].summary["test"]["accuracy"] > 0.9
    assert not observer.all("noted")  # no text was truncated
    golden = json.loads((out / "golden.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(plain_checkpoint(out))
    assert (tokenizer.pad_token_id, tokenizer.cls_token) == (1, "<s>")
    inputs = tokenizer([row["text"] for row in golden], padding=True, return_tensors="pt")
    assert (inputs["input_ids"] == 1).any()
    model = AutoModelForSequenceClassification.from_pretrained(plain_checkpoint(out))
    expected = torch.tensor([row["logits"] for row in golden])
    torch.testing.assert_close(model(**inputs).logits, expected, rtol=1e-4, atol=1e-4)


def test_run_learns_and_reports_metrics(spec: Make, train: Train) -> None:
    observer, out = train(spec())
    started = observer.all("started")[0]
    assert started.total_steps == 3 * -(-started.examples["train"] // 8)
    losses = [event.loss for event in observer.all("step")]
    assert losses[-1] < losses[0] / 2
    test = manifest.read(out)["metrics"]["test"]
    assert test["accuracy"] > 0.9
    assert set(test["per_class"]) == {"bad", "good"}
    assert sum(map(sum, test["confusion_matrix"])) == started.examples["test"]
    baseline = observer.all("linear_model")[0]
    assert 0 <= baseline.test["accuracy"] <= 1
    events = [event.event for event in observer.events]
    assert events[-1] == "finished"
    assert events.index("started") < events.index("step") < events.index("linear_model")


def test_same_seed_and_threads_are_bitwise_reproducible(spec: Make, train: Train) -> None:
    def curve(seed: int) -> tuple[list[str], dict[str, torch.Tensor]]:
        observer, out = train(
            spec(
                runtime={"seed": seed},
                optim={"epochs": 1, "encoder_dropout": 0.1, "head_dropout": 0.1},
            )
        )
        losses = [event.loss.hex() for event in observer.all("step")]
        return losses, load_file(plain_checkpoint(out) / "model.safetensors")

    (losses, weights), (again, same), (other, _) = curve(1), curve(1), curve(2)
    assert losses == again
    assert losses != other
    assert all(torch.equal(weights[name], same[name]) for name in weights)


def test_micro_batches_add_up_to_the_full_batch(spec: Make, train: Train) -> None:
    """The micro-batch size affects how an update is computed, not its result."""
    fp32 = {"precision": "fp32"}  # where summation order hardly matters
    full_batch, _ = train(spec(optim={"epochs": 1, "micro_batch_tokens": 4096}, runtime=fp32))
    parts, _ = train(spec(optim={"epochs": 1, "micro_batch_tokens": 32}, runtime=fp32))
    for a, b in zip(full_batch.all("step"), parts.all("step"), strict=True):
        assert a.loss == pytest.approx(b.loss, rel=1e-3, abs=1e-4)


def test_predictions_of_held_out_texts_are_stored(spec: Make, train: Train) -> None:
    observer, out = train(spec(optim={"epochs": 1}))
    examples = observer.all("started")[0].examples
    for split in ("validation", "test"):
        lines = (out / "predictions" / f"{split}.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        assert len(rows) == examples[split]
        right = sum(row["predicted"] == row["label"] for row in rows) / len(rows)
        assert right == pytest.approx(manifest.read(out)["metrics"][split]["accuracy"])


def test_best_evaluation_is_saved(spec: Make, train: Train) -> None:
    observer, out = train(spec(stop={"select_by": "loss", "evaluations_per_epoch": 3}))
    seen = [e for e in observer.all("evaluated") if e.split == "validation"]
    best = min(seen, key=lambda e: e.metrics["loss"])
    metrics = manifest.read(out)["metrics"]
    assert metrics["best_step"] == best.step
    assert metrics["validation"]["loss"] == pytest.approx(best.metrics["loss"], rel=1e-4)


def test_patience_stops_the_run_early(spec: Make, train: Train) -> None:
    observer, out = train(
        spec(
            optim={"epochs": 50, "learning_rate": 0.02},
            stop={"patience": 2, "evaluations_per_epoch": 1, "select_by": "accuracy"},
        )
    )
    metrics = manifest.read(out)["metrics"]
    assert metrics["stopped_early"]
    assert metrics["steps"] < observer.all("started")[0].total_steps


@pytest.mark.parametrize(
    ("method", "folder"),
    [
        ("lora", "."),
        *(pytest.param("full", each, marks=pytest.mark.slow) for each in (".", "merged")),
    ],
)
def test_trained_model_as_base_keeps_its_head(
    spec: Make, train: Train, method: str, folder: str
) -> None:
    _, first = train(spec(method={"type": method}))
    observer, second = train(
        spec(base=str(first / folder), optim={"epochs": 1, "learning_rate": 1e-6})
    )
    assert [event.code for event in observer.all("noted")] == ["head_kept"]
    accuracies = [manifest.read(out)["metrics"]["test"]["accuracy"] for out in (first, second)]
    assert accuracies[0] == accuracies[1] > 0.9


@pytest.mark.parametrize(
    ("chosen", "codes"), [({}, ["declared_pooling_unused"]), ({"pooling": "cls"}, [])]
)
def test_declared_mean_that_a_family_cannot_have_is_a_warning(
    spec: Make, train: Train, tmp_path: Path, chosen: dict[str, str], codes: list[str]
) -> None:
    base = make_base(tmp_path / "mpnet", "mpnet")
    (base / POOLING_FILE).parent.mkdir()
    (base / POOLING_FILE).write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    observer, out = train(spec(base=str(base), optim={"epochs": 1}, **chosen))
    assert manifest.read(out)["spec"]["pooling"] == "cls"
    noted = observer.all("noted")
    assert [event.code for event in noted] == codes
    assert all(event.level == "warning" and "mpnet" in event.message for event in noted)


def test_stop_request_is_checked_between_steps(spec: Make, train: Train) -> None:
    with pytest.raises(StopRequested):
        train(spec(), stop_at=5)


def test_stop_request_interrupts_the_fit_of_the_linear_model(
    spec: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = StopDuringFit()
    monkeypatch.setattr(linear_baseline, "fit_linear_model", stop.fit)
    with pytest.raises(StopRequested):
        train_encoder(spec(), out_dir=tmp_path / "out", observer=stop, stop=stop)
    stop.left.set()
    last = stop.all("tick")[-1]
    assert (last.phase, last.step) == ("linear_model", stop.all("step")[-1].step)


def test_nonfinite_loss_stops_before_the_update(spec: Make, train: Train) -> None:
    with pytest.raises(NonFiniteLoss, match="the update was not applied"):
        train(spec(optim={"learning_rate": 1e9, "max_grad_norm": 1e6, "warmup": 0}))


def test_full_disk_has_its_own_cause(spec: Make, tmp_path: Path) -> None:
    out = tmp_path / "full"
    out.mkdir()
    os.symlink("/dev/full", out / "golden.json")  # every write to it fails with ENOSPC
    described, observer = spec(optim={"epochs": 1}), RecordingObserver()
    with pytest.raises(DiskFull):
        train_encoder(described, out_dir=out, observer=observer, stop=observer)
    assert not (out / "manifest.json").exists()


@pytest.mark.parametrize("family", slow_but(FAMILIES, "roberta", "modernbert"))
def test_tokenizer_without_special_tokens_is_refused(
    spec: Make, train: Train, tmp_path: Path, family: str
) -> None:
    base = make_base(tmp_path / family, family)
    path = base / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "post_processor": None}))
    with pytest.raises(SpecialTokensNotAdded, match=f"{family}.*post-processor"):
        train(spec(base=str(base), method={"type": "probe"}))


def test_max_length_above_the_positions_is_refused(spec: Make, train: Train) -> None:
    with pytest.raises(MaxLengthTooLarge, match="64 positions"):
        train(spec(data={"max_length": 65}))


def test_unavailable_device_is_refused(spec: Make, train: Train) -> None:
    with pytest.raises(DeviceUnavailable, match="cuda:7"):
        train(spec(runtime={"device": "cuda:7"}))


@pytest.mark.parametrize("has_it", [_has_fast_bf16("cpu")])
def test_bf16_is_used_if_supported_and_refused_otherwise(
    spec: Make, train: Train, has_it: bool
) -> None:
    if has_it:
        observer, _ = train(spec(optim={"epochs": 1}, runtime={"precision": "bf16"}))
        assert observer.all("started")[0].precision == "bf16"
    else:
        with pytest.raises(PrecisionUnsupported):
            train(spec(optim={"epochs": 1}, runtime={"precision": "bf16"}))


def test_truncated_share_is_reported(spec: Make, train: Train) -> None:
    observer, out = train(spec(optim={"epochs": 1}, data={"max_length": 8}))
    assert [event.code for event in observer.all("noted")] == ["truncated"]
    assert manifest.read(out)["metrics"]["truncated_share"] > 0.5


def test_changed_file_is_detected_at_load(spec: Make, train: Train) -> None:
    _, out = train(spec(optim={"epochs": 1}))
    path = out / "base" / "config.json"
    path.write_text(path.read_text() + " ")
    with pytest.raises(ArtifactCorrupt, match=r"base/config\.json has changed"):
        Predictor.load(out)


def test_transformers_pipeline_matches_the_predictor(
    spec: Make, train: Train, tmp_path: Path
) -> None:
    """The exported model has the temperature in its last layer."""
    many = str(make_reviews(tmp_path / "many.csv", rows=1_000))
    _, out = train(spec(optim={"epochs": 1, "learning_rate": 0.0002}, data={"source": many}))
    temperature = manifest.read(out)["calibration"]["temperature"]
    assert temperature != 1
    texts = ["a good film", "a very dull plot and it was bad"]
    ours = Predictor.load(out).predict(texts)
    classify = pipeline("text-classification", model=str(plain_checkpoint(out)), top_k=None)
    for mine, theirs in zip(ours, classify(texts), strict=True):
        assert [label for label, _ in mine] == [row["label"] for row in theirs]
        scores = [row["score"] for row in theirs]
        assert [score for _, score in mine] == pytest.approx(scores, abs=1e-5)


def test_logged_learning_rate_is_the_one_used(spec: Make, train: Train) -> None:
    observer, _ = train(spec(optim={"epochs": 1, "warmup": 0.5, "learning_rate": 0.02}))
    steps = observer.all("started")[0].total_steps
    warmup = -(-steps // 2)
    rates = {event.step: event.learning_rate for event in observer.all("step")}
    assert rates[1] == pytest.approx(0.02 / warmup)
    assert rates[warmup] == pytest.approx(0.02)
    assert rates[steps] > 0


def test_a_model_of_chat_examples_knows_their_format(
    spec: Make, train: Train, tmp_path: Path
) -> None:
    source = str(make_chat_examples(tmp_path / "job.jsonl"))
    observer, out = train(spec(optim={"epochs": 1}, data={"source": source}))
    [note] = [each for each in observer.all("noted") if each.code == "prompt_format"]
    assert "'Sort the review:'" in note.message
    expected = PromptFormat(prefix="Sort the review:", suffix="###", answer_key="mood")
    assert Predictor.load(out).prompt_format == expected
