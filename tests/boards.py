"""Sweeps as they might come out, without any training."""

import hashlib
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.jobs.results.comparison import Graded
from app.sweeps.snapshot import Board, Cell

ROLES = (["query", "value"], ["query", "key", "value", "projection", "mlp"])
# What one rank adds to a block of width 384.
ADAPTER = {2: 2 * 768, 5: 4 * 768 + 2 * 1920}
FIELDS = ("method.r", "method.alpha", "method.targets")


def graded(correct: Sequence[bool] | NDArray[np.bool_], texts: str = "texts") -> Graded:
    """Which were right, of the texts of that name."""
    sha256 = hashlib.sha256(texts.encode()).hexdigest()
    return Graded(sha256, np.packbits(np.asarray(correct, dtype=bool)).tobytes(), len(correct))


def cell(
    number: int,
    *,
    validation: Sequence[bool] | NDArray[np.bool_] | None = None,
    test: Sequence[bool] | NDArray[np.bool_] | None = None,
    settings: Mapping[str, Any] | None = None,
    figures: Mapping[str, Mapping[str, float]] | None = None,
    **more: Any,
) -> Cell:
    """A cell that ran whole; its accuracies are those of the texts that are given."""
    chosen = dict(settings or {})
    answers = {"validation": validation, "test": test}
    given = {part: each for part, each in answers.items() if each is not None}
    known = {part: {"accuracy": float(np.mean(each))} for part, each in given.items()}
    for part, values in (figures or {}).items():
        known[part] = known.get(part, {}) | dict(values)
    method = {
        field.removeprefix("method."): value
        for field, value in chosen.items()
        if field.startswith("method.")
    }
    standing: dict[str, Any] = {
        "state": "succeeded", "share": 1.0, "trainable_parameters": 1000, "seconds": 10.0,
        "spec": {"method": {"type": "lora", **method}},
        "graded": {part: graded(each, part) for part, each in given.items()},
    }  # fmt: skip
    return Cell(number=number, settings=chosen, figures=known, **standing | more)


def board(*cells: Cell, **more: Any) -> Board:
    """A grid that has ended, by accuracy, over r, alpha and targets."""
    standing: dict[str, Any] = {
        "name": "sentiment", "state": "succeeded", "strategy": "grid", "objective": "accuracy",
        "fields": FIELDS,
    }  # fmt: skip
    return Board(cells=cells, **standing | more)


def grid(*, texts: int = 2000, **more: Any) -> Board:
    """36 cells: r of 1 to 32, three values of alpha, two of targets. One failed, one waits."""
    random = np.random.default_rng(7)
    hardness = {part: random.normal(size=texts) for part in ("train", "validation", "test")}
    cells = []
    for number, (r, alpha, targets) in enumerate(
        product((1, 2, 4, 8, 16, 32), (4.0, 16.0, 64.0), ROLES), start=1
    ):
        skill = 1.25 + 0.015 * np.log2(r) - 0.06 * abs(np.log2(alpha / 16)) + 0.01 * len(targets)
        noise = {part: random.normal(scale=0.4, size=texts) for part in hardness}
        right = {part: hardness[part] + noise[part] < skill for part in hardness}
        figures = {
            part: {
                "accuracy": (share := float(each.mean())),
                "macro_f1": share - 0.002,
                "balanced_accuracy": share - 0.001,
                "loss": 1.05 - share,
            }
            for part, each in right.items()
        }
        cells.append(
            cell(
                number,
                validation=right["validation"],
                test=right["test"],
                settings=dict(zip(FIELDS, (r, alpha, targets), strict=True)),
                figures=figures,
                trainable_parameters=148_610 + 6 * r * ADAPTER[len(targets)],
                seconds=float(28 + 0.4 * r + 3 * len(targets) + random.normal()),
                job_id=f"0198c0de-0000-7000-8000-{number:012x}",
            )
        )  # fmt: skip
    lost: dict[str, Any] = {"figures": {}, "graded": {}, "seconds": None}
    cells[5] = cell(6, settings=cells[5].settings, state="failed", error="Out of memory.", **lost)
    cells[9] = cell(10, settings=cells[9].settings, state="waiting", share=0.0, **lost)
    return board(*cells, **more)
