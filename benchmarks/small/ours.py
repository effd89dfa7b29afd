"""A run of this project: a JSON spec and a file for each split."""

import csv
import json
import math
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import benchmarks.settings
from benchmarks.silent import NeverStop
from benchmarks.small.plan import MAX_LENGTH, Spec
from benchmarks.small.sets import Facts, Texts
from lora_core import compatibility, model_selection
from lora_core.compatibility import EncoderShape
from lora_core.cost_model import DEFAULT_FLOPS_PER_SECOND, CostModel, estimate_mean_tokens
from lora_core.data.rows import TextRow
from lora_core.encoders.load import resolve_base
from lora_core.events import NullObserver
from lora_core.resolve_defaults import resolve_defaults
from lora_core.specs.data import Split
from lora_core.specs.method import AutoSpec, CandidateSpec, LinearSpec
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
        described = _with_candidates(_described(spec, source, seed), len(train), texts.facts)
        go = auto.train_auto if isinstance(described.method, AutoSpec) else train_encoder
        summary = go(described, out_dir=out, observer=NullObserver(), stop=NeverStop())
        lines = Path(out, "predictions", "test.jsonl").read_text(encoding="utf-8").splitlines()
    return [summary["labels"][json.loads(line)["predicted"]] for line in lines]


def settings(spec: Spec, size: int, facts: Facts) -> dict[str, Any]:
    """The settings of a run of this many texts without seed, with today's defaults filled in."""
    source = {Split.TRAIN: "train.csv", Split.TEST: "test.csv"}
    described = _with_candidates(_described(spec, source, seed=0), size, facts)
    methods = [described.method]
    planned: Sequence[CandidateSpec] = ()
    if isinstance(described.method, AutoSpec):
        methods = [
            *model_selection.PROBE_CANDIDATES,
            *model_selection.LINEAR_CANDIDATES,
            model_selection.LORA_CANDIDATE,
        ]
        planned = described.method.candidates or ()
    filled = [
        resolve_defaults(described.with_method(each), _shape(described.encoder_base))[0]
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
    plan = [[each.method.type, each.folds, each.repeats] for each in planned]
    return {
        **({"compared_on": "the texts of any repeat"} if repeats_some else {}),
        # The first cells do not say their plan. All of them had this one.
        **({"plan": plan} if plan and plan != _first_plan(size) else {}),
        "version": benchmarks.settings.CLASSIFICATION_VERSION,
        "methods": described_methods,
        "selection": [
            model_selection.CHEAPEST_FIRST_MIN_TEXTS,
            model_selection.MIN_HELD_OUT_TEXTS,
            model_selection.REPEATS_UP_TO,
            model_selection.NOISE_STANDARD_ERRORS,
        ],
    }


def _with_candidates(spec: TrainSpec, size: int, facts: Facts) -> TrainSpec:
    """The spec with what `auto` plans for texts of this length, the same for each draw.

    It is planned for two cores, as without measurements of a machine: what is compared must not
    depend on the device.
    """
    if not isinstance(spec.method, AutoSpec):
        return spec
    costs = CostModel(
        shape=_shape(spec.encoder_base),
        optim=spec.optim,
        mean_tokens=estimate_mean_tokens(facts.characters, MAX_LENGTH),
        flops_per_second=DEFAULT_FLOPS_PER_SECOND["cpu"],
        labels=facts.labels,
    )
    candidates = model_selection.plan_candidates(size, spec.method.time_budget, costs.seconds)
    method = spec.method.model_copy(update={"candidates": candidates})
    return spec.model_copy(update={"method": method})


def _first_plan(size: int) -> list[list[Any]]:
    """Folds and repeats of all candidates, where the time is not limited."""
    folds = min(5, math.ceil(2500 / size))
    repeats = 5 if size <= 300 else 2 if size <= 1000 else 1
    quick = [[name, folds, repeats] for name in ("probe", "probe", "probe", "linear", "linear")]
    return [*quick, ["lora", folds, 1]]


@cache
def _shape(base: str) -> EncoderShape:
    return compatibility.read_encoder_shape(resolve_base(base).config, base=base)


def _described(spec: Spec, source: dict[Split, str], seed: int) -> TrainSpec:
    data = {"source": source, "max_length": MAX_LENGTH}
    given = {**spec, "data": data, "runtime": {"seed": seed}, "result": {"model": False}}
    return TrainSpec.model_validate(given)


def _written(path: Path, rows: Sequence[TextRow]) -> str:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("text", "label"), *((row.text, row.label) for row in rows)])
    return str(path)
