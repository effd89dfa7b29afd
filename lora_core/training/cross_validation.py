"""Cross-validation of all methods.

Each fold is a run of its own, with the spec and the seed of the whole one. Settings that the spec
leaves open (epochs, batch size, learning rate) follow from the number of texts in the fold. Fits of
linear models and probes take fractions of a second and are repeated whenever they are needed. All
others are cached on disk, so that a run which is interrupted loses at most one of them.
"""

import os
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_core import distributed
from lora_core.atomic_files import atomic_path
from lora_core.cache import FOLDER_LIMITS, cache_dir, evict_least_recently_used
from lora_core.cross_validation import LinearCrossValidator, Logits
from lora_core.data.linear_baseline import Indices
from lora_core.data.split import Example, Splits
from lora_core.events import NullObserver
from lora_core.specs.data import Split
from lora_core.specs.method import LinearSpec, ProbeSpec, SingleMethod
from lora_core.specs.train import (
    CheckpointSelectionAndStopSpec,
    HeadInit,
    SelectBy,
    TrainSpec,
)
from lora_core.training import probe, resume
from lora_core.training.loop import Trainer
from lora_core.training.prepare import PreparedRun, prepare_run

MAX_CACHE_BYTES = FOLDER_LIMITS["cross-validation"]


class AnyMethodCrossValidator(LinearCrossValidator):
    """Cross-validates methods for one run, all on the same folds of the same texts."""

    def _fit(
        self, method: SingleMethod, train: Indices, held_out: Indices
    ) -> NDArray[np.floating[Any]]:
        match method:
            case LinearSpec():
                return super()._fit(method, train, held_out)
            case ProbeSpec():
                x = self._probe_inputs
                weight, bias = probe.fit_probe_weights(
                    x[train],
                    self.targets[train],
                    method,
                    self.task,
                    balanced=self._spec.with_method(method).balanced,
                )
                return x[held_out] @ weight.T + bias
            case _:
                return self._fit_encoder(self._spec.with_method(method), train, held_out)

    @cached_property
    def _probe_inputs(self) -> NDArray[np.float32]:
        """The input (texts, width) of a probe's logistic regression, of all texts."""
        every = self._select(range(len(self._examples)))
        splits = Splits(labels=self._labels, train=every, validation=(), test=())
        prepared = prepare_run(
            self._spec.with_method(ProbeSpec()), NullObserver(), self._progress, splits
        )
        data = prepared.tokenized[Split.TRAIN]
        x = probe.compute_and_check_pooled_states(
            prepared, data, np.arange(len(data)), self._progress
        )
        return probe.probe_inputs(prepared, x, probe.mean_row_rms(x))

    def _fit_encoder(self, spec: TrainSpec, train: Indices, held_out: Indices) -> Logits:
        splits = Splits(
            labels=self._labels,
            train=self._select(train),
            validation=self._select(held_out),
            test=(),
        )
        stop = CheckpointSelectionAndStopSpec(select_by=SelectBy.LAST)
        spec = spec.model_copy(update={"stop": stop})
        prepared = prepare_run(spec, NullObserver(), self._progress, splits)
        logits = _cached_logits(prepared, lambda: self._train(prepared))
        # Each fold standardizes numbers by its own training texts.
        return self.task.restandardize_logits_from(logits, of=prepared.task).astype(
            np.float32, copy=False
        )

    def _train(self, prepared: PreparedRun) -> Logits:
        if prepared.spec.head_init is HeadInit.PROBE:
            probe.init_head_with_probe(prepared, self._progress)
        trainer = Trainer(
            prepared, observer=NullObserver(), progress=self._progress, evaluate_last_only=True
        )
        return trainer.train().validation_logits

    def _select(self, indices: Sequence[int] | Indices) -> tuple[Example, ...]:
        return tuple(self._examples[i] for i in indices)


def _cached_logits(prepared: PreparedRun, compute: Callable[[], Logits]) -> Logits:
    """Return cached logits of an identical run, or compute and cache them. Raises `DiskFull`.

    `compute` needs all processes, so they compute if one of them has not found the entry, which
    other runs add and evict at any time.
    """
    name = resume.run_digest(prepared)
    path = cache_dir() / "cross-validation" / f"{name}.npy"
    shape = (len(prepared.tokenized[Split.VALIDATION]), len(prepared.task.labels))
    logits = _read(path, shape)
    missing = distributed.all_reduce_scalar(float(logits is None)) > 0
    if logits is None or missing:
        logits = compute()
        if distributed.is_main_process():
            with atomic_path(path) as temporary:
                np.save(temporary, logits)
            evict_least_recently_used(path.parent, MAX_CACHE_BYTES)
    return logits


def _read(path: Path, shape: tuple[int, int]) -> Logits | None:
    """Read a cache entry and mark it as used; return None if it is missing or damaged."""
    try:
        logits: Logits = np.load(path, allow_pickle=False)
        os.utime(path)
    except (FileNotFoundError, EOFError, ValueError):
        return None
    return logits if logits.shape == shape and logits.dtype == np.float32 else None
