"""The training loop: one for every method, readable from top to bottom."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lora_core import distributed
from lora_core.data.batching import epoch_updates, micro_batches
from lora_core.defaults import schedule
from lora_core.errors.training import NonFinite, Stopped
from lora_core.events import Evaluated, Observer, Phase, StepLogged, finite
from lora_core.failpoints import reach
from lora_core.methods.base import saved_parameters
from lora_core.progress_reporter import Pulse
from lora_core.specs.data import Split
from lora_core.training import eval_subset, evaluate, rng
from lora_core.training.best_checkpoint import Best
from lora_core.training.checkpoint_schedule import Saves
from lora_core.training.optim import build_optimizer, build_schedule
from lora_core.training.prepare import Prepared
from lora_core.training.throughput import Pace
from lora_core.training.training_state import Progress, own_parameters


@dataclass(frozen=True)
class Trained:
    """How the loop ended; the model holds the best weights, after a trial the last ones."""

    steps: int
    best_step: int
    validation_logits: NDArray[np.float32]  # of the best weights; of a trial, of the last ones
    epochs_run: float
    stopped_early: bool
    pace: Pace


class Trainer:
    """A model, what trains it, and who watches. All that changes on the way is in `progress`."""

    def __init__(
        self,
        prepared: Prepared,
        *,
        observer: Observer,
        pulse: Pulse,
        saves: Saves[Progress] | None = None,
    ) -> None:
        self.model, self.method, self.task = prepared.model, prepared.method, prepared.task
        self.spec, self.runtime = prepared.spec, prepared.runtime
        self.forward = prepared.forward
        self.cross_validated = prepared.cross_validated
        self.train_part = prepared.parts[Split.TRAIN]
        self.validation_part = prepared.parts[Split.VALIDATION]
        self.observer, self.pulse, self.saves = observer, pulse, saves
        optim = self.spec.optim
        self.epochs, self.batch_size = schedule(optim, len(self.train_part))
        self.updates_per_epoch = math.ceil(len(self.train_part) / self.batch_size)
        self.total_steps = self.updates_per_epoch * self.epochs
        trial = self.spec.trial
        share = 1.0 if trial is None else trial.share
        self.last_step = max(1, round(self.total_steps * share))
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = build_optimizer(
            self.model, optim, prepared.learning_rate, prepared.family.head
        )
        self.schedule = build_schedule(self.optimizer, optim, self.total_steps)
        self.best = Best(self.spec.stop)
        self.pace = Pace(log_every=max(1, self.total_steps // 100), seconds=self.forward.seconds)
        self.progress = Progress(
            parameters=own_parameters(self.model, prepared.family),
            saved=saved_parameters(self.model).keys(),
            optimizer=self.optimizer,
            schedule=self.schedule,
            best=self.best,
            pace=self.pace,
            device=self.runtime.device,
            answers=(len(self.validation_part), len(prepared.splits.labels)),
        )

    def train(self) -> Trained:
        """From where `progress` stands to the end, of the run or its trial, or until patience runs
        out.

        Raises `NonFinite`, `DiskFull`, and after a last checkpoint `Stopped`.
        """
        self.model.train()
        try:
            self.pulse.enter(Phase.TRAINING, self.progress.step)
            self._between_updates()
            for texts in self._updates_left():
                if self.best.exhausted() or self.progress.step >= self.last_step:
                    break
                self._update(texts)
                self._between_updates()
        except Stopped:
            self._save()
            raise
        self._save()  # so that nothing of the training is lost to what comes after it
        return self._finish()

    def _updates_left(self) -> Iterator[list[int]]:
        """The texts of each update. An epoch's order is drawn anew, not played again."""
        made = self.progress.step
        for epoch in range(made // self.updates_per_epoch, self.epochs):
            updates = epoch_updates(
                self.train_part.lengths,
                batch_size=self.batch_size,
                seed=self.spec.runtime.seed,
                epoch=epoch,
            )
            yield from islice(updates, max(0, made - epoch * self.updates_per_epoch), None)

    def _between_updates(self) -> None:
        """The only place where a run is saved or told to stop: all of it is at one step here."""
        self.pulse.beat(self.progress.step)
        if self.saves is not None and self.saves.due():
            self._save()
        if self.progress.evaluation_owed:
            self._evaluate()

    def _update(self, texts: list[int]) -> None:
        """One optimiser step. Raises `NonFinite` instead, after the curve has shown it."""
        step = self.progress.step + 1
        rng.begin_update(self.spec.runtime.seed, distributed.rank(), step)
        loss, norm = self._gradients(texts)
        self._tell(step, loss, norm, texts)
        self._check_finite("loss", loss, step)
        self._check_finite("gradient norm", norm, step)
        self.optimizer.step()
        self.schedule.step()
        self.progress.step = step
        self.progress.evaluation_owed = self._evaluation_due(step)
        reach("step")  # a test may let a run fail here, see `faults.py`

    def _gradients(self, texts: list[int]) -> tuple[float, float]:
        """Mean loss and gradient norm of an update; the norm is NaN if the loss is not finite.

        L = Σ wᵢ ℓᵢ / Σ wᵢ over the whole update, wᵢ the weight of the class. The divisor is known
        before anything is computed, so L is a plain sum over texts: micro-batches and processes
        take a part of it each, and their gradients add up to exactly that of L.
        """
        train, budget = self.train_part, self.spec.optim.micro_batch_tokens
        normaliser = self.task.weight(train.labels[texts].tolist())  # Σ wᵢ
        self.optimizer.zero_grad(set_to_none=True)
        loss_sum = 0.0
        for indices in micro_batches(train.lengths, distributed.shard(texts), budget):
            labels = torch.from_numpy(train.labels[indices]).to(self.runtime.device)
            loss = self.task.loss(self.forward(train, indices), labels) / normaliser
            loss_sum += loss.item()
            if not math.isfinite(loss_sum):
                break
            torch.autograd.backward(loss)
        loss_sum = distributed.all_reduce(loss_sum)
        if not math.isfinite(loss_sum):
            return loss_sum, math.nan
        distributed.all_reduce_gradients(self.trained)
        limit = self.spec.optim.max_grad_norm
        return loss_sum, nn.utils.clip_grad_norm_(self.trained, limit).item()

    def _check_finite(self, what: str, value: float, step: int) -> None:
        if not math.isfinite(value):
            rate = self.optimizer.param_groups[0]["lr"]
            raise NonFinite(what=what, value=str(value), step=step, learning_rate=rate)

    def _tell(self, step: int, loss: float, norm: float, texts: list[int]) -> None:
        self.pace.add(loss, norm, len(texts), int(self.train_part.lengths[texts].sum()))
        if self.pace.log_due(step, self.total_steps) or not math.isfinite(norm):
            mean = self.pace.take()
            self.observer.on_event(
                StepLogged(
                    step=step,
                    epoch=step / self.updates_per_epoch,
                    loss=mean.loss if math.isfinite(mean.loss) else None,
                    grad_norm=mean.norm if math.isfinite(mean.norm) else None,
                    learning_rate=self.optimizer.param_groups[0]["lr"],
                    reviews_per_second=mean.reviews_per_second,
                    tokens_per_second=mean.tokens_per_second,
                    peak_memory_mb=self.runtime.peak_memory_mb(),
                )
            )

    def _evaluation_due(self, step: int) -> bool:
        """Evenly spaced within the epoch, the last at its end; never after cross-validation."""
        if self.cross_validated is not None:
            return False
        times, updates = self.spec.stop.evaluations_per_epoch, self.updates_per_epoch
        within = (step - 1) % updates + 1
        # How many of `times` equal shares of the epoch are over after this step, and before it.
        return within * times // updates > (within - 1) * times // updates

    def _evaluate(self) -> None:
        step = self.progress.step
        with self.pace.paused(), rng.untouched(self.runtime.device):
            self.pulse.enter(Phase.EVALUATING, step)
            reach("evaluating")
            part, budget = self.validation_part, self.spec.optim.micro_batch_tokens
            logits = evaluate.logits(self.forward, part, budget=budget, pulse=self.pulse)
            metrics = self.task.metrics(logits, part.labels)
            better = math.isfinite(metrics["loss"]) and self.best.is_better(metrics)
            if better:
                self.best.offer(step, metrics, self.method.state(self.model), logits)
            else:
                self.best.evaluations_since += 1
            self.progress.evaluation_owed = False
            self.observer.on_event(
                Evaluated(step=step, split=Split.VALIDATION, metrics=finite(metrics), best=better)
            )
            self._check_finite("validation loss", metrics["loss"], step)
            self.pulse.enter(Phase.TRAINING, step)

    def _save(self) -> None:
        if self.saves is not None:
            with self.pace.paused():
                self.saves.save(self.progress)

    def _finish(self) -> Trained:
        step = self.progress.step
        best_step, logits = self._trial() if self.spec.trial else self._take_best()
        self.model.eval()
        return Trained(
            steps=step,
            best_step=best_step,
            validation_logits=logits,
            epochs_run=step / self.updates_per_epoch,
            stopped_early=step < self.last_step,
            pace=self.pace,
        )

    def _take_best(self) -> tuple[int, NDArray[np.float32]]:
        """Put the best weights into the model: their step, and what they answer to validation."""
        if self.cross_validated is not None:
            return self.progress.step, self.cross_validated
        if self.best.logits is None:  # every run evaluates at the end of each epoch
            raise RuntimeError("the loop ended before its first evaluation")
        self.method.restore(self.model, self.best.state)
        return self.best.step, self.best.logits

    def _trial(self) -> tuple[int, NDArray[np.float32]]:
        """The last step, and what the last weights answer to the validation texts of a trial.

        No offer to `best`: the run that goes on from here must come out as if it was never broken.
        """
        self.pulse.enter(Phase.EVALUATING, self.progress.step)
        part, budget = self.validation_part, self.spec.optim.micro_batch_tokens
        which = eval_subset.texts(self.spec, part.split, len(part))
        answers = evaluate.logits(self.forward, part, budget=budget, pulse=self.pulse, only=which)
        loss = self.task.metrics(answers, part.labels[which])["loss"]
        self._check_finite("validation loss", loss, self.progress.step)
        return self.progress.step, answers
