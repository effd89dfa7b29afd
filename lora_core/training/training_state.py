"""Everything in a run that changes from step to step: the content of a checkpoint."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel

from lora_core.encoders.families import EncoderFamily
from lora_core.fine_tuning_methods import named_trainable_and_adapter_parameters
from lora_core.specs.fields import AliasedStoredModel, Float, Int
from lora_core.training import rng
from lora_core.training.best_weights import BestWeights, BestWeightsState
from lora_core.training.throughput import ThroughputAndLossMeter, ThroughputState

_ADAMW_STATE = ("step", "exp_avg", "exp_avg_sq")  # per parameter

Tensors = dict[str, Tensor]


def checkpoint_parameters(model: PreTrainedModel, family: EncoderFamily) -> dict[str, nn.Parameter]:
    """Return the parameters that are not in the files of the base, by name.

    These are the parameters that the method saves, and the head even where it does not train.
    """
    heads = tuple(f"{name}." for name in family.head_module_names)
    saved = named_trainable_and_adapter_parameters(model)
    return {n: p for n, p in model.named_parameters() if n in saved or n.startswith(heads)}


class TrainingProgress(AliasedStoredModel):
    """The part of a `TrainingState` that goes into state.json; the rest is tensors."""

    step: Int  # updates made; the epoch and the position within it follow
    # An evaluation is due after this step and has not been made.
    evaluation_pending: bool = Field(alias="evaluation_owed")
    # Of each parameter group, for the next update.
    learning_rates: list[Float] = Field(alias="rates")
    best: BestWeightsState
    throughput: ThroughputState = Field(alias="pace")


@dataclass
class TrainingState:
    """The weights, the optimizer and its schedule, and the progress of a run."""

    parameters: dict[str, nn.Parameter]  # see `checkpoint_parameters`
    best_parameters: Collection[str]  # names of those that the best weights include
    optimizer: torch.optim.AdamW
    lr_scheduler: LambdaLR
    best: BestWeights
    throughput: ThroughputAndLossMeter
    device: str
    logits_shape: tuple[int, int]  # validation texts, labels
    step: int = 0
    evaluation_pending: bool = False

    def progress(self) -> TrainingProgress:
        """Return the part that is not tensors."""
        return TrainingProgress(
            step=self.step,
            evaluation_pending=self.evaluation_pending,
            learning_rates=[float(group["lr"]) for group in self.optimizer.param_groups],
            best=self.best.state(),
            throughput=self.throughput.state(),
        )

    def tensors(self) -> Tensors:
        """Return all tensors, not copied, under names such as `weights/…` and `best/…`."""
        tensors = {f"weights/{name}": p.detach() for name, p in self.parameters.items()}
        for name, parameter in self.parameters.items():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer/{key}/{name}"] = value
        tensors |= {f"best/{name}": value for name, value in self.best.weights.items()}
        if self.best.logits is not None:
            tensors["best_logits"] = torch.from_numpy(self.best.logits)
        rng_states = rng.get_rng_states(self.device)
        return tensors | {f"rng/{name}": rng_state for name, rng_state in rng_states.items()}

    def find_mismatch(
        self, progress: TrainingProgress, tensors: Mapping[str, Tensor]
    ) -> str | None:
        """Return the first way in which a checkpoint does not fit this run; None if it fits.

        A tensor may be missing, unknown, or of another shape or type.
        """
        expected_tensors = self._expected_tensors(progress, tensors)
        for name in sorted(expected_tensors.keys() | tensors.keys()):
            expected, found = expected_tensors.get(name), tensors.get(name)
            if expected is None or found is None:
                return f"{name} is {'missing' if found is None else 'not part of this run'}"
            if expected.shape != found.shape or expected.dtype != found.dtype:
                return f"{name} has another shape or type"
        if len(progress.learning_rates) != len(self.optimizer.param_groups):
            return "the number of learning rates differs from this optimizer's parameter groups"
        return None

    def _expected_tensors(
        self, progress: TrainingProgress, tensors: Mapping[str, Tensor]
    ) -> Tensors:
        """Return tensors with the names, shapes and types that a checkpoint must have."""
        expected: Tensors = {f"weights/{name}": p for name, p in self.parameters.items()}
        trained = {name: p for name, p in self.parameters.items() if p.requires_grad}
        for name, parameter in trained.items():
            # A parameter without a gradient so far has no optimizer state.
            if any(f"optimizer/{key}/{name}" in tensors for key in _ADAMW_STATE):
                expected |= {f"optimizer/{key}/{name}": parameter for key in _ADAMW_STATE}
                expected[f"optimizer/step/{name}"] = torch.zeros(())
        if progress.best.score is not None:
            expected |= {f"best/{name}": self.parameters[name] for name in self.best_parameters}
            expected["best_logits"] = torch.zeros(self.logits_shape)
        rng_states = rng.get_rng_states(self.device)
        # A CPU ignores the state of a GPU's generator, and a run on a GPU may resume a checkpoint
        # of a CPU, which has none.
        rng_states.pop("device", None)
        if "rng/device" in tensors:
            rng_states["device"] = tensors["rng/device"]
        return expected | {f"rng/{name}": rng_state for name, rng_state in rng_states.items()}

    @torch.no_grad()
    def restore(self, progress: TrainingProgress, tensors: Mapping[str, Tensor]) -> None:
        """Continue from a checkpoint. Call `find_mismatch` first."""
        for name, parameter in self.parameters.items():
            parameter.copy_(tensors[f"weights/{name}"])
            values = {key: tensors.get(f"optimizer/{key}/{name}") for key in _ADAMW_STATE}
            # Copies: memory of our own is aligned as the optimizer would have had it.
            copies = {k: t.clone().to(self.device) for k, t in values.items() if t is not None}
            if copies:
                self.optimizer.state[parameter] = copies
        for group, rate in zip(self.optimizer.param_groups, progress.learning_rates, strict=True):
            group["lr"] = rate
        self.lr_scheduler.last_epoch = progress.step
        logits = tensors.get("best_logits")
        self.best.load_state(progress.best, _strip_prefix("best/", tensors), logits)
        self.throughput.load_state(progress.throughput)
        self.step, self.evaluation_pending = progress.step, progress.evaluation_pending
        # Last, since nothing may draw random numbers after it.
        rng.set_rng_states(_strip_prefix("rng/", tensors), self.device)


def _strip_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> Tensors:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
