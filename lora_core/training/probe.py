"""Logistic regression, or ridge regression of numbers, on the pooled states of the frozen encoder.

It is the method `probe`, and the initial head of the other methods. Its weights are written into
the head that the classifiers of transformers have, W₂ f(W₁ x + b₁) + b₂, so that the model is an
ordinary one. The first layer only scales and shifts, W₁ = (s / m) I, b₁ = c, into a range of its
activation f; m is the mean norm of x over the training texts divided by √d, with d its width. The
regression is fitted on h = f(W₁ x + b₁) itself, so this loses nothing:

logits = W z + b,  z = (h - c) / (s √d)    W₂ = W / (s √d)    b₂ = b - c W₂ 1

In ModernBERT a norm follows the activation, so the regression is on states of nearly equal norm:
h = LN(f(W₁ x)), and in place of s is the size of h, (s / 2) / √(s² / 4 + ε), with f'(0) = 1 / 2.
The norm of z is about 1, so C means what it means for vectors of norm 1.
"""

import math
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, Ridge
from threadpoolctl import threadpool_limits
from torch.nn import functional as F

from lora_core import distributed, runtime_environment
from lora_core.data.tokens import TokenizedSplit
from lora_core.encoders.encoder_parts import get_linear_submodule, head_activation
from lora_core.encoders.families import EncoderFamily
from lora_core.errors.training import NonFiniteEncoderStates
from lora_core.events import Evaluated, Observer, Phase, replace_nonfinite_with_none
from lora_core.fast import feature_cache
from lora_core.linear.model import UNSEEN_LABEL_LOGIT
from lora_core.progress_reporter import ProgressReporter
from lora_core.resolve_defaults import HEAD_INIT_MAX_TEXTS
from lora_core.specs.data import Split
from lora_core.specs.method import ProbeSpec
from lora_core.tasks.base import Task
from lora_core.tasks.multi_label import MultiLabel
from lora_core.tasks.regression import Regression
from lora_core.tasks.several_targets import SeveralTargets
from lora_core.tasks.single_label import SingleLabel
from lora_core.tasks.targets import Targets
from lora_core.training import model_outputs
from lora_core.training.loop import TrainingResult
from lora_core.training.prepare import PreparedRun
from lora_core.training.throughput import ThroughputAndLossMeter

MAX_ITERATIONS = 10_000  # it converges long before


class _Affine(NamedTuple):
    """The scale and shift of the head's first layer, for states whose values are about 1."""

    scale: float  # s
    shift: float  # c


# In the first range the activation is nearly linear: that is logistic regression, but a training
# step there moves the logits too far. In the second one it is slightly curved.
_NEAR_LINEAR = {
    "relu": _Affine(1.0, 8.0),
    "gelu": _Affine(1.0, 8.0),
    "gelu_new": _Affine(1.0, 8.0),
    "tanh": _Affine(0.01, 0.0),
    "gelu, norm": _Affine(0.02, 0.0),
    None: _Affine(1.0, 0.0),  # there is only the last layer, which also scales
}
_FOR_TRAINING = {
    "relu": _Affine(1.0, 2.0),
    "gelu": _Affine(1.0, 2.0),
    "gelu_new": _Affine(1.0, 2.0),
    "tanh": _Affine(0.3, 0.0),
    "gelu, norm": _Affine(0.3, 0.0),
    None: _Affine(1.0, 0.0),
}
# scikit-learn's C weighs the sum over texts, so with few texts per label C = 1 hardly separates
# them. An initial head has C = 1 from this number of texts per label on, and up to 10 below.
_TEXTS_PER_LABEL = 80
# Ridge regression generalizes best with alpha = 1, but its large weights turn small changes of the
# encoder into large ones of the predicted number: a model that trains from them gets worse.
_INITIAL_RIDGE_ALPHA = 10.0


def fit_probe_head(
    prepared: PreparedRun, spec: ProbeSpec, *, observer: Observer, progress: ProgressReporter
) -> TrainingResult:
    """Fit the head of a prepared model on a frozen encoder. Raises `NonFiniteEncoderStates`."""
    progress.enter_phase(Phase.TRAINING)
    data = prepared.tokenized[Split.TRAIN]
    throughput = ThroughputAndLossMeter(log_every=1, seconds=prepared.forward.setup_seconds)
    affine = _NEAR_LINEAR[_head_kind(prepared.family)]
    indices = np.arange(len(data))
    x = compute_and_check_pooled_states(prepared, data, indices, progress)
    _fit_head(prepared, spec, affine, indices, x)
    throughput.add(0.0, 0.0, len(data), int(data.lengths.sum()))
    progress.enter_phase(Phase.EVALUATING, 1)
    validation = prepared.tokenized[Split.VALIDATION]
    logits = prepared.cross_validated
    if logits is None:
        budget = prepared.spec.optim.micro_batch_tokens
        logits = model_outputs.compute_logits(
            prepared.forward, validation, budget=budget, progress=progress
        )
    metrics = replace_nonfinite_with_none(
        prepared.task.compute_logged_metrics(logits, validation.targets)
    )
    observer.on_event(Evaluated(step=1, split=Split.VALIDATION, metrics=metrics, best=True))
    return TrainingResult(
        steps=1,
        best_step=1,
        validation_logits=logits,
        epochs_run=1.0,
        stopped_early=False,
        throughput=throughput,
    )


def init_head_with_probe(prepared: PreparedRun, progress: ProgressReporter) -> None:
    """Initialize the head of a model for training, by a fit on a sample of the training texts.

    Its time is counted as setup, before the first step. Raises `NonFiniteEncoderStates`.
    """
    started = time.monotonic()
    progress.enter_phase(Phase.FEATURES)
    strata = prepared.task.strata(prepared.tokenized[Split.TRAIN].targets)
    indices = draw_stratified_indices(strata, HEAD_INIT_MAX_TEXTS)
    affine = _FOR_TRAINING[_head_kind(prepared.family)]
    wanted = _TEXTS_PER_LABEL * prepared.model.config.num_labels
    spec = ProbeSpec(C=min(max(1.0, wanted / len(indices)), 10.0))
    x = _initial_states(prepared, indices, progress)
    _fit_head(prepared, spec, affine, indices, x, ridge_alpha=_INITIAL_RIDGE_ALPHA)
    prepared.forward.setup_seconds += time.monotonic() - started


def draw_stratified_indices(labels: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """Return ascending indices of at most `limit` texts, stratified, at least one of each label.

    The draw is the same in every run.
    """
    order = np.random.default_rng(0).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]  # by label, each in random order
    counts = np.bincount(labels)
    rank = np.arange(len(labels)) - (counts.cumsum() - counts)[labels[order]]  # within its label
    first = np.argsort(rank / counts[labels[order]], kind="stable")
    return np.sort(order[first[:limit]])


@torch.no_grad()
def _fit_head(
    prepared: PreparedRun,
    spec: ProbeSpec,
    affine: _Affine,
    indices: NDArray[np.int64],
    x: NDArray[np.float32],
    *,
    ridge_alpha: float | None = None,
) -> None:
    """Write the regression on these training texts into the head. x: their pooled states."""
    data, model = prepared.tokenized[Split.TRAIN], prepared.model
    size, classes, width = mean_row_rms(x), model.config.num_labels, x.shape[1]
    solution = np.zeros((classes, width + 1), dtype=np.float32)
    if distributed.is_main_process():  # so that all processes get the same bits
        balanced = prepared.spec.with_method(spec).balanced
        z = probe_inputs(prepared, x, size, affine)
        weight, bias = fit_probe_weights(
            z,
            data.targets[indices],
            spec,
            prepared.task,
            balanced=balanced,
            ridge_alpha=ridge_alpha,
        )
        hidden = _hidden_affine(prepared, affine)
        weight /= hidden.scale * math.sqrt(width)
        solution[:, :-1], solution[:, -1] = weight, bias - hidden.shift * weight.sum(axis=1)
    distributed.all_reduce_rows(solution)
    *first, last = (get_linear_submodule(model, name) for name in prepared.family.head)
    for layer in first:
        layer.weight.copy_(affine.scale / size * torch.eye(width))
        if layer.bias is not None:
            layer.bias.fill_(affine.shift)
    if not first:
        solution[:, :-1] /= size
    if prepared.family.head_norm is not None:
        for name, parameter in model.get_submodule(prepared.family.head_norm).named_parameters():
            parameter.fill_(float(name == "weight"))
    last.weight.copy_(torch.from_numpy(solution[:, :-1]))
    last.bias.copy_(torch.from_numpy(solution[:, -1]))


def _initial_states(
    prepared: PreparedRun, indices: NDArray[np.int64], progress: ProgressReporter
) -> NDArray[np.float32]:
    """Return the pooled states of these training texts before the first step, cached on disk.

    Raises `NonFiniteEncoderStates`, `DiskFull`.
    """
    data = prepared.tokenized[Split.TRAIN]

    def compute() -> NDArray[np.float32]:
        return compute_and_check_pooled_states(prepared, data, indices, progress)

    if distributed.world_size() > 1 or prepared.forward.caches_features:
        return compute()  # by all processes, or from cached features
    budget = prepared.spec.optim.micro_batch_tokens
    facts = {
        "states": "pooled",
        "base": prepared.base_sha256,
        "encoder": prepared.family.model_type,
        "config": feature_cache.serialize_encoder_config(prepared.model),
        "pooling": str(prepared.spec.pooling),
        "method": prepared.spec.method.model_dump_json(),  # adapters change nothing yet but bits
        **runtime_environment.describe_environment(prepared.runtime, budget),
    }
    digest = feature_cache.hash_encoder((f"{name}={fact}" for name, fact in facts.items()), ())
    states = feature_cache.load_or_compute(
        feature_cache.entry_key(digest, data.select(indices)),
        np.ones_like(indices),
        prepared.model.config.hidden_size,
        lambda: enumerate(torch.from_numpy(compute())),
    )
    x: NDArray[np.float32] = torch.cat(states.get(range(len(indices)))).numpy()
    return x


def compute_and_check_pooled_states(
    prepared: PreparedRun,
    data: TokenizedSplit,
    indices: NDArray[np.int64],
    progress: ProgressReporter,
) -> NDArray[np.float32]:
    """Return x, the input of the head (texts, width), for these texts.

    Raises `NonFiniteEncoderStates`.
    """
    budget = prepared.spec.optim.micro_batch_tokens
    x = model_outputs.compute_pooled_states(
        prepared.forward, data, indices, budget=budget, progress=progress
    )
    finite_rows = np.isfinite(x).all(axis=1)
    if not finite_rows.all():
        raise NonFiniteEncoderStates(texts=int((~finite_rows).sum()), of=len(x))
    return x


def mean_row_rms(x: NDArray[np.float32]) -> float:
    """Return m: the mean norm of the rows of x divided by the root of their width; 1 if it is 0."""
    return float(np.linalg.norm(x, axis=1).mean()) / math.sqrt(x.shape[1]) or 1.0


def probe_inputs(
    prepared: PreparedRun, x: NDArray[np.float32], size: float, affine: _Affine | None = None
) -> NDArray[np.float32]:
    """Return z (texts, width), the input of the regression, for pooled states x. `size` is m."""
    family = prepared.family
    affine = affine or _NEAR_LINEAR[_head_kind(family)]
    hidden = head_activation(family)(torch.from_numpy(x) * (affine.scale / size) + affine.shift)
    if family.head_norm is not None:
        norm: Any = prepared.model.get_submodule(family.head_norm)
        hidden = F.layer_norm(hidden, norm.normalized_shape, eps=norm.eps)
    scale, shift = _hidden_affine(prepared, affine)
    z: NDArray[np.float32] = ((hidden - shift) / (scale * math.sqrt(x.shape[1]))).numpy()
    return z


def _head_kind(family: EncoderFamily) -> str | None:
    return family.head_activation if family.head_norm is None else f"{family.head_activation}, norm"


def _hidden_affine(prepared: PreparedRun, affine: _Affine) -> _Affine:
    """Return scale and shift of the hidden layer h where the values of the states are about 1."""
    if prepared.family.head_norm is None:
        return affine
    norm: Any = prepared.model.get_submodule(prepared.family.head_norm)
    slope = affine.scale / 2  # of gelu at 0
    return _Affine(slope / math.sqrt(slope**2 + norm.eps), 0.0)


def fit_probe_weights(
    x: NDArray[np.float32],
    targets: Targets,
    spec: ProbeSpec,
    task: Task,
    *,
    balanced: bool | Mapping[str, bool],
    ridge_alpha: float | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return weight (outputs, width) and bias (outputs,) of the regression for a task.

    For several labels it is one logistic regression for each, against the rest; a label that no
    text or every text has depends on nothing. For numbers it is ridge regression to standardized
    ones, by default with alpha = 1 / C, which weighs the texts as in logistic regression. Several
    targets have a regression each; `balanced` may be given by name.
    """
    if isinstance(task, SeveralTargets):
        fitted = [
            fit_probe_weights(
                x,
                task.values_of(targets, name),
                spec,
                each,
                balanced=balanced if isinstance(balanced, bool) else balanced[name],
                ridge_alpha=ridge_alpha,
            )
            for name, each in task.tasks.items()
        ]
        weights, biases = zip(*fitted, strict=True)
        return np.concatenate(weights), np.concatenate(biases)
    balanced = bool(balanced)
    match task:
        case SingleLabel():
            classes = len(task.labels)
            return fit_logistic_regression(x, targets, spec, classes=classes, balanced=balanced)
        case MultiLabel():
            weight, bias = np.zeros((len(task.labels), x.shape[1])), np.zeros(len(task.labels))
            for i, has_label in enumerate(targets.T > 0):
                if has_label.all() or not has_label.any():
                    bias[i] = -UNSEEN_LABEL_LOGIT if has_label.any() else UNSEEN_LABEL_LOGIT
                else:
                    model = _fit(_logistic_regression(spec, balanced=balanced), x, has_label)
                    weight[i], bias[i] = model.coef_[0], model.intercept_[0]
            return weight, bias
        case Regression():
            model = Ridge(alpha=ridge_alpha or 1 / spec.C)
            ridge = _fit(model, x.astype(np.float64), task.standardize(targets))
            return ridge.coef_[None], np.array([ridge.intercept_])
        case _:
            raise TypeError(f"no probe for {type(task).__name__}")


def fit_logistic_regression(
    x: NDArray[np.float32],
    labels: NDArray[np.int64],
    spec: ProbeSpec,
    *,
    classes: int,
    balanced: bool,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return weight (classes, width) and bias (classes,) of scikit-learn's logistic regression.

    With two classes scikit-learn has one row, which is split between them: softmax gives the same
    result. A class without a text is practically never predicted.
    """
    present = np.unique(labels)
    of_all_classes = np.zeros((classes, x.shape[1])), np.full(classes, UNSEEN_LABEL_LOGIT)
    if len(present) == 1:
        of_all_classes[1][present] = 0.0
        return of_all_classes
    model = _fit(_logistic_regression(spec, balanced=balanced), x, labels)
    weight, bias = model.coef_, model.intercept_
    if len(weight) == 1:
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    if len(present) == classes:
        return weight, bias
    for array, of_present in zip(of_all_classes, (weight, bias), strict=True):
        array[present] = of_present
    return of_all_classes


def _logistic_regression(spec: ProbeSpec, *, balanced: bool) -> LogisticRegression:
    class_weight = "balanced" if balanced else None
    return LogisticRegression(C=spec.C, max_iter=MAX_ITERATIONS, class_weight=class_weight)


def _fit(model: Any, x: NDArray[Any], targets: NDArray[Any]) -> Any:
    """Fit a model of scikit-learn in one thread, so that no bit depends on the number of them."""
    with threadpool_limits(1, user_api="blas"):
        return model.fit(x, targets)
