"""Training methods: the last layers, low-rank adapters, all parameters, or the best of several."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, field_validator

from lora_core.specs.fields import Float, FrozenModel, Int


class LayerRole(StrEnum):
    """The function of a linear layer inside a transformer block."""

    QUERY = "query"
    KEY = "key"
    VALUE = "value"
    PROJECTION = "projection"  # attention output
    MLP = "mlp"  # all feed-forward layers of a block


class LoraVariant(StrEnum):
    """A LoRA variant. Variants differ in scale, initialization and trained parameters."""

    LORA = "lora"  # alpha / r (Hu et al. 2021, arXiv 2106.09685)
    RSLORA = "rslora"  # alpha / sqrt(r) (Kalajdzievski 2023, arXiv 2312.03732)
    # alpha alone, A ~ N(0, 1/r): the convention of the "LoRA from scratch" lessons
    UNSCALED = "unscaled"
    DORA = "dora"  # magnitude and direction (Liu et al. 2024, arXiv 2402.09353)
    LORA_FA = "lora_fa"  # A is frozen at its initial value (Zhang et al. 2023, arXiv 2308.03303)

    @property
    def trained_parameter_names(self) -> frozenset[str]:
        """The names of the trained parameters. An adapter always has A and B."""
        return _TRAINED_PARAMETERS.get(self, frozenset("AB"))


_TRAINED_PARAMETERS = {
    LoraVariant.DORA: frozenset({"A", "B", "magnitude"}),
    LoraVariant.LORA_FA: frozenset({"B"}),
}


class HeadMode(StrEnum):
    """How a LoRA run treats the classification head."""

    TRAIN = "train"  # trained and saved in full
    LORA = "lora"  # frozen, with an adapter of its own
    FROZEN = "frozen"  # left as initialized


# weight labels inversely to their frequency, like `task.class_weights`
ClassWeightOption = Literal["balanced"] | None
NGram = Annotated[Int, Field(ge=1, le=3)]


class LastLayersBaselineSpec(FrozenModel):
    """Train the last layers only: the head and the last `blocks` transformer blocks."""

    type: Literal["baseline"] = "baseline"
    blocks: Int = Field(default=0, ge=0, le=64)


class LoraSpec(FrozenModel):
    """Train low-rank adapters next to frozen linear layers."""

    type: Literal["lora"] = "lora"
    variant: LoraVariant = LoraVariant.LORA
    r: Int = Field(default=8, ge=1, le=4096)
    alpha: Float = Field(default=16.0, gt=0, le=1e6)
    dropout: Float = Field(default=0.0, ge=0, lt=1)
    targets: tuple[LayerRole, ...] = Field(default=tuple(LayerRole), min_length=1)
    layers: tuple[Annotated[Int, Field(ge=0)], ...] | None = Field(default=None, min_length=1)
    head: HeadMode = HeadMode.TRAIN

    @field_validator("targets", "layers")
    @classmethod
    def _no_repeats(cls, value: tuple[object, ...] | None) -> tuple[object, ...] | None:
        if value is not None and len(set(value)) != len(value):
            raise ValueError("entries must be unique")
        return value


class FullFineTuningSpec(FrozenModel):
    """Train all parameters."""

    type: Literal["full"] = "full"


class ProbeSpec(FrozenModel):
    """Logistic regression on the pooled states of the frozen base model."""

    type: Literal["probe"] = "probe"
    C: Float = Field(default=1.0, gt=0, le=1e6)  # inverse regularization strength
    class_weight: ClassWeightOption = None


class LinearSpec(FrozenModel):
    """Logistic regression on TF-IDF of words and word pairs: no base model, seconds on a CPU.

    The parameters are those of `LogisticRegression` and `TfidfVectorizer` in scikit-learn.
    """

    type: Literal["linear"] = "linear"
    C: Float = Field(default=4.0, gt=0, le=1e6)  # inverse regularization strength
    class_weight: ClassWeightOption = None
    ngram_range: tuple[NGram, NGram] = (1, 2)  # words per term: minimum and maximum
    # The number of texts in which a term must occur. None: 1 up to 100,000 characters of training
    # texts, else 2.
    min_df: Int | None = Field(default=None, ge=1, le=1000)

    @field_validator("ngram_range")
    @classmethod
    def _ascending(cls, value: tuple[int, int]) -> tuple[int, int]:
        if value[0] > value[1]:
            raise ValueError("the first number must not be greater than the second")
        return value


# fitted in one go: no steps, no checkpoints
SKLEARN_METHODS: frozenset[str] = frozenset({"linear", "probe"})
EncoderMethod = (
    ProbeSpec | LastLayersBaselineSpec | LoraSpec | FullFineTuningSpec
)  # methods that need a base model
SingleMethod = LinearSpec | EncoderMethod

NUM_FOLDS = 5  # of cross-validation


class CandidateSpec(FrozenModel):
    """A method to compare, and the number of held-out folds to score it on. More folds give a
    smaller error."""

    method: Annotated[SingleMethod, Field(discriminator="type")]
    folds: Int = Field(default=NUM_FOLDS, ge=1, le=NUM_FOLDS)
    repeats: Int = Field(default=1, ge=1, le=10)  # each repeat assigns the folds anew

    @property
    def n_fits(self) -> int:
        """The number of models to fit."""
        return self.folds * self.repeats


def describe_method(method: SingleMethod) -> str:
    """Return a method and its main settings in a few words, such as "probe C 3, balanced"."""
    match method:
        case LinearSpec() | ProbeSpec():
            words = f"{method.type} C {method.C:g}"
            return f"{words}, {method.class_weight}" if method.class_weight else words
        case LoraSpec():
            return f"{method.variant} r {method.r} \N{GREEK SMALL LETTER ALPHA} {method.alpha:g}"
        case _:
            return method.type


class AutoSpec(FrozenModel):
    """The method that scores best in cross-validation: a linear model, a probe, or LoRA.

    The best method is then trained on all texts that are not in the test split.
    """

    type: Literal["auto"] = "auto"
    time_budget: Int = Field(default=900, ge=1, le=604_800)  # seconds in total, approximately
    # None: as many as fit the time budget, fixed when the job is created.
    candidates: tuple[CandidateSpec, ...] | None = Field(default=None, min_length=1, max_length=100)


MethodName = Literal["auto", "linear", "probe", "baseline", "lora", "full"]
MethodSpec = Annotated[AutoSpec | SingleMethod, Field(discriminator="type")]
