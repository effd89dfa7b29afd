"""The method `probe`: logistic regression on what the frozen encoder says of each text.

Its weights are written into the head that the classifiers of transformers have, W₂ f(W₁ x + b₁) +
b₂, so that the model is one like any other. The first layer only scales and shifts, W₁ = s I,
b₁ = c, into a range in which its activation f is nearly a straight line. The regression is fitted
on h = f(s x + c) itself, so nothing is lost by that:

logits = W z + b,  z = (h - c) / (s m)    W₂ = W / (s m)    b₂ = b - c W₂ 1

m is the mean norm of x over the training texts, so that C means what it does for vectors of
norm 1.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from lora_core.data.batching import by_length
from lora_core.encoders.modules import head_activation, linear
from lora_core.errors.training import NonFiniteStates
from lora_core.events import Evaluated, Observer, Phase, finite
from lora_core.linear.model import NEVER
from lora_core.specs.data import Split
from lora_core.specs.method import ProbeSpec
from lora_core.training import evaluate
from lora_core.training.loop import Trained
from lora_core.training.pace import Pace
from lora_core.training.part import Part
from lora_core.training.prepare import Prepared
from lora_core.training.pulse import Pulse

MAX_ITERATIONS = 10_000  # it converges long before


class _Line(NamedTuple):
    """Where an activation is nearly straight."""

    scale: float
    shift: float


_LINES = {"relu": _Line(1.0, 8.0), "tanh": _Line(0.01, 0.0)}


def fit(prepared: Prepared, spec: ProbeSpec, *, observer: Observer, pulse: Pulse) -> Trained:
    """Fit the head of a prepared model; its encoder stays as it is. Raises `NonFiniteStates`."""
    pulse.enter(Phase.TRAINING)
    part = prepared.parts[Split.TRAIN]
    pace = Pace(log_every=1, seconds=prepared.forward.seconds)
    prepared.model.eval()
    fit_head(prepared, spec)
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


@torch.no_grad()
def fit_head(prepared: Prepared, spec: ProbeSpec) -> None:
    """Write the regression on the training texts into the head. Raises `NonFiniteStates`."""
    part, family = prepared.parts[Split.TRAIN], prepared.family
    first, last = (linear(prepared.model, name) for name in family.head)
    line = _LINES[family.head_activation]
    first.weight.copy_(line.scale * torch.eye(first.in_features))
    first.bias.fill_(line.shift)
    x = pooled(prepared, part)
    norm = mean_norm(x)
    classes = len(prepared.splits.labels)
    z = what_head_reads(prepared, x) / norm
    weight, bias = regression(
        z, part.labels, spec, classes=classes, balanced=prepared.spec.balanced
    )
    weight /= line.scale * norm
    last.weight.copy_(torch.from_numpy(weight))
    last.bias.copy_(torch.from_numpy(bias - line.shift * weight.sum(axis=1)))


def pooled(prepared: Prepared, part: Part) -> Tensor:
    """What the head reads of each text (texts, width), in float32. Raises `NonFiniteStates`."""
    x = torch.zeros(len(part), prepared.model.config.hidden_size)
    for indices in by_length(part.lengths, prepared.spec.optim.micro_batch_tokens):
        x[indices] = prepared.forward.pooled(part, indices).float().cpu()
    if not torch.isfinite(x).all():
        raise NonFiniteStates(texts=int((~torch.isfinite(x)).any(dim=1).sum()), of=len(x))
    return x


def what_head_reads(prepared: Prepared, x: Tensor) -> NDArray[np.float32]:
    """(f(s x + c) - c) / s, which is x but for the curve of f: (texts, width)."""
    line = _LINES[prepared.family.head_activation]
    activation = head_activation(prepared.family)
    z: NDArray[np.float32] = (
        (activation(line.scale * x + line.shift) - line.shift) / line.scale
    ).numpy()
    return z


def mean_norm(x: Tensor) -> float:
    """Of vectors (texts, width); 1 if all are zero."""
    return float(x.norm(dim=1).mean()) or 1.0


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
    model.fit(x, labels)
    weight, bias = model.coef_, model.intercept_
    if len(weight) == 1:
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    if len(present) == classes:
        return weight, bias
    for all_of, some in zip(every, (weight, bias), strict=True):
        all_of[present] = some
    return every
