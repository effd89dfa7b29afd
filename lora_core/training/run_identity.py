"""Which run a checkpoint belongs to, and where it was made."""

import hashlib
import json

from lora_core import distributed, environment
from lora_core.specs.frozen import Frozen
from lora_core.specs.pooling import Pooling
from lora_core.specs.train import HeadInit, TrainSpec
from lora_core.training.prepare import Prepared
from lora_core.training.training_state import own_parameters


class Origin(Frozen):
    """A run, known by its content: the same data and base may lie elsewhere the next time."""

    spec: TrainSpec  # with every default filled in
    data_sha256: str
    base_sha256: str
    environment: dict[str, str]


def of(prepared: Prepared) -> Origin:
    """The origin of what this run will save."""
    budget = prepared.spec.optim.micro_batch_tokens
    return Origin(
        spec=prepared.spec,
        data_sha256=prepared.splits.digest,
        base_sha256=_base_sha256(prepared),
        environment=environment.here(prepared.runtime, budget, distributed.world_size()),
    )


def foreign(then: Origin, now: Origin) -> str | None:
    """What makes it another run; `None`: it is the same."""
    before, after = _meaning(then), _meaning(now)
    return next((what for what in before if before[what] != after[what]), None)


def digest(origin: Origin) -> str:
    """Names the numbers that come out, down to the last bits."""
    facts = {name: str(value) for name, value in _meaning(origin).items()}
    facts |= {"environment": str(sorted(origin.environment.items()))}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def as_before(spec: TrainSpec, then: TrainSpec) -> TrainSpec:
    """What the spec leaves open is done as the first time, where every machine can do that."""
    then = _completed(then)
    runtime, used = spec.runtime, then.runtime
    optim = spec.optim.model_copy(
        update={
            "epochs": spec.optim.epochs or then.optim.epochs,
            "learning_rate": spec.optim.learning_rate or then.optim.learning_rate,
            "head_learning_rate": spec.optim.head_learning_rate or then.optim.head_learning_rate,
            "batch_size": spec.optim.batch_size or then.optim.batch_size,
        }
    )
    stop = spec.stop.model_copy(update={"select_by": spec.stop.select_by or then.stop.select_by})
    pooling = then.pooling if spec.pooling is Pooling.AUTO else spec.pooling
    head_init = then.head_init if spec.head_init is HeadInit.AUTO else spec.head_init
    settled: dict[str, object] = {}
    if runtime.threads is None:
        settled["threads"] = used.threads
    if (runtime.device, used.device) == ("auto", "cpu"):
        settled["device"] = "cpu"
    if (runtime.precision, used.precision) == ("auto", "fp32"):
        settled["precision"] = "fp32"
    update = {"optim": optim, "stop": stop, "pooling": pooling, "head_init": head_init}
    return spec.model_copy(update={**update, "runtime": runtime.model_copy(update=settled)})


def _meaning(origin: Origin) -> dict[str, object]:
    """All that a result depends on but for its last bits.

    Not the names of base and data, whose content counts, nor how it is computed: that is compared
    as the environment.
    """
    spec = _completed(origin.spec)
    return {
        "method": spec.method,
        "task": spec.task,
        "head_init": spec.head_init,
        "optim": spec.optim.model_copy(update={"micro_batch_tokens": 0}),
        "stop": spec.stop,
        "data.max_length": spec.data.max_length,
        "runtime.seed": spec.runtime.seed,
        "the data": origin.data_sha256,
        "the base model": origin.base_sha256,
    }


def _completed(spec: TrainSpec) -> TrainSpec:
    """The spec of a checkpoint, with what all runs did before there was a choice.

    They read the first token, drew the head at random and trained it at the rate of all.
    """
    optim, found = spec.optim, dict[str, object]()
    if spec.pooling is Pooling.AUTO:
        found["pooling"] = Pooling.CLS
    if spec.head_init is HeadInit.AUTO:
        found["head_init"] = HeadInit.RANDOM
    if optim.head_learning_rate is None:
        found["optim"] = optim.model_copy(update={"head_learning_rate": optim.learning_rate})
    return spec.model_copy(update=found)


def _base_sha256(prepared: Prepared) -> str:
    """Of the tokenizer and of every weight that a checkpoint leaves to the files of the base."""
    digest = hashlib.sha256(prepared.tokenizer_file.read_bytes())
    own = own_parameters(prepared.model, prepared.family)
    for name, parameter in prepared.model.named_parameters():
        if name not in own:
            digest.update(name.encode())
            digest.update(parameter.detach().cpu().contiguous().numpy())
    return digest.hexdigest()
