"""The training loop: one for every method, readable from top to bottom."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lora_core.data.batching import epoch_batches
from lora_core.errors import NonFinite
from lora_core.events import Evaluated, Observer, Phase, StepLogged, finite
from lora_core.specs.data import Split
from lora_core.training import evaluate
from lora_core.training.best import Best
from lora_core.training.optim import build_optimizer, build_schedule
from lora_core.training.pace import Pace
from lora_core.training.prepare import Prepared
from lora_core.training.pulse import Pulse


@dataclass(frozen=True)
class Trained:
    """How the loop ended; the model holds the best weights."""

    steps: int
    best_step: int
    validation_logits: NDArray[np.float32]  # of the best weights
    epochs_run: float
    stopped_early: bool
    pace: Pace


class Trainer:
    """A model, what trains it, and who watches."""

    def __init__(self, prepared: Prepared, *, observer: Observer, pulse: Pulse) -> None:
        self.model, self.method, self.task = prepared.model, prepared.method, prepared.task
        self.spec, self.runtime = prepared.spec, prepared.machine
        self.forward = prepared.forward
        self.train_part = prepared.parts[Split.TRAIN]
        self.validation_part = prepared.parts[Split.VALIDATION]
        self.observer, self.pulse = observer, pulse
        optim = self.spec.optim
        self.updates_per_epoch = math.ceil(len(self.train_part) / optim.batch_size)
        self.total_steps = self.updates_per_epoch * optim.epochs
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = build_optimizer(self.model, optim)
        self.schedule = build_schedule(self.optimizer, optim, self.total_steps)
        self.best = Best(self.spec.stop)
        self.pace = Pace(log_every=max(1, self.total_steps // 100), seconds=self.forward.seconds)

    def train(self) -> Trained:
        """All epochs, or fewer when patience runs out. Raises `NonFinite`, `Stopped`."""
        self.model.train()
        self.pulse.enter(Phase.TRAINING)
        step = 0
        for epoch in range(self.spec.optim.epochs):
            for micro_batches in epoch_batches(
                self.train_part.lengths,
                batch_size=self.spec.optim.batch_size,
                budget=self.spec.optim.micro_batch_tokens,
                seed=self.spec.runtime.seed,
                epoch=epoch,
            ):
                step += 1
                loss, norm = self._update(micro_batches, step)
                self._tell(step, loss, norm, micro_batches)
                self.schedule.step()
                self.pulse.beat(step)
                if self._evaluation_due(step):
                    self._evaluate(step)
                    if self.best.exhausted() and step < self.total_steps:
                        return self._finish(step, stopped_early=True)
        return self._finish(step, stopped_early=False)

    def _update(self, micro_batches: list[list[int]], step: int) -> tuple[float, float]:
        """One optimiser step over all micro-batches: the mean loss and the gradient norm."""
        train = self.train_part
        texts = [i for batch in micro_batches for i in batch]
        weight = self.task.weight(train.labels[texts].tolist())
        self.optimizer.zero_grad(set_to_none=True)
        loss_sum = 0.0
        for indices in micro_batches:
            labels = torch.from_numpy(train.labels[indices]).to(self.runtime.device)
            loss = self.task.loss(self.forward(train, indices), labels) / weight
            self._check_finite("loss", loss.item(), step)
            torch.autograd.backward(loss)
            loss_sum += loss.item()
        limit = self.spec.optim.max_grad_norm
        norm = nn.utils.clip_grad_norm_(self.trained, limit).item()
        self._check_finite("gradient norm", norm, step)
        self.optimizer.step()
        return loss_sum, norm

    def _check_finite(self, what: str, value: float, step: int) -> None:
        if not math.isfinite(value):
            rate = self.optimizer.param_groups[0]["lr"]
            raise NonFinite(what=what, value=str(value), step=step, learning_rate=rate)

    def _tell(self, step: int, loss: float, norm: float, micro_batches: list[list[int]]) -> None:
        texts = [i for batch in micro_batches for i in batch]
        self.pace.add(loss, norm, len(texts), int(self.train_part.lengths[texts].sum()))
        if self.pace.log_due(step, self.total_steps):
            mean = self.pace.take()
            self.observer.on_event(
                StepLogged(
                    step=step,
                    epoch=step / self.updates_per_epoch,
                    loss=mean.loss,
                    grad_norm=mean.norm,
                    learning_rate=self.optimizer.param_groups[0]["lr"],
                    reviews_per_second=mean.reviews_per_second,
                    tokens_per_second=mean.tokens_per_second,
                    peak_memory_mb=self.runtime.peak_memory_mb(),
                )
            )

    def _evaluation_due(self, step: int) -> bool:
        """Evenly spaced within the epoch, the last at its end."""
        times, updates = self.spec.stop.evaluations_per_epoch, self.updates_per_epoch
        within = (step - 1) % updates + 1
        return within * times // updates > (within - 1) * times // updates

    def _evaluate(self, step: int) -> None:
        with self.pace.paused():
            self.pulse.enter(Phase.EVALUATING, step)
            part, budget = self.validation_part, self.spec.optim.micro_batch_tokens
            logits = evaluate.logits(self.forward, part, budget=budget, pulse=self.pulse)
            metrics = self.task.metrics(logits, part.labels)
            self._check_finite("validation loss", metrics["loss"], step)
            better = self.best.is_better(metrics)
            if better:
                self.best.offer(step, metrics, self.method.state(self.model), logits)
            else:
                self.best.evaluations_since += 1
            self.observer.on_event(
                Evaluated(step=step, split=Split.VALIDATION, metrics=finite(metrics), best=better)
            )
            self.pulse.enter(Phase.TRAINING, step)

    def _finish(self, step: int, *, stopped_early: bool) -> Trained:
        if self.best.logits is None:  # every run evaluates at the end of each epoch
            raise RuntimeError("the loop ended before its first evaluation")
        self.method.restore(self.model, self.best.state)
        self.model.eval()
        return Trained(
            steps=step,
            best_step=self.best.step,
            validation_logits=self.best.logits,
            epochs_run=step / self.updates_per_epoch,
            stopped_early=stopped_early,
            pace=self.pace,
        )
