"""Everything of a run that changes from step to step: what a checkpoint keeps."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel

from lora_core.encoders.base import EncoderFamily
from lora_core.methods.base import saved_parameters
from lora_core.specs.frozen import Float, Frozen, Int
from lora_core.training import rng
from lora_core.training.best_checkpoint import Best, BestFigures
from lora_core.training.throughput import Pace, PaceFigures

MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # what AdamW keeps of a parameter

Tensors = dict[str, Tensor]


def own_parameters(model: PreTrainedModel, family: EncoderFamily) -> dict[str, nn.Parameter]:
    """What is not in the files of the base: what a method saves, and the head even where it stays
    as it was drawn."""
    heads = tuple(f"{name}." for name in family.head)
    saved = saved_parameters(model)
    return {n: p for n, p in model.named_parameters() if n in saved or n.startswith(heads)}


class Figures(Frozen):
    """The part that is no tensor."""

    step: Int  # updates made; epoch and place within it follow
    evaluation_owed: bool  # after this step, not yet made
    rates: list[Float]  # of each group of the optimizer, for the next update
    best: BestFigures
    pace: PaceFigures


@dataclass
class Progress:
    """Weights, what trains them, and how far it got."""

    parameters: dict[str, nn.Parameter]  # see `own_parameters`
    saved: Collection[str]  # those of them that the best weights hold
    optimizer: torch.optim.AdamW
    schedule: LambdaLR
    best: Best
    pace: Pace
    device: str
    answers: tuple[int, int]  # validation texts, labels
    step: int = 0
    evaluation_owed: bool = False

    def figures(self) -> Figures:
        """The figures of this moment."""
        return Figures(
            step=self.step,
            evaluation_owed=self.evaluation_owed,
            rates=[float(group["lr"]) for group in self.optimizer.param_groups],
            best=self.best.figures(),
            pace=self.pace.figures(),
        )

    def tensors(self) -> Tensors:
        """The tensors of this moment, not copied, by names such as `weights/…` and `best/…`."""
        found = {f"weights/{name}": p.detach() for name, p in self.parameters.items()}
        for name, parameter in self.parameters.items():
            for moment, value in self.optimizer.state.get(parameter, {}).items():
                found[f"optimizer/{moment}/{name}"] = value
        found |= {f"best/{name}": value for name, value in self.best.state.items()}
        if self.best.logits is not None:
            found["best_logits"] = torch.from_numpy(self.best.logits)
        return found | {f"rng/{name}": state for name, state in rng.take(self.device).items()}

    def misfit(self, figures: Figures, tensors: Mapping[str, Tensor]) -> str | None:
        """The first thing that cannot be of this run: one too many, missing, of another shape."""
        due = self._due(figures, tensors)
        for name in sorted(due.keys() | tensors.keys()):
            wanted, found = due.get(name), tensors.get(name)
            if wanted is None or found is None:
                return f"{name} is {'missing' if found is None else 'not of this run'}"
            if wanted.shape != found.shape or wanted.dtype != found.dtype:
                return f"{name} has another shape or type"
        if len(figures.rates) != len(self.optimizer.param_groups):
            return "rates are not of this optimizer"
        return None

    def _due(self, figures: Figures, tensors: Mapping[str, Tensor]) -> Tensors:
        """What must be there, by example."""
        due: Tensors = {f"weights/{name}": p for name, p in self.parameters.items()}
        trained = {name: p for name, p in self.parameters.items() if p.requires_grad}
        for name, parameter in trained.items():
            if any(f"optimizer/{m}/{name}" in tensors for m in MOMENTS):  # none without a gradient
                due |= {f"optimizer/{m}/{name}": parameter for m in MOMENTS}
                due[f"optimizer/step/{name}"] = torch.zeros(())
        if figures.best.score is not None:
            due |= {f"best/{name}": self.parameters[name] for name in self.saved}
            due["best_logits"] = torch.zeros(self.answers)
        states = rng.take(self.device)
        # A GPU's state means nothing on a CPU and may be missing on a GPU: another place.
        states.pop("device", None)
        if "rng/device" in tensors:
            states["device"] = tensors["rng/device"]
        return due | {f"rng/{name}": state for name, state in states.items()}

    @torch.no_grad()
    def restore(self, figures: Figures, tensors: Mapping[str, Tensor]) -> None:
        """Go on from there. Whether it fits is asked before: see `misfit`."""
        for name, parameter in self.parameters.items():
            parameter.copy_(tensors[f"weights/{name}"])
            moments = {m: tensors.get(f"optimizer/{m}/{name}") for m in MOMENTS}
            # Copies: memory of our own is aligned as the optimizer would have had it.
            kept = {m: t.clone().to(self.device) for m, t in moments.items() if t is not None}
            if kept:
                self.optimizer.state[parameter] = kept
        for group, rate in zip(self.optimizer.param_groups, figures.rates, strict=True):
            group["lr"] = rate
        self.schedule.load_state_dict(
            {**self.schedule.state_dict(), "last_epoch": figures.step, "_last_lr": figures.rates}
        )
        logits = tensors.get("best_logits")
        self.best.restore(figures.best, _below("best/", tensors), logits)
        self.pace.restore(figures.pace)
        self.step, self.evaluation_owed = figures.step, figures.evaluation_owed
        rng.put(_below("rng/", tensors), self.device)  # last: nothing may draw after it


def _below(kind: str, tensors: Mapping[str, Tensor]) -> Tensors:
    return {name.removeprefix(kind): t for name, t in tensors.items() if name.startswith(kind)}
