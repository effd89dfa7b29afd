"""Cross-validation of all methods.

A fit on folds is a run of its own, with the settings and the seed of the whole one. Those of a
linear model and of a probe take fractions of a second and are made anew whenever they are needed;
all others are kept on the disk, so that a run which is interrupted loses one of them at most.
"""

import os
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_core import cross_validation, distributed
from lora_core.atomic_files import new_entry
from lora_core.cache import cache_dir, keep_below
from lora_core.cross_validation import Logits, Places
from lora_core.data.records import Example, Splits
from lora_core.events import Silence
from lora_core.specs.data import Split
from lora_core.specs.method import LinearSpec, OneMethod, ProbeSpec
from lora_core.specs.train import SelectBy, StopSpec, TrainSpec
from lora_core.training import probe, run_identity
from lora_core.training.prepare import Prepared, prepare
from lora_core.training.resume import build_trainer

LIMIT = 2**26  # bytes of all answers that are kept


class CrossValidation(cross_validation.CrossValidation):
    """Of methods for one run, on the same folds of the same texts."""

    def _fit(
        self, method: OneMethod, learned: Places, held_out: Places
    ) -> NDArray[np.floating[Any]]:
        match method:
            case LinearSpec():
                return super()._fit(method, learned, held_out)
            case ProbeSpec():
                x = self._states
                weight, bias = probe.regression(
                    x[learned],
                    self.truth[learned],
                    method,
                    classes=len(self._labels),
                    balanced=self._spec.of(method).balanced,
                )
                return x[held_out] @ weight.T + bias
            case _:
                return self._trained(self._spec.of(method), learned, held_out)

    @cached_property
    def _states(self) -> NDArray[np.float32]:
        """What the head of a probe reads of each text, (texts, width)."""
        every = self._of(range(len(self._examples)))
        splits = Splits(labels=self._labels, train=every, validation=(), test=())
        found = prepare(self._spec.of(ProbeSpec()), Silence(), self._pulse, splits)
        part = found.parts[Split.TRAIN]
        x = probe.pooled(found, part, np.arange(len(part)), self._pulse)
        return probe.regressors(found, x, probe.typical_size(x))

    def _trained(self, spec: TrainSpec, learned: Places, held_out: Places) -> Logits:
        splits = Splits(
            labels=self._labels,
            train=self._of(learned),
            validation=self._of(held_out),
            test=(),
        )
        stop = StopSpec(select_by=SelectBy.LAST, evaluations_per_epoch=1)
        found = prepare(spec.model_copy(update={"stop": stop}), Silence(), self._pulse, splits)
        return _kept(found, lambda: self._train(found))

    def _train(self, prepared: Prepared) -> Logits:
        trainer = build_trainer(
            prepared, observer=Silence(), pulse=self._pulse, plan=None, saved=None
        )
        return trainer.train().validation_logits

    def _of(self, places: Sequence[int] | Places) -> tuple[Example, ...]:
        return tuple(self._examples[i] for i in places)


def _kept(prepared: Prepared, compute: Callable[[], Logits]) -> Logits:
    """What was computed for the same run before, else now. Raises `DiskFull`."""
    name = run_identity.digest(run_identity.of(prepared))
    path = cache_dir() / "cross-validation" / f"{name}.npy"
    shape = (len(prepared.parts[Split.VALIDATION]), len(prepared.splits.labels))
    found = _read(path, shape)
    if found is None:
        found = compute()
        if distributed.is_main():
            with new_entry(path) as unfinished:
                np.save(unfinished, found)
            keep_below(path.parent, LIMIT)
    return found


def _read(path: Path, shape: tuple[int, int]) -> Logits | None:
    """An entry, its time of use renewed; None if it is not there or damaged."""
    try:
        found: Logits = np.load(path, allow_pickle=False)
        os.utime(path)
    except (FileNotFoundError, EOFError, ValueError):
        return None
    return found if found.shape == shape and found.dtype == np.float32 else None
