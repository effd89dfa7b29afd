"""What is compared: the methods, the two sizes of a run, and the cells in order."""

from collections.abc import Mapping
from dataclasses import dataclass

from lora_core.specs.data import DataSpec
from lora_core.specs.method import FullFineTuningSpec, LastLayersBaselineSpec, LayerRole, LoraSpec
from lora_core.specs.pooling import Pooling
from lora_core.specs.train import (
    CheckpointSelectionAndStopSpec,
    HeadInit,
    OptimSpec,
    RuntimeSpec,
    TrainSpec,
)

BASE, SOURCE = "minilm-l6", "imdb"
SEED = 0
BATCH = 16  # texts of one optimizer step
EPOCHS_OF_JOB = 3  # of the baseline job

METHODS: Mapping[str, LoraSpec | FullFineTuningSpec | LastLayersBaselineSpec] = {
    "lora_qv": LoraSpec(r=8, alpha=16.0, targets=(LayerRole.QUERY, LayerRole.VALUE)),
    "lora_all": LoraSpec(r=8, alpha=16.0, targets=tuple(LayerRole)),
    "full": FullFineTuningSpec(),
    "baseline": LastLayersBaselineSpec(),
}
RATES = {"lora_qv": 1e-3, "lora_all": 1e-3, "full": 1e-4, "baseline": 1e-3}
# Of the trainings whose mean accuracy is reported. Heads alone differ most between seeds.
SEEDS = dict.fromkeys(METHODS, (SEED,)) | {"baseline": (0, 1, 2)}
WARMUP, WEIGHT_DECAY = 0.06, 0.01  # share of the steps; per step and rate

PAIRS = 5  # of the tuned competitor in our harness and in a plain script, which take turns
PAIRED = "lora_qv"  # the method that both train
BELIEVED = 0.93  # of the script's rate: below it the harness slows the competitor down

CELLS = (
    "peak",
    *(f"rate-{name}-{side}" for name in METHODS for side in ("default", "tuned", "ours")),
    *(f"pair-{number}" for number in range(1, PAIRS + 1)),
    "parts",
    *(f"accuracy-{name}-{side}" for name in METHODS for side in ("tuned", "ours")),
)


@dataclass(frozen=True)
class Place:
    """Where it is computed, and how much at once."""

    device: str = "cpu"
    batch: int = BATCH
    tokens: int = OptimSpec().micro_batch_tokens  # of ours; the competitor computes a batch at once


@dataclass(frozen=True)
class Size:
    """How much is measured, and where."""

    seconds: float  # of steady steps
    rate_texts: int  # one pass over them is the shortest window
    warmup: int  # steps before the window
    job_texts: int  # of the baseline job
    train_texts: int  # for accuracy
    test_texts: int
    kernel_seconds: float  # for each kernel that is timed alone
    place: Place = Place()
    pair_steps: int = 0  # of the harness and of the script

    @property
    def a_pass(self) -> int:
        """Steps."""
        return self.rate_texts // self.place.batch


# Both samplers sort 50 batches together if they have that many: 800 texts.
# A pair's side is about 25 s on the fastest processor that we know: a second more or less of other
# work is 4% of it, and the median of five bears two such pairs.
FULL = Size(60.0, 800, 2, 2000, 2000, 5000, 0.2, pair_steps=30)
QUICK = Size(2.0, 32, 0, 64, 16, 16, 0.02, pair_steps=2)


def rate_data(texts: int) -> DataSpec:
    """Reviews of up to 512 tokens."""
    return DataSpec(
        source=SOURCE, train_size=texts, validation_size=16, test_size=16, max_length=512
    )


def accuracy_data(size: Size) -> DataSpec:
    """Reviews of up to 256 tokens."""
    return DataSpec(
        source=SOURCE,
        train_size=size.train_texts,
        validation_size=64,
        test_size=size.test_texts,
        max_length=256,
    )


def train_spec(
    name: str, data: DataSpec, epochs: int, place: Place = Place(), seed: int = SEED
) -> TrainSpec:
    """A run of ours. The last weights are kept: there is one evaluation, at the end of an epoch."""
    return TrainSpec(
        pooling=Pooling.CLS,  # as the competitors read it
        head_init=HeadInit.RANDOM,  # as the competitors start it
        method=METHODS[name],
        base=BASE,
        data=data,
        optim=OptimSpec(
            epochs=epochs,
            learning_rate=RATES[name],
            batch_size=place.batch,
            micro_batch_tokens=place.tokens,
            warmup=WARMUP,
            weight_decay=WEIGHT_DECAY,
            head_dropout=0.0,
        ),
        stop=CheckpointSelectionAndStopSpec(evaluations_per_epoch=1),
        runtime=RuntimeSpec(device=place.device, seed=seed),
    )
