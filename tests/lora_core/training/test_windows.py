"""Runs that read long texts in windows: training, artifact, engine and explanation agree."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from lora_core import manifest
from lora_core.data.batching import epoch_batches
from lora_core.data.windows import window_overlap
from lora_core.errors.training import CheckpointMismatch, StopRequested
from lora_core.export.hugging_face import export_adapter, export_merged
from lora_core.inference.predictor import Predictor
from lora_core.model_imports.check import check_imported_model
from lora_core.progress_reporter import ProgressReporter
from lora_core.saved_predictions import check_golden_predictions
from lora_core.specs.data import Split
from lora_core.specs.train import TrainSpec
from lora_core.training.checkpoint_schedule import CheckpointSettings
from lora_core.training.encoder import train_encoder
from lora_core.training.prepare import prepare_run
from lora_core.training.resume import build_or_resume_trainer
from tests.lora_core.training.twins import product
from tests.recording_observer import RecordingObserver
from tests.slow import slow_but
from tests.tiny_base import tokenizer

Make = Callable[..., TrainSpec]

LORA = {"type": "lora", "r": 4, "targets": ["query", "value", "mlp"]}
FULL, PROBE = {"type": "full"}, {"type": "probe"}
MAX_LENGTH = 16
TEXTS = ["a good film", "the plot was dull " * 12 + "good", "bad " * 40, "not very " * 6]


@pytest.fixture
def windows(spec: Make, tmp_path: Path) -> Make:
    """The spec of a run on texts whose label may be in any window."""

    def make(**changes: Any) -> TrainSpec:
        file = tmp_path / "long.csv"
        if not file.exists():
            filler = ["the", "plot", "cast", "story", "scene", "of", "it", "and"]
            rows = ["text,label"]
            for i in range(60):
                words = [filler[(i + j) % len(filler)] for j in range(5 + i % 40)]
                label = ("bad", "good")[i % 2]
                words.insert(i * 7 % len(words), label)
                rows.append(f"{' '.join(words)} {i},{label}")
            file.write_text("\n".join(rows))
        data = {"source": str(file), "max_length": MAX_LENGTH, "long_texts": "windows"}
        return spec(data={**data, **changes.pop("data", {})}, **changes)

    return make


def train(described: TrainSpec, out: Path, **more: Any) -> None:
    observer = more.pop("observer", RecordingObserver())
    train_encoder(described, out_dir=out, observer=observer, stop=observer, **more)


def plain_logits(model: PreTrainedModel, texts: list[str]) -> torch.Tensor:
    """Return the mean logits (texts, classes) of the windows that transformers makes."""
    plain = PreTrainedTokenizerFast(tokenizer_object=tokenizer())
    rows = []
    for text in texts:
        windows = plain(
            text,
            truncation=True,
            max_length=MAX_LENGTH,
            stride=window_overlap(MAX_LENGTH),
            return_overflowing_tokens=True,
        )["input_ids"]
        logits = [model(torch.tensor([window])).logits[0] for window in windows]
        rows.append(torch.stack(logits).mean(dim=0))
    return torch.stack(rows)


@pytest.mark.parametrize("method", slow_but([LORA, FULL, PROBE], LORA), ids=str)
def test_model_of_a_run_averages_like_transformers(
    windows: Make, tmp_path: Path, method: dict[str, Any]
) -> None:
    train(windows(method=method, optim={"epochs": 1}), tmp_path / "out")
    assert manifest.reads_windows(manifest.read(tmp_path / "out"))
    predictor = Predictor.load(tmp_path / "out")
    assert check_golden_predictions(predictor, tmp_path / "out") < 1e-4
    assert check_imported_model(tmp_path / "out").difference < 1e-4
    export_merged(tmp_path / "out", tmp_path / "merged")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    items = predictor.encode(TEXTS)
    assert [len(item.windows) > 1 for item in items] == [False, True, True, False]
    with torch.no_grad():
        expected = plain_logits(model, TEXTS)
    torch.testing.assert_close(predictor.forward(items), expected, rtol=1e-4, atol=1e-5)
    if method is LORA:
        export_adapter(tmp_path / "out", tmp_path / "adapter")  # checks its golden predictions


@pytest.mark.parametrize(
    "method", [{"type": "full"}, {"type": "baseline", "blocks": 1}], ids=["full", "frozen"]
)
def test_first_update_has_the_loss_of_the_averaged_logits(
    windows: Make, method: dict[str, Any]
) -> None:
    optim = {"epochs": 1, "head_dropout": 0.0, "micro_batch_tokens": 64}
    observer = RecordingObserver()
    progress = ProgressReporter(observer, observer)
    described = windows(method=method, optim=optim, runtime={"precision": "fp32"})
    prepared = prepare_run(described, observer, progress)
    trainer = build_or_resume_trainer(
        prepared, observer=observer, progress=progress, checkpoint_settings=None, saved=None
    )
    model = AutoModelForSequenceClassification.from_config(prepared.model.config).eval()
    model.load_state_dict(prepared.model.state_dict())
    data, size = prepared.tokenized[Split.TRAIN], prepared.spec.optim.batch_size or 0
    [first, *_] = epoch_batches(data.lengths, batch_size=size, seed=3, epoch=0)
    examples = [prepared.splits.train[i] for i in first]
    logits = plain_logits(model, [example.text for example in examples])
    loss = F.cross_entropy(logits, torch.tensor([example.label for example in examples]))
    torch.autograd.backward(loss)
    trained = {name for name, p in prepared.model.named_parameters() if p.requires_grad}
    gradients = [
        parameter.grad.flatten()
        for name, parameter in model.named_parameters()
        if name in trained and parameter.grad is not None
    ]
    trainer.train()
    step = observer.all("step")[0]
    assert step.loss == pytest.approx(loss.item(), rel=1e-5)
    norm = torch.linalg.vector_norm(torch.cat(gradients)).item()
    assert step.grad_norm == pytest.approx(norm, rel=1e-4)


@pytest.mark.slow  # resumes as test_exactness.py and test_tasks.py do
def test_resumed_run_is_bitwise_equal(windows: Make, tmp_path: Path) -> None:
    described = windows(method=LORA)
    train(described, tmp_path / "whole")
    settings = CheckpointSettings(tmp_path / "checkpoints", 0.0)
    with pytest.raises(StopRequested):
        train(
            described,
            tmp_path / "stopped",
            observer=RecordingObserver(5),
            checkpoint_settings=settings,
        )
    last = max(settings.directory.iterdir(), key=lambda path: int(path.name.split("-")[1]))
    train(described, tmp_path / "resumed", checkpoint_settings=settings, resume=last)
    assert product(tmp_path / "resumed") == product(tmp_path / "whole")
    cut = windows(method=LORA, data={"long_texts": "cut"})
    with pytest.raises(CheckpointMismatch, match="long_texts"):
        train(cut, tmp_path / "other", resume=last)


def test_words_are_masked_before_the_windows_are_made(windows: Make, tmp_path: Path) -> None:
    train(windows(method=LORA, optim={"epochs": 1}), tmp_path / "out")
    predictor = Predictor.load(tmp_path / "out")
    words = predictor.tokenize_into_words(TEXTS[1])
    count = len(words.words)
    [whole] = predictor.encode([TEXTS[1]])
    assert words.keep_words([True] * count) == whole
    half = [i % 2 == 0 for i in range(count)]
    [without] = predictor.encode([" ".join(TEXTS[1].split()[::2])])
    assert words.keep_words(half) == without
