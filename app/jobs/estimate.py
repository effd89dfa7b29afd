"""How long a job takes: its floating-point operations over the speed that earlier jobs reached.

An estimate, to decide by before anything is trained: a run on another device or with shorter texts
has another speed, and a run may stop early. Waiting in the queue is not in it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from app.jobs.data_sources import ALL, Data
from app.queue.states import Lane
from lora_core import flops, model_selection
from lora_core.compatibility import Shape
from lora_core.cost_model import LINEAR_SECONDS_PER_TOKEN, SPEED, SPREAD, Costs
from lora_core.defaults import HEAD_INIT_TEXTS, head_init, schedule
from lora_core.linear.limits import most_terms, rows_of
from lora_core.specs.data import Split, count_of
from lora_core.specs.method import AutoSpec, Candidate
from lora_core.specs.train import HeadInit, TrainSpec

# FLOP/s while no job has finished here. Who takes any device may get the slow one.
DEFAULT_SPEED: Mapping[Lane, float] = {
    Lane.CPU: SPEED["cpu"],
    Lane.GPU: SPEED["cuda"],
    Lane.ANY: SPEED["cpu"],
}
START_SECONDS = 12.0  # interpreter, libraries, model, artifact
RIVAL_TEXTS = 20_000

LINEAR_START_SECONDS = 3.0  # the same of a linear model, which needs no torch
TERMS_PER_TOKEN = 0.12  # of words and word pairs that occur twice, in the samples


@dataclass(frozen=True)
class Cost:
    """What a job will take. `flops_per_token`: of the training, over all tokens it sees."""

    seconds: int
    flops_per_token: float
    start_seconds: float = START_SECONDS  # of `seconds`, before anything is computed


def cost(spec: TrainSpec, *, shape: Shape, data: Data, speed: float, since: float = 0.0) -> Cost:
    """`speed` is in FLOP/s. `since`: the share of the steps that another job has made already."""
    length = data.mean_tokens * SPREAD
    texts = parts(data)
    epochs, _ = schedule(spec.optim, texts[Split.TRAIN])
    training = flops.training(shape, spec.encoder_method, length=length)
    forward = flops.forward(shape, length=length)
    # Blocks below the lowest trained one run once per text (lora_core/fast/frozen_encoder.py).
    share = (
        flops.frozen_share(shape, spec.encoder_method) if spec.optim.encoder_dropout == 0 else 0.0
    )
    trunk = forward * share
    if spec.runtime.gradient_checkpointing:
        training += forward - trunk
    share = (spec.trial.share if spec.trial else 1.0) - since
    fitted = head_init(spec) is HeadInit.PROBE and not since  # a checkpoint has the head
    before = sum(texts.values()) * trunk
    before += fitted * min(texts[Split.TRAIN], HEAD_INIT_TEXTS) * (forward - trunk)
    work = (
        before
        + share * epochs * texts[Split.TRAIN] * (training - trunk)
        + _evaluated(spec, texts, epochs, since) * (forward - trunk)
    )
    rival = 0.0 if spec.trial else min(texts[Split.TRAIN], RIVAL_TEXTS) * LINEAR_SECONDS_PER_TOKEN
    rival *= data.mean_tokens
    seconds = START_SECONDS + rival + work * data.mean_tokens / speed
    seen = epochs * max(1, texts[Split.TRAIN])
    per_token = training - trunk + before / seen
    return Cost(seconds=round(seconds), flops_per_token=per_token)


def auto_plan(
    spec: TrainSpec, auto: AutoSpec, *, shape: Shape, data: Data, speed: float
) -> tuple[tuple[Candidate, ...], Cost]:
    """What is cross-validated, as asked or as the budget allows, and what all of it costs.

    The longest of the candidates may be the one that is trained at the end.
    """
    counts = parts(data)
    given = Split.VALIDATION.value in data.rows or spec.data.train_size is not None
    texts = max(1, counts[Split.TRAIN] + (0 if given else counts[Split.VALIDATION]))
    costs = Costs(shape, spec.optim, data.mean_tokens, speed)
    candidates = auto.candidates or model_selection.plan(texts, auto.time_budget, costs.seconds)
    work = model_selection.seconds(candidates, texts, costs.seconds)
    answered = counts[Split.TEST] * data.mean_tokens
    work += answered * flops.forward(shape, length=data.mean_tokens * SPREAD) / speed
    return candidates, Cost(round(START_SECONDS + work), 0.0)


def linear_weights(data: Data, labels: int) -> int:
    """Roughly, how many a linear model of these texts will have."""
    words = parts(data)[Split.TRAIN] * data.mean_tokens
    terms = min(most_terms(labels), round(TERMS_PER_TOKEN * words))
    return (terms + 1) * rows_of(labels)


def linear_cost(data: Data, labels: int) -> Cost:
    """That of a linear model, which is fitted in one step."""
    words = sum(parts(data).values()) * data.mean_tokens
    work = words * LINEAR_SECONDS_PER_TOKEN * max(1.0, rows_of(labels) / 2)
    return Cost(round(LINEAR_START_SECONDS + work), 0.0, LINEAR_START_SECONDS)


def _evaluated(spec: TrainSpec, texts: Mapping[Split, int], epochs: int, since: float) -> int:
    """Texts that are answered on the way and at the end."""
    evaluations = epochs * spec.stop.evaluations_per_epoch
    upto = spec.trial.share if spec.trial else 1.0
    on_the_way = int(upto * evaluations) - int(since * evaluations)
    validation = texts[Split.VALIDATION]
    if spec.trial is not None:
        last = min(validation, spec.trial.validation_texts or validation)
    else:
        last = texts[Split.TEST] + spec.result.train_figures * texts[Split.TRAIN]
    return on_the_way * validation + last


def speed(reached: Iterable[float], lane: Lane) -> float:
    """FLOP/s: the median of the last jobs, or what is usual."""
    known = [each for each in reached if each > 0]
    return median(known) if known else DEFAULT_SPEED[lane]


def parts(data: Data) -> dict[Split, int]:
    """Texts in each part. Parts that are not given are drawn from those for training."""
    spec = data.spec
    left = all_rows = data.rows.get(ALL, data.rows.get(Split.TRAIN.value, 0))
    counts: dict[Split, int] = {}
    for part, size in ((Split.VALIDATION, spec.validation_size), (Split.TEST, spec.test_size)):
        given = data.rows.get(part.value)
        if given is None:
            given = count_of(size, all_rows)
            left -= given
        counts[part] = given
    wanted = left if spec.train_size is None else count_of(spec.train_size, all_rows)
    counts[Split.TRAIN] = max(0, min(left, wanted))
    return counts
