"""Does a spec fit a base, and how many parameters would it train?

Answered from `config.json` alone, without torch.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lora_core.encoders import FAMILIES
from lora_core.errors.base import BrokenBase, UnsupportedEncoder
from lora_core.errors.spec import (
    LayerOutOfRange,
    LengthTooLarge,
    NoPartialRun,
    PoolingFixed,
    RankTooLarge,
    RoleNotFound,
)
from lora_core.specs.data import MAX_LENGTH
from lora_core.specs.method import (
    FITTED_AT_ONCE,
    BaselineSpec,
    EncoderMethod,
    FullSpec,
    Head,
    LoraSpec,
    ProbeSpec,
    Role,
)
from lora_core.specs.pooling import MARK, Pooling
from lora_core.specs.train import TrainSpec

_LARGEST = 10_000_000  # no side of a real encoder is longer


@dataclass(frozen=True)
class Census:
    """How many parameters there are, adapters included, and how many of them train."""

    trainable: int
    total: int


@dataclass(frozen=True)
class Shape:
    """The sizes that fix every parameter of an encoder with a classification head."""

    model_type: str
    layers: int  # without the one that averages
    heads: int
    width: int
    feed_forward: int
    vocabulary: int
    positions: int
    segments: int = 0
    padding: int = -1  # the position of padding, if it has one: that of a text begins after it
    pooling: Pooling = Pooling.CLS

    @property
    def block(self) -> int:
        """Parameters of one transformer block."""
        d, f = self.width, self.feed_forward
        return 4 * _linear(d, d) + _linear(d, f) + _linear(f, d) + 4 * d  # two layer norms: 4 d

    @property
    def embeddings(self) -> int:
        return (self.vocabulary + self.positions + self.segments + 2) * self.width

    @property
    def longest(self) -> int:
        """Tokens of the longest text."""
        return self.positions - (self.padding + 1)

    def max_length(self, asked: int | None) -> int:
        """Tokens at which a text is cut: as asked, else the usual ones or all positions."""
        return asked or min(MAX_LENGTH, self.longest)

    def head(self, n_labels: int) -> tuple[tuple[int, int], ...]:
        """(d_in, d_out) of the linear layers after the last block."""
        return (self.width, self.width), (self.width, n_labels)

    def linears(self, role: Role) -> Iterator[tuple[str, int, int]]:
        """(name, d_in, d_out) of the layers of one block with this role. Raises `RoleNotFound`."""
        roles = FAMILIES[self.model_type].roles
        if role not in roles:
            available = ", ".join(roles)
            raise RoleNotFound(role=str(role), encoder=self.model_type, available=available)
        d, f = self.width, self.feed_forward
        sizes = ((d, f), (f, d)) if role is Role.MLP else ((d, d),)
        for name, (d_in, d_out) in zip(roles[role], sizes, strict=True):
            yield name, d_in, d_out


def read_shape(config: Mapping[str, Any], *, base: str, pooling: Pooling = Pooling.AUTO) -> Shape:
    """The sizes in a config; `base` is its name, `pooling` what is wanted.

    Raises `UnsupportedEncoder`, `BrokenBase`, `PoolingFixed`.
    """
    model_type = str(config.get("model_type"))
    if model_type not in FAMILIES:
        raise UnsupportedEncoder(
            base=base, model_type=model_type[:64], supported=", ".join(FAMILIES)
        )
    sizes: dict[str, int] = {}
    for name, wanted in FAMILIES[model_type].sizes.items():
        key = next((key for key in wanted.names if key in config), wanted.names[0])
        size = config.get(key, wanted.default)
        if type(size) is not int or not wanted.least <= size <= _LARGEST:
            raise BrokenBase(base=base, reason=f"{key} in config.json is no size: {str(size)[:32]}")
        sizes[name] = size
    averages = config.get(MARK) is True
    if averages and pooling is Pooling.CLS:
        raise PoolingFixed(base=base)
    if pooling is Pooling.AUTO:
        says_mean = averages or config.get("pooling") == Pooling.MEAN
        pooling = Pooling.MEAN if says_mean else Pooling.CLS
    sizes["layers"] -= averages
    shape = Shape(model_type=model_type, pooling=pooling, **sizes)
    if shape.width % shape.heads:
        reason = f"width {shape.width} cannot be divided among {shape.heads} heads"
        raise BrokenBase(base=base, reason=reason)
    if shape.layers < 1:
        raise BrokenBase(
            base=base, reason="its config leaves no block beside the one that averages"
        )
    if shape.longest < 1:
        raise BrokenBase(base=base, reason="its config leaves no position for a text")
    return shape


def check(shape: Shape, spec: TrainSpec) -> None:
    """Refuse what could never run.

    Raises `LengthTooLarge`, `LayerOutOfRange`, `RoleNotFound`, `RankTooLarge`, `NoPartialRun`.
    """
    check_steps(spec)
    max_length = spec.data.max_length
    if max_length is not None and max_length > shape.longest:
        raise LengthTooLarge(max_length=max_length, limit=shape.longest)
    match spec.method:
        case BaselineSpec(blocks=blocks) if blocks > shape.layers:
            raise LayerOutOfRange(layer=blocks - 1, count=shape.layers, last=shape.layers - 1)
        case LoraSpec() as lora:
            _check_lora(shape, lora)


def check_steps(spec: TrainSpec) -> None:
    """Refuse a part of a run whose method has no steps. Raises `NoPartialRun`."""
    if spec.trial is not None and spec.method.type in {"auto", *FITTED_AT_ONCE}:
        raise NoPartialRun(method=spec.method.type)


def _check_lora(shape: Shape, lora: LoraSpec) -> None:
    for layer in lora.layers or ():
        if layer >= shape.layers:
            raise LayerOutOfRange(layer=layer, count=shape.layers, last=shape.layers - 1)
    for role in lora.targets:
        for name, d_in, d_out in shape.linears(role):
            if lora.r > min(d_in, d_out):
                raise RankTooLarge(
                    r=lora.r, module=name, d_in=d_in, d_out=d_out, limit=min(d_in, d_out)
                )


def census(shape: Shape, method: EncoderMethod, n_labels: int) -> Census:
    """The exact counts for a base with a head for `n_labels` labels.

    With `head: lora` the rank of a head layer is at most its smaller side: a layer of n_labels
    outputs can express nothing more. Raises `RoleNotFound`.
    """
    head = sum(_linear(d_in, d_out) for d_in, d_out in shape.head(n_labels))
    blocks = shape.layers + (shape.pooling is Pooling.MEAN)
    base = shape.embeddings + blocks * shape.block + head
    match method:
        case ProbeSpec():
            return Census(trainable=_linear(*shape.head(n_labels)[-1]), total=base)
        case BaselineSpec(blocks=blocks):
            return Census(trainable=head + blocks * shape.block, total=base)
        case FullSpec():
            averaging = shape.block * (shape.pooling is Pooling.MEAN)
            return Census(trainable=base - averaging, total=base)
        case LoraSpec():
            adapters = [_adapter(method, *sides) for sides in adapted(shape, method, n_labels)]
            return Census(
                trainable=sum(each.trainable for each in adapters)
                + (head if method.head is Head.TRAIN else 0),
                total=base + sum(each.total for each in adapters),
            )


def adapted(shape: Shape, lora: LoraSpec, n_labels: int) -> Iterator[tuple[int, int]]:
    """(d_in, d_out) of every layer that gets an adapter."""
    for _ in range(shape.layers) if lora.layers is None else lora.layers:
        for role in lora.targets:
            for _, d_in, d_out in shape.linears(role):
                yield d_in, d_out
    if lora.head is Head.LORA:
        yield from shape.head(n_labels)


def _linear(d_in: int, d_out: int) -> int:
    return d_in * d_out + d_out


def _adapter(lora: LoraSpec, d_in: int, d_out: int) -> Census:
    r, trained = min(lora.r, d_in, d_out), lora.variant.trained
    sizes = {"A": r * d_in, "B": d_out * r, "magnitude": d_out}
    return Census(
        trainable=sum(sizes[part] for part in trained),
        total=sum(sizes[part] for part in trained | {"A", "B"}),
    )
