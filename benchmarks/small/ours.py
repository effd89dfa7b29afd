"""A run of this project: a JSON spec and a file for each split."""

import csv
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import benchmarks.settings
from benchmarks.silent import NeverStop
from benchmarks.small.plan import MAX_LENGTH, Spec
from benchmarks.small.sets import Texts
from lora_core import compatibility, model_selection
from lora_core.data.rows import TextRow
from lora_core.encoders.load import resolve_base
from lora_core.events import NullObserver
from lora_core.resolve_defaults import resolve_defaults
from lora_core.specs.data import Split
from lora_core.specs.method import AutoSpec, LinearSpec
from lora_core.specs.train import TrainSpec
from lora_core.training import auto
from lora_core.training.encoder import train_encoder


def answers(spec: Spec, texts: Texts, train: Sequence[TextRow], seed: int) -> list[str]:
    """The predicted label of each test text. Validation texts are taken from the training split."""
    with tempfile.TemporaryDirectory(prefix="bench-small-") as folder:
        source = {
            Split.TRAIN: _written(Path(folder, "train.csv"), train),
            Split.TEST: _written(Path(folder, "test.csv"), texts.test),
        }
        out = Path(folder, "out")
        described = _described(spec, source, seed)
        go = auto.train_auto if isinstance(described.method, AutoSpec) else train_encoder
        summary = go(described, out_dir=out, observer=NullObserver(), stop=NeverStop())
        lines = Path(out, "predictions", "test.jsonl").read_text(encoding="utf-8").splitlines()
    return [summary["labels"][json.loads(line)["predicted"]] for line in lines]


def settings(spec: Spec, size: int) -> dict[str, Any]:
    """The settings of a run of this many texts without seed, with today's defaults filled in."""
    described = _described(spec, {Split.TRAIN: "train.csv", Split.TEST: "test.csv"}, seed=0)
    shape = compatibility.read_encoder_shape(
        resolve_base(described.encoder_base).config, base=described.encoder_base
    )
    methods = [described.method]
    if isinstance(described.method, AutoSpec):
        methods = [
            *model_selection.PROBE_CANDIDATES,
            *model_selection.LINEAR_CANDIDATES,
            model_selection.LORA_CANDIDATE,
        ]
    filled = [
        resolve_defaults(described.with_method(each), shape)[0]
        if not isinstance(each, LinearSpec)
        else described.with_method(each)
        for each in methods
    ]
    described_methods = [
        each.model_dump(mode="json", exclude={"runtime", "result", "trial"}) for each in filled
    ]
    for description in described_methods:
        # As the kept cells have it: both were renamed since, and train the same to the last digit.
        description["spec_version"] = 1
        description["task"]["type"] = "sequence_classification"
    # Where some folds are repeated, the candidates were compared on fewer texts before.
    repeats_some = isinstance(described.method, AutoSpec) and 500 < size <= 1000
    return {
        **({"compared_on": "the texts of any repeat"} if repeats_some else {}),
        "version": benchmarks.settings.CLASSIFICATION_VERSION,
        "methods": described_methods,
        "selection": [
            model_selection.LORA_MIN_TEXTS,
            model_selection.MIN_HELD_OUT_TEXTS,
            model_selection.REPEATS_UP_TO,
            model_selection.NOISE_STANDARD_ERRORS,
        ],
    }


def _described(spec: Spec, source: dict[Split, str], seed: int) -> TrainSpec:
    data = {"source": source, "max_length": MAX_LENGTH}
    given = {**spec, "data": data, "runtime": {"seed": seed}, "result": {"model": False}}
    return TrainSpec.model_validate(given)


def _written(path: Path, rows: Sequence[TextRow]) -> str:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("text", "label"), *((row.text, row.label) for row in rows)])
    return str(path)
