"""The trained model that all servers serve, and the reviews that are sent.

Both are made once and kept in the cache: `python -m benchmarks.serve.checkpoint` makes them.
"""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from random import Random

from benchmarks.child_process import ROOT
from benchmarks.serve.as_bert import save_as_bert
from lora_core.atomic_files import atomic_path
from lora_core.cache import cache_dir
from lora_core.data.load import load_splits
from lora_core.samples import reviews
from lora_core.specs.data import DataSpec
from lora_core.specs.method import LoraSpec
from lora_core.specs.pooling import Pooling
from lora_core.specs.train import CheckpointSelectionAndStopSpec, OptimSpec, TrainSpec

SPEC = TrainSpec(
    pooling=Pooling.CLS,  # the mean would cost the competitors a full layer, and us nothing
    method=LoraSpec(),
    data=DataSpec(
        source="imdb", train_size=2000, validation_size=200, test_size=200, max_length=512
    ),
    optim=OptimSpec(epochs=1),
    stop=CheckpointSelectionAndStopSpec(evaluations_per_epoch=1),
)


def artifact() -> Path:
    """The directory of the trained model: LoRA on 2,000 reviews."""
    final = _place("model")
    if not final.is_dir():
        with atomic_path(final) as unfinished:
            spec = unfinished.with_suffix(".json")
            spec.write_text(SPEC.model_dump_json())
            _lora_core("train", str(spec), "--out", str(unfinished))
    return final


def merged() -> Path:
    """The same as a plain transformers checkpoint."""
    final = _place("merged")
    if not final.is_dir():
        with atomic_path(final) as unfinished:
            options = ("--format", "transformers", "--out", str(unfinished))
            _lora_core("export", str(artifact()), *options)
    return final


def bert() -> Path:
    """The same encoder as a BERT, for vLLM, which has no DistilBERT.

    BERT's head has a tanh where DistilBERT's has a ReLU, so it predicts other labels.
    """
    final = _place("bert")
    if not final.is_dir():
        with atomic_path(final) as unfinished:
            save_as_bert(merged(), unfinished)
    return final


def expected_labels(model: Path) -> list[tuple[str, str]]:
    """The texts of the golden predictions, and the label that a checkpoint predicts in float32."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    golden = json.loads((artifact() / "golden.json").read_text(encoding="utf-8"))
    loaded = AutoModelForSequenceClassification.from_pretrained(model).eval()
    tokenizer = AutoTokenizer.from_pretrained(model)
    found = []
    for text in (row["text"] for row in golden):
        batch = tokenizer(
            text, truncation=True, max_length=SPEC.data.max_length, return_tensors="pt"
        )
        with torch.no_grad():
            best = int(loaded(**batch).logits.argmax())
        found.append((text, loaded.config.id2label[best]))
    return found


def _lora_core(*arguments: str) -> None:
    """Run a command of the library."""
    command = [sys.executable, "-m", "lora_core", *arguments]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def texts() -> Path:
    """Reviews of natural length that it was not trained on, in a random order, a JSON text a line.

    There are enough that no server gets the same text twice.
    """
    final = _place("reviews")
    if not final.is_file():
        trained = {example.text for example in load_splits(SPEC.data).train}
        others = [text for text, _ in reviews.load_reviews("imdb") if text not in trained]
        Random(SPEC.data.split_seed).shuffle(others)  # noqa: S311
        with atomic_path(final) as unfinished:
            unfinished.write_text("".join(json.dumps(text) + "\n" for text in others))
    return final


def read_texts(count: int) -> list[str]:
    """The first of them."""
    with texts().open(encoding="utf-8") as file:
        return [json.loads(line) for _, line in zip(range(count), file, strict=False)]


def _place(name: str) -> Path:
    digest = hashlib.sha256(SPEC.model_dump_json().encode()).hexdigest()
    return cache_dir() / "bench-serve" / f"{name}-{digest[:12]}"


if __name__ == "__main__":
    print(json.dumps({"model": str(artifact()), "reviews": str(texts())}))
