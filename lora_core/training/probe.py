"""Logistic regression on what the frozen encoder says of each text.

It is the method `probe`, and what the heads of the other methods start from. Its weights are
written into the head that the classifiers of transformers have, W₂ f(W₁ x + b₁) + b₂, so that the
model is one like any other. The first layer only scales and shifts, W₁ = (s / m) I, b₁ = c, into a
range of its activation f; m is the mean norm of x over the training texts divided by √d, d their
width. The regression is fitted on h = f(W₁ x + b₁) itself, so nothing is lost by that:

logits = W z + b,  z = (h - c) / (s √d)    W₂ = W / (s √d)    b₂ = b - c W₂ 1

The norm of z is about 1, so that C means what it does for vectors of norm 1.
"""

import math
import time
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from lora_core import distributed
from lora_core.data.tokenized_split import Part
from lora_core.defaults import HEAD_INIT_TEXTS
from lora_core.encoders.modules import head_activation, linear
from lora_core.errors.training import NonFiniteStates
from lora_core.events import Evaluated, Observer, Phase, finite
from lora_core.linear.model import NEVER
from lora_core.progress_reporter import Pulse
from lora_core.specs.data import Split
from lora_core.specs.method import ProbeSpec
from lora_core.training import evaluate
from lora_core.training.loop import Trained
from lora_core.training.prepare import Prepared
from lora_core.training.throughput import Pace

MAX_ITERATIONS = 10_000  # it converges long before


class _Range(NamedTuple):
    """Where the first layer of the head puts states whose values are about 1."""

    scale: float  # s
    shift: float  # c


# In the first range the activation is nearly a straight line: that is logistic regression, but a
# step of training there moves the logits too far. In the second one it bends a little.
_STRAIGHT = {"relu": _Range(1.0, 8.0), "tanh": _Range(0.01, 0.0)}
_TRAINABLE = {"relu": _Range(1.0, 2.0), "tanh": _Range(0.3, 0.0)}
# scikit-learn's C weighs the sum over texts, so with a few texts of each label C = 1 hardly tells
# them apart. A start has that C from so many of each on, and up to 10 below.
_TEXTS_PER_LABEL = 80


def fit(prepared: Prepared, spec: ProbeSpec, *, observer: Observer, pulse: Pulse) -> Trained:
    """Fit the head of a prepared model; its encoder stays as it is. Raises `NonFiniteStates`."""
    pulse.enter(Phase.TRAINING)
    part = prepared.parts[Split.TRAIN]
    pace = Pace(log_every=1, seconds=prepared.forward.seconds)
    line = _STRAIGHT[prepared.family.head_activation]
    _fit_head(prepared, spec, line, np.arange(len(part)), pulse)
    pace.add(0.0, 0.0, len(part), int(part.lengths.sum()))
    pulse.enter(Phase.EVALUATING, 1)
    validation, budget = prepared.parts[Split.VALIDATION], prepared.spec.optim.micro_batch_tokens
    logits = prepared.cross_validated
    if logits is None:
        logits = evaluate.logits(prepared.forward, validation, budget=budget, pulse=pulse)
    metrics = prepared.task.metrics(logits, validation.labels)
    observer.on_event(Evaluated(step=1, split=Split.VALIDATION, metrics=finite(metrics), best=True))
    return Trained(
        steps=1,
        best_step=1,
        validation_logits=logits,
        epochs_run=1.0,
        stopped_early=False,
        pace=pace,
    )


def start_head(prepared: Prepared, pulse: Pulse) -> None:
    """Start the head of a model that is to be trained from a fit on some of the training texts.

    Its time counts as one of what comes before the first step. Raises `NonFiniteStates`.
    """
    began = time.monotonic()
    pulse.enter(Phase.FEATURES)
    which = drawn(prepared.parts[Split.TRAIN].labels, HEAD_INIT_TEXTS)
    line = _TRAINABLE[prepared.family.head_activation]
    wanted = _TEXTS_PER_LABEL * prepared.model.config.num_labels
    spec = ProbeSpec(C=min(max(1.0, wanted / len(which)), 10.0))
    _fit_head(prepared, spec, line, which, pulse)
    prepared.forward.seconds += time.monotonic() - began


def drawn(labels: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Numbers of at most `most` texts, ascending: labels in balance, at least one text of each.

    The draw is the same in every run.
    """
    order = np.random.default_rng(0).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]  # label by label, each at random
    counts = np.bincount(labels)
    rank = np.arange(len(labels)) - (counts.cumsum() - counts)[labels[order]]  # within its label
    first = np.argsort(rank / counts[labels[order]], kind="stable")
    return np.sort(order[first[:most]])


@torch.no_grad()
def _fit_head(
    prepared: Prepared, spec: ProbeSpec, line: _Range, which: NDArray[np.int64], pulse: Pulse
) -> None:
    """Write the regression on these training texts into the head. Raises `NonFiniteStates`."""
    part, model = prepared.parts[Split.TRAIN], prepared.model
    x = pooled(prepared, part, which, pulse)
    size, classes, width = typical_size(x), model.config.num_labels, x.shape[1]
    solution = np.zeros((classes, width + 1), dtype=np.float32)
    if distributed.is_main():  # so that all processes have the same bits
        balanced = prepared.spec.of(spec).balanced
        z = regressors(prepared, x, size, line)
        weight, bias = regression(z, part.labels[which], spec, classes=classes, balanced=balanced)
        weight /= line.scale * math.sqrt(width)
        solution[:, :-1], solution[:, -1] = weight, bias - line.shift * weight.sum(axis=1)
    distributed.all_reduce_rows(solution)
    first, last = (linear(model, name) for name in prepared.family.head)
    first.weight.copy_(line.scale / size * torch.eye(width))
    first.bias.fill_(line.shift)
    last.weight.copy_(torch.from_numpy(solution[:, :-1]))
    last.bias.copy_(torch.from_numpy(solution[:, -1]))


def pooled(
    prepared: Prepared, part: Part, which: NDArray[np.int64], pulse: Pulse
) -> NDArray[np.float32]:
    """What the head reads of the texts with these numbers, (texts, width).

    Raises `NonFiniteStates`.
    """
    budget = prepared.spec.optim.micro_batch_tokens
    x = evaluate.pooled(prepared.forward, part, which, budget=budget, pulse=pulse)
    finite_rows = np.isfinite(x).all(axis=1)
    if not finite_rows.all():
        raise NonFiniteStates(texts=int((~finite_rows).sum()), of=len(x))
    return x


def typical_size(x: NDArray[np.float32]) -> float:
    """m: the mean norm of the rows of x divided by the root of their width; 1 if all are zero."""
    return float(np.linalg.norm(x, axis=1).mean()) / math.sqrt(x.shape[1]) or 1.0


def regressors(
    prepared: Prepared, x: NDArray[np.float32], size: float, line: _Range | None = None
) -> NDArray[np.float32]:
    """z, which the regression reads of pooled states x: (texts, width). `size` is m."""
    scale, shift = line or _STRAIGHT[prepared.family.head_activation]
    hidden = head_activation(prepared.family)(torch.from_numpy(x) * (scale / size) + shift)
    z: NDArray[np.float32] = ((hidden - shift) / (scale * math.sqrt(x.shape[1]))).numpy()
    return z


def regression(
    x: NDArray[np.float32],
    labels: NDArray[np.int64],
    spec: ProbeSpec,
    *,
    classes: int,
    balanced: bool,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weight (classes, width) and bias (classes,) of scikit-learn's logistic regression.

    With two classes it has one row, which is divided between them: softmax gives the same. A class
    without a text is practically never answered.
    """
    present = np.unique(labels)
    every = np.zeros((classes, x.shape[1])), np.full(classes, NEVER)
    if len(present) == 1:
        every[1][present] = 0.0
        return every
    class_weight = "balanced" if balanced else None
    model = LogisticRegression(C=spec.C, max_iter=MAX_ITERATIONS, class_weight=class_weight)
    with threadpool_limits(1, user_api="blas"):  # bits must not go by the number of threads
        model.fit(x, labels)
    weight, bias = model.coef_, model.intercept_
    if len(weight) == 1:
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    if len(present) == classes:
        return weight, bias
    for all_of, some in zip(every, (weight, bias), strict=True):
        all_of[present] = some
    return every
