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
from lora_core.data.batching import epoch_batches, micro_batches
from lora_core.errors.training import NonFiniteLoss, StopRequested
from lora_core.events import Evaluated, Observer, Phase, StepLogged, replace_nonfinite_with_none
from lora_core.failpoints import failpoint
from lora_core.fine_tuning_methods import named_trainable_and_adapter_parameters
from lora_core.progress_reporter import ProgressReporter
from lora_core.resolve_defaults import resolve_epochs_and_batch_size
from lora_core.specs.data import Split
from lora_core.training import model_outputs, rng
from lora_core.training.best_weights import BestWeights
from lora_core.training.checkpoint_schedule import CheckpointSaver
from lora_core.training.optim import build_lr_scheduler, build_optimizer
from lora_core.training.prepare import PreparedRun
from lora_core.training.throughput import ThroughputAndLossMeter
from lora_core.training.training_state import TrainingState, checkpoint_parameters


@dataclass(frozen=True)
class TrainingResult:
    """The result of the loop. The model holds the best weights, of a partial run the last ones."""

    steps: int
    best_step: int
    # By the weights that the model holds; after `auto` those of cross-validation, if it has some.
    validation_logits: NDArray[np.float32]
    epochs_run: float
    stopped_early: bool
    throughput: ThroughputAndLossMeter


class Trainer:
    """Trains a prepared run. Everything that changes during training is in `state`."""

    def __init__(
        self,
        prepared: PreparedRun,
        *,
        observer: Observer,
        progress: ProgressReporter,
        checkpoints: CheckpointSaver[TrainingState] | None = None,
        evaluate_last_only: bool = False,
    ) -> None:
        self.model, self.method = prepared.model, prepared.method
        self.task, self.loss = prepared.task, prepared.loss
        self.spec, self.runtime = prepared.spec, prepared.runtime
        self.forward = prepared.forward
        self.cross_validated = prepared.cross_validated
        self.train_data = prepared.tokenized[Split.TRAIN]
        self.validation_data = prepared.tokenized[Split.VALIDATION]
        self.observer, self.progress, self.checkpoints = observer, progress, checkpoints
        self.evaluate_last_only = evaluate_last_only
        optim = self.spec.optim
        self.epochs, self.batch_size = resolve_epochs_and_batch_size(optim, len(self.train_data))
        self.updates_per_epoch = math.ceil(len(self.train_data) / self.batch_size)
        self.total_steps = self.updates_per_epoch * self.epochs
        share = 1.0 if self.spec.trial is None else self.spec.trial.budget
        self.last_step = max(1, round(self.total_steps * share))
        self.trainable = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = build_optimizer(
            self.model, optim, prepared.learning_rate, prepared.family.head_module_names
        )
        self.lr_scheduler = build_lr_scheduler(self.optimizer, optim, self.total_steps)
        self.best = BestWeights(self.spec.stop)
        self.throughput = ThroughputAndLossMeter(
            log_every=max(1, self.total_steps // 100), seconds=self.forward.setup_seconds
        )
        self.state = TrainingState(
            parameters=checkpoint_parameters(self.model, prepared.family),
            best_parameters=named_trainable_and_adapter_parameters(self.model).keys(),
            optimizer=self.optimizer,
            lr_scheduler=self.lr_scheduler,
            best=self.best,
            throughput=self.throughput,
            device=self.runtime.device,
            logits_shape=(len(self.validation_data), len(self.task.labels)),
        )

    def train(self) -> TrainingResult:
        """Train from the step in `state` to the last step, or until patience runs out.

        Raises `NonFiniteLoss`, `DiskFull`, and `StopRequested` after saving a last checkpoint.
        """
        self.model.train()
        try:
            self.progress.enter_phase(Phase.TRAINING, self.state.step)
            self._between_updates()
            for texts in self._remaining_updates():
                if self.best.out_of_patience() or self.state.step >= self.last_step:
                    break
                self._update(texts)
                self._between_updates()
        except StopRequested:
            self._save_checkpoint()
            raise
        self._save_checkpoint()  # so that a failure after training loses none of it
        return self._finish()

    def _remaining_updates(self) -> Iterator[list[int]]:
        """Yield the texts of each update. The order of an epoch depends on seed and epoch alone."""
        done = self.state.step
        for epoch in range(done // self.updates_per_epoch, self.epochs):
            updates = epoch_batches(
                self.train_data.lengths,
                batch_size=self.batch_size,
                seed=self.spec.runtime.seed,
                epoch=epoch,
            )
            yield from islice(updates, max(0, done - epoch * self.updates_per_epoch), None)

    def _between_updates(self) -> None:
        """Stop, save or evaluate. Only here is the whole state at one step."""
        self.progress.tick(self.state.step)
        if self.checkpoints is not None and self.checkpoints.is_due():
            self._save_checkpoint()
        if self.state.evaluation_pending:
            self._evaluate()

    def _update(self, texts: list[int]) -> None:
        """Make one optimizer step. Raises `NonFiniteLoss` after reporting loss and norm."""
        step = self.state.step + 1
        rng.reseed_torch_on_nonzero_rank(self.spec.runtime.seed, distributed.rank(), step)
        loss, norm = self._compute_gradients(texts)
        self._log_step(step, loss, norm, texts)
        self._check_finite("loss", loss, step)
        self._check_finite("gradient norm", norm, step)
        self.optimizer.step()
        self.lr_scheduler.step()
        self.state.step = step
        self.state.evaluation_pending = self._evaluation_due(step)
        failpoint("step")  # where a test can make a run fail: see `failpoints.py`

    def _compute_gradients(self, texts: list[int]) -> tuple[float, float]:
        """Return the mean loss and the gradient norm of an update; NaN if the loss is not finite.

        L = Σ wᵢ ℓᵢ / Σ wᵢ over the whole update, wᵢ the weight of the class. The divisor is known
        before anything is computed, so L is a plain sum over texts: each micro-batch and process
        computes some of its terms, and their gradients add up to exactly that of L.
        """
        data, budget = self.train_data, self.spec.optim.micro_batch_tokens
        normalizer = self.loss.normalizer(data.targets[texts])  # Σ wᵢ
        self.optimizer.zero_grad(set_to_none=True)
        loss_sum = 0.0
        for indices in micro_batches(data.lengths, distributed.shard(texts), budget):
            targets = torch.from_numpy(data.targets[indices]).to(self.runtime.device)
            loss = self.loss.share(self.forward(data, indices), targets, normalizer)
            loss_sum += loss.item()
            if not math.isfinite(loss_sum):
                break
            torch.autograd.backward(loss)
        loss_sum = distributed.all_reduce_scalar(loss_sum)
        if not math.isfinite(loss_sum):
            return loss_sum, math.nan
        distributed.all_reduce_gradients(self.trainable)
        limit = self.spec.optim.max_grad_norm
        return loss_sum, nn.utils.clip_grad_norm_(self.trainable, limit).item()

    def _check_finite(self, what: str, value: float, step: int) -> None:
        if not math.isfinite(value):
            rate = self.optimizer.param_groups[0]["lr"]
            raise NonFiniteLoss(what=what, value=str(value), step=step, learning_rate=rate)

    def _log_step(self, step: int, loss: float, norm: float, texts: list[int]) -> None:
        tokens = int(self.train_data.lengths[texts].sum())
        self.throughput.add(loss, norm, len(texts), tokens)
        if self.throughput.should_log(step, self.total_steps) or not math.isfinite(norm):
            means = self.throughput.pop_means()
            self.observer.on_event(
                StepLogged(
                    step=step,
                    epoch=step / self.updates_per_epoch,
                    loss=means.loss if math.isfinite(means.loss) else None,
                    grad_norm=means.norm if math.isfinite(means.norm) else None,
                    learning_rate=self.optimizer.param_groups[0]["lr"],
                    reviews_per_second=means.texts_per_second,
                    tokens_per_second=means.tokens_per_second,
                    peak_memory_mb=self.runtime.peak_memory_mb(),
                )
            )

    def _evaluation_due(self, step: int) -> bool:
        """Evaluate at even intervals, the last at the end of each epoch.

        In a fold of a cross-validation only the last weights count. After a cross-validation there
        is nothing to evaluate.
        """
        if self.cross_validated is not None:
            return False
        if self.evaluate_last_only:
            return step == self.total_steps
        times, updates = self.spec.stop.evaluations_per_epoch, self.updates_per_epoch
        position = (step - 1) % updates + 1  # in the epoch, from 1
        # Of `times` equal shares of the epoch, how many are complete after this step and before it.
        return position * times // updates > (position - 1) * times // updates

    def _evaluate(self) -> None:
        step = self.state.step
        with self.throughput.paused(), rng.preserve_rng_states(self.runtime.device):
            self.progress.enter_phase(Phase.EVALUATING, step)
            failpoint("evaluating")
            data, budget = self.validation_data, self.spec.optim.micro_batch_tokens
            logits = model_outputs.compute_logits(
                self.forward, data, budget=budget, progress=self.progress
            )
            metrics = self.task.compute_logged_metrics(logits, data.targets)
            better = self.best.is_better(metrics)
            if better:
                self.best.keep(step, metrics, self.method.state_dict(self.model), logits)
            else:
                self.best.count_evaluation()
            self.state.evaluation_pending = False
            self.observer.on_event(
                Evaluated(
                    step=step,
                    split=Split.VALIDATION,
                    metrics=replace_nonfinite_with_none(metrics),
                    best=better,
                )
            )
            self._check_finite("validation loss", metrics["loss"], step)
            self.progress.enter_phase(Phase.TRAINING, step)

    def _save_checkpoint(self) -> None:
        if self.checkpoints is not None:
            with self.throughput.paused():
                self.checkpoints.save(self.state)

    def _finish(self) -> TrainingResult:
        step = self.state.step
        if self.spec.trial is None:
            best_step, logits = self._load_best()
        else:
            best_step, logits = self._compute_partial_run_logits()
        self.model.eval()
        return TrainingResult(
            steps=step,
            best_step=best_step,
            validation_logits=logits,
            epochs_run=step / self.updates_per_epoch,
            stopped_early=step < self.last_step,
            throughput=self.throughput,
        )

    def _load_best(self) -> tuple[int, NDArray[np.float32]]:
        """Load the best weights into the model; return their step and validation logits.

        After `auto` has cross-validated, they are the last ones, which the model holds.
        """
        if self.cross_validated is not None:
            return self.state.step, self.cross_validated
        if self.best.logits is None:  # every run evaluates at the end of each epoch
            raise RuntimeError("the loop ended before its first evaluation")
        self.method.load_state_dict(self.model, self.best.weights)
        return self.best.step, self.best.logits

    def _compute_partial_run_logits(self) -> tuple[int, NDArray[np.float32]]:
        """Return the last step and the logits of the last weights on the evaluation subset.

        This does not update `best`: a run that continues from here must give the same result as
        one that was never interrupted.
        """
        self.progress.enter_phase(Phase.EVALUATING, self.state.step)
        data, budget = self.validation_data, self.spec.optim.micro_batch_tokens
        indices = model_outputs.eval_indices(self.spec, data.split, len(data))
        logits = model_outputs.compute_logits(
            self.forward, data, budget=budget, progress=self.progress, only=indices
        )
        loss = self.task.compute_logged_metrics(logits, data.targets[indices])["loss"]
        self._check_finite("validation loss", loss, self.state.step)
        return self.state.step, logits
