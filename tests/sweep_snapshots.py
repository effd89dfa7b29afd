"""Snapshots of sweeps with made-up results, without any training."""

import hashlib
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.jobs.results.comparison import SplitCorrectness
from app.sweeps.snapshot import SweepSnapshot, TrialSnapshot

ROLES = (["query", "value"], ["query", "key", "value", "projection", "mlp"])
# Parameters of rank 1 in one block of width 384, by the number of adapted roles.
PARAMETERS_PER_RANK = {2: 2 * 768, 5: 4 * 768 + 2 * 1920}
FIELDS = ("method.r", "method.alpha", "method.targets")


def make_correctness(
    correct: Sequence[bool] | NDArray[np.bool_], texts: str = "texts"
) -> SplitCorrectness:
    """Pack which texts were classified correctly; equal `texts` mean the same texts."""
    sha256 = hashlib.sha256(texts.encode()).hexdigest()
    return SplitCorrectness(
        sha256, np.packbits(np.asarray(correct, dtype=bool)).tobytes(), len(correct)
    )


def make_trial(
    number: int,
    *,
    validation: Sequence[bool] | NDArray[np.bool_] | None = None,
    test: Sequence[bool] | NDArray[np.bool_] | None = None,
    settings: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Mapping[str, float]] | None = None,
    **fields: Any,
) -> TrialSnapshot:
    """A complete trial; its accuracies are those of the given texts."""
    settings = dict(settings or {})
    by_split = {"validation": validation, "test": test}
    correct = {split: each for split, each in by_split.items() if each is not None}
    all_metrics = {split: {"accuracy": float(np.mean(each))} for split, each in correct.items()}
    for split, values in (metrics or {}).items():
        all_metrics[split] = all_metrics.get(split, {}) | dict(values)
    method = {
        field.removeprefix("method."): value
        for field, value in settings.items()
        if field.startswith("method.")
    }
    defaults: dict[str, Any] = {
        "state": "succeeded", "budget": 1.0, "trainable_parameters": 1000, "seconds": 10.0,
        "spec": {"method": {"type": "lora", **method}},
        "correctness": {split: make_correctness(each, split) for split, each in correct.items()},
    }  # fmt: skip
    return TrialSnapshot(number=number, settings=settings, metrics=all_metrics, **defaults | fields)


def make_snapshot(*trials: TrialSnapshot, **fields: Any) -> SweepSnapshot:
    """A finished grid search over r, alpha and targets, ranked by accuracy."""
    defaults: dict[str, Any] = {
        "name": "sentiment", "state": "succeeded", "strategy": "grid", "objective": "accuracy",
        "fields": FIELDS,
    }  # fmt: skip
    return SweepSnapshot(trials=trials, **defaults | fields)


def grid_snapshot(*, texts: int = 2000, **fields: Any) -> SweepSnapshot:
    """36 trials: r of 1 to 32, three values of alpha, two of targets. One failed, one waits."""
    random = np.random.default_rng(7)
    hardness = {split: random.normal(size=texts) for split in ("train", "validation", "test")}
    trials = []
    for number, (r, alpha, targets) in enumerate(
        product((1, 2, 4, 8, 16, 32), (4.0, 16.0, 64.0), ROLES), start=1
    ):
        skill = 1.25 + 0.015 * np.log2(r) - 0.06 * abs(np.log2(alpha / 16)) + 0.01 * len(targets)
        noise = {split: random.normal(scale=0.4, size=texts) for split in hardness}
        correct = {split: hardness[split] + noise[split] < skill for split in hardness}
        metrics = {
            split: {
                "accuracy": (accuracy := float(each.mean())),
                "macro_f1": accuracy - 0.002,
                "balanced_accuracy": accuracy - 0.001,
                "loss": 1.05 - accuracy,
            }
            for split, each in correct.items()
        }
        trials.append(
            make_trial(
                number,
                validation=correct["validation"],
                test=correct["test"],
                settings=dict(zip(FIELDS, (r, alpha, targets), strict=True)),
                metrics=metrics,
                trainable_parameters=148_610 + 6 * r * PARAMETERS_PER_RANK[len(targets)],
                seconds=float(28 + 0.4 * r + 3 * len(targets) + random.normal()),
                job_id=f"0198c0de-0000-7000-8000-{number:012x}",
            )
        )
    no_results: dict[str, Any] = {"metrics": {}, "correctness": {}, "seconds": None}
    failed, waiting = trials[5].settings, trials[9].settings
    trials[5] = make_trial(6, settings=failed, state="failed", error="Out of memory.", **no_results)
    trials[9] = make_trial(10, settings=waiting, state="waiting", budget=0.0, **no_results)
    return make_snapshot(*trials, **fields)
