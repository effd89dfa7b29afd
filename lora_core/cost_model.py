"""How long a fit takes, by its floating-point operations: to plan by before it is made."""

from collections.abc import Mapping
from dataclasses import dataclass

from lora_core import flops
from lora_core.compatibility import Shape
from lora_core.defaults import schedule
from lora_core.specs.method import LinearSpec, OneMethod, ProbeSpec
from lora_core.specs.train import OptimSpec

# FLOP/s while nothing is known of a machine: two cores in float32; one large GPU, in bfloat16.
SPEED: Mapping[str, float] = {"cpu": 1e11, "cuda": 2e13}
LINEAR_SECONDS_PER_TOKEN = 5e-6  # TF-IDF and logistic regression on one core
SPREAD = 1.25  # E[L²] / E[L] over the mean length, as in film reviews


@dataclass(frozen=True)
class Costs:
    """Of fits on texts of so many `tokens` on average, cut at what the base reads."""

    shape: Shape
    optim: OptimSpec
    tokens: float
    flops_per_second: float

    def seconds(self, method: OneMethod, texts: int) -> float:
        """Of one training on so many texts, without the start of a process."""
        length = self.tokens * SPREAD
        match method:
            case LinearSpec():
                return texts * self.tokens * LINEAR_SECONDS_PER_TOKEN
            case ProbeSpec():
                work = flops.forward(self.shape, length=length)
            case _:
                epochs, _ = schedule(self.optim, texts)
                work = epochs * flops.training(self.shape, method, length=length)
        return texts * self.tokens * work / self.flops_per_second
