"""A run of this project, as its command takes it: a description in JSON, a file for each part."""

import csv
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.quiet import NoEnd
from benchmarks.small.plan import MAX_LENGTH, Spec
from benchmarks.small.sets import Texts
from lora_core import fit
from lora_core.data.rows import Row
from lora_core.defaults import settled
from lora_core.encoders.load import locate
from lora_core.events import Silence
from lora_core.specs.data import Split
from lora_core.specs.train import TrainSpec
from lora_core.training import version
from lora_core.training.run import run


def answers(spec: Spec, texts: Texts, train: Sequence[Row], seed: int) -> list[str]:
    """The label of each test text. What a run holds out it takes from the training part."""
    with tempfile.TemporaryDirectory(prefix="bench-small-") as folder:
        source = {
            Split.TRAIN: _written(Path(folder, "train.csv"), train),
            Split.TEST: _written(Path(folder, "test.csv"), texts.test),
        }
        out = Path(folder, "out")
        summary = run(_described(spec, source, seed), out_dir=out, observer=Silence(), stop=NoEnd())
        lines = Path(out, "predictions", "test.jsonl").read_text(encoding="utf-8").splitlines()
    return [summary["labels"][json.loads(line)["predicted"]] for line in lines]


def settings(spec: Spec) -> dict[str, Any]:
    """The description of a run but for texts and seed, today's defaults filled in."""
    described = _described(spec, {Split.TRAIN: "train.csv", Split.TEST: "test.csv"}, seed=0)
    shape = fit.read_shape(locate(described.base).config, base=described.base)
    filled = settled(described, shape)[0].model_dump_json(exclude={"runtime", "result", "trial"})
    return {"version": version.TRAINING_VERSION, **json.loads(filled)}


def _described(spec: Spec, source: dict[Split, str], seed: int) -> TrainSpec:
    data = {"source": source, "max_length": MAX_LENGTH}
    return TrainSpec.model_validate({**spec, "data": data, "runtime": {"seed": seed}})


def _written(path: Path, rows: Sequence[Row]) -> str:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("text", "label"), *((row.text, row.label) for row in rows)])
    return str(path)
