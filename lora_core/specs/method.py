"""What a run trains: the last layers, low-rank adapters, everything; or the best of several."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, field_validator

from lora_core.specs.frozen import Float, Frozen, Int


class Role(StrEnum):
    """What a linear layer does inside a transformer block."""

    QUERY = "query"
    KEY = "key"
    VALUE = "value"
    PROJECTION = "projection"  # attention output
    MLP = "mlp"  # both feed-forward layers


class Variant(StrEnum):
    """A kind of LoRA layer: scale, start, and what trains."""

    LORA = "lora"  # alpha / r (Hu et al. 2021, arXiv 2106.09685)
    RSLORA = "rslora"  # alpha / sqrt(r) (Kalajdzievski 2023, arXiv 2312.03732)
    UNSCALED = "unscaled"  # alpha alone, A ~ N(0, 1/r): the convention of the seed
    DORA = "dora"  # magnitude and direction (Liu et al. 2024, arXiv 2402.09353)
    LORA_FA = "lora_fa"  # A stays as it was drawn (Zhang et al. 2023, arXiv 2308.03303)

    @property
    def trained(self) -> frozenset[str]:
        """What trains of an adapter, which always has A and B."""
        return _TRAINED.get(self, frozenset("AB"))


_TRAINED = {
    Variant.DORA: frozenset({"A", "B", "magnitude"}),
    Variant.LORA_FA: frozenset({"B"}),
}


class Head(StrEnum):
    """What happens to the classification head in a LoRA run."""

    TRAIN = "train"  # trained and saved in full
    LORA = "lora"  # frozen, with an adapter of its own
    FROZEN = "frozen"  # left as it was drawn


Balanced = Literal["balanced"] | None  # every label counts as much as any other, as `task` can say
NGram = Annotated[Int, Field(ge=1, le=3)]


class BaselineSpec(Frozen):
    """Train the last layers only: the head, and the last `blocks` transformer blocks."""

    type: Literal["baseline"] = "baseline"
    blocks: Int = Field(default=0, ge=0, le=64)


class LoraSpec(Frozen):
    """Train low-rank adapters beside frozen linear layers."""

    type: Literal["lora"] = "lora"
    variant: Variant = Variant.LORA
    r: Int = Field(default=8, ge=1, le=4096)
    alpha: Float = Field(default=16.0, gt=0, le=1e6)
    dropout: Float = Field(default=0.0, ge=0, lt=1)
    targets: tuple[Role, ...] = Field(default=tuple(Role), min_length=1)
    layers: tuple[Annotated[Int, Field(ge=0)], ...] | None = Field(default=None, min_length=1)
    head: Head = Head.TRAIN

    @field_validator("targets", "layers")
    @classmethod
    def _no_repeats(cls, value: tuple[object, ...] | None) -> tuple[object, ...] | None:
        if value is not None and len(set(value)) != len(value):
            raise ValueError("each entry may stand once")
        return value


class FullSpec(Frozen):
    """Train every parameter."""

    type: Literal["full"] = "full"


class ProbeSpec(Frozen):
    """Logistic regression on the pooled states of the frozen base."""

    type: Literal["probe"] = "probe"
    C: Float = Field(default=1.0, gt=0, le=1e6)  # inverse strength of the regularization
    class_weight: Balanced = None


class LinearSpec(Frozen):
    """Logistic regression on TF-IDF of words and word pairs: no base, seconds on a CPU.

    The parameters are those of `LogisticRegression` and `TfidfVectorizer` in scikit-learn.
    """

    type: Literal["linear"] = "linear"
    C: Float = Field(default=4.0, gt=0, le=1e6)  # inverse strength of the regularization
    class_weight: Balanced = None
    ngram_range: tuple[NGram, NGram] = (1, 2)  # words in a term: fewest and most
    # Texts that a term must occur in. None: 1 up to 100,000 characters of training texts, else 2.
    min_df: Int | None = Field(default=None, ge=1, le=1000)

    @field_validator("ngram_range")
    @classmethod
    def _ascending(cls, value: tuple[int, int]) -> tuple[int, int]:
        if value[0] > value[1]:
            raise ValueError("the first number must not be more than the second")
        return value


FITTED_AT_ONCE: frozenset[str] = frozenset({"linear", "probe"})  # no steps, and no checkpoints
EncoderMethod = ProbeSpec | BaselineSpec | LoraSpec | FullSpec  # those that train on a base
OneMethod = LinearSpec | EncoderMethod

FOLDS = 5  # that the texts are divided into


class Candidate(Frozen):
    """A method to try, and on how many held-out folds: with more, what is said of it is surer."""

    method: Annotated[OneMethod, Field(discriminator="type")]
    folds: Int = Field(default=FOLDS, ge=1, le=FOLDS)
    repeats: Int = Field(default=1, ge=1, le=10)  # each divides the texts anew

    @property
    def fits(self) -> int:
        return self.folds * self.repeats


def named(method: OneMethod) -> str:
    """A method and its main settings in a few words, such as "probe C 3, balanced"."""
    match method:
        case LinearSpec() | ProbeSpec():
            words = f"{method.type} C {method.C:g}"
            return f"{words}, {method.class_weight}" if method.class_weight else words
        case LoraSpec():
            return f"{method.variant} r {method.r} \N{GREEK SMALL LETTER ALPHA} {method.alpha:g}"
        case _:
            return method.type


class AutoSpec(Frozen):
    """Whatever does best in cross-validation: a linear model, a probe, or LoRA.

    The best one is then trained on all texts that are not for testing.
    """

    type: Literal["auto"] = "auto"
    time_budget: Int = Field(default=900, ge=1, le=604_800)  # seconds, about, for all of it
    # None: as many as the budget allows, fixed when the job is created.
    candidates: tuple[Candidate, ...] | None = Field(default=None, min_length=1, max_length=100)


MethodName = Literal["auto", "linear", "probe", "baseline", "lora", "full"]
MethodSpec = Annotated[AutoSpec | OneMethod, Field(discriminator="type")]
