"""Check whether a spec is compatible with a base, and count the parameters that it trains.

Both need only `config.json`, not torch.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lora_core.encoders import get_family
from lora_core.encoders.families import EncoderFamily
from lora_core.errors.base_model import UnreadableBase
from lora_core.errors.spec import (
    LayerOutOfRange,
    MaxLengthTooLarge,
    MethodWithoutSteps,
    PoolingNotChangeable,
    RankTooLarge,
    RoleNotFound,
)
from lora_core.specs.data import MAX_LENGTH
from lora_core.specs.method import (
    SKLEARN_METHODS,
    BaselineSpec,
    EncoderMethod,
    FullSpec,
    HeadMode,
    LoraSpec,
    ProbeSpec,
    Role,
)
from lora_core.specs.pooling import POOLING_BLOCK_KEY, Pooling
from lora_core.specs.train import TrainSpec

_MAX_SIZE = 10_000_000  # no dimension of a real encoder is larger


@dataclass(frozen=True)
class ParameterCounts:
    """The number of parameters, adapters included, and the number of trainable ones."""

    trainable: int
    total: int


@dataclass(frozen=True)
class EncoderShape:
    """The sizes that determine every parameter of an encoder with a classification head."""

    family: EncoderFamily
    layers: int  # without a pooling block
    heads: int
    width: int
    feed_forward: int
    vocabulary: int
    positions: int
    segments: int = 0
    embedding_width: int = 0  # 0: that of the blocks; another one has a projection to it
    padding: int = -1  # position of padding, if there is one: texts start at the next position
    pooling: Pooling = Pooling.CLS

    @property
    def block_parameters(self) -> int:
        """The number of parameters of one transformer block."""
        d, f = self.width, self.feed_forward
        return (
            4 * _linear_parameters(d, d)
            + _linear_parameters(d, f)
            + _linear_parameters(f, d)
            + 4 * d
        )  # two layer norms: 4 d

    @property
    def embedding_parameters(self) -> int:
        width = self.embedding_width or self.width
        projection = 0 if width == self.width else _linear_parameters(width, self.width)
        return (self.vocabulary + self.positions + self.segments + 2) * width + projection

    @property
    def max_tokens(self) -> int:
        """The length of the longest possible text."""
        return self.positions - (self.padding + 1)

    def resolve_max_length(self, requested: int | None) -> int:
        """Return the number of tokens that texts are truncated to: as requested, or the default."""
        return requested or min(MAX_LENGTH, self.max_tokens)

    def head_layers(self, n_labels: int) -> tuple[tuple[int, int], ...]:
        """Return (d_in, d_out) of the linear layers after the last block."""
        return (self.width, self.width), (self.width, n_labels)

    def linear_layers(self, role: Role) -> Iterator[tuple[str, int, int]]:
        """Yield (name, d_in, d_out) of each layer with this role in one block.

        Raises `RoleNotFound`.
        """
        roles = self.family.roles
        if role not in roles:
            available = ", ".join(roles)
            raise RoleNotFound(role=str(role), encoder=self.family.model_type, available=available)
        d, f = self.width, self.feed_forward
        sizes = ((d, f), (f, d)) if role is Role.MLP else ((d, d),)
        for name, (d_in, d_out) in zip(roles[role], sizes, strict=True):
            yield name, d_in, d_out


def read_encoder_shape(
    config: Mapping[str, Any], *, base: str, pooling: Pooling = Pooling.AUTO
) -> EncoderShape:
    """Read the sizes in the config of the base with the name `base`.

    Raises `UnsupportedEncoder`, `UnreadableBase`, `PoolingNotChangeable`.
    """
    family = get_family(config, base=base)
    sizes: dict[str, int] = {}
    for name, field in family.sizes.items():
        key = next((key for key in field.names if key in config), field.names[0])
        size = config.get(key, field.default)
        if type(size) is not int or not field.minimum <= size <= _MAX_SIZE:
            raise UnreadableBase(
                base=base, reason=f"{key} in config.json is not a valid size: {str(size)[:32]}"
            )
        sizes[name] = size
    has_mean_pooling_block = config.get(POOLING_BLOCK_KEY) is True
    if has_mean_pooling_block and pooling is Pooling.CLS:
        raise PoolingNotChangeable(base=base)
    if pooling is Pooling.AUTO:
        mean = has_mean_pooling_block or config.get("pooling") == Pooling.MEAN
        pooling = Pooling.MEAN if mean else Pooling.CLS
    sizes["layers"] -= has_mean_pooling_block
    shape = EncoderShape(family=family, pooling=pooling, **sizes)
    if shape.width % shape.heads:
        reason = f"width {shape.width} is not divisible by {shape.heads} heads"
        raise UnreadableBase(base=base, reason=reason)
    if shape.layers < 1:
        raise UnreadableBase(base=base, reason="its config has no block besides the pooling block")
    if shape.max_tokens < 1:
        raise UnreadableBase(base=base, reason="its config has no position for a text")
    return shape


def check_compatibility(shape: EncoderShape, spec: TrainSpec) -> None:
    """Reject a spec that could never run on this base.

    Raises `MaxLengthTooLarge`, `LayerOutOfRange`, `RoleNotFound`, `RankTooLarge`,
    `MethodWithoutSteps`.
    """
    check_partial_run(spec)
    max_length = spec.data.max_length
    if max_length is not None and max_length > shape.max_tokens:
        raise MaxLengthTooLarge(max_length=max_length, limit=shape.max_tokens)
    match spec.method:
        case BaselineSpec(blocks=blocks) if blocks > shape.layers:
            raise LayerOutOfRange(layer=blocks - 1, count=shape.layers, last=shape.layers - 1)
        case LoraSpec() as lora:
            _check_lora(shape, lora)


def check_partial_run(spec: TrainSpec) -> None:
    """Reject a partial run of a method without steps. Raises `MethodWithoutSteps`."""
    if spec.trial is not None and spec.method.type in {"auto", *SKLEARN_METHODS}:
        raise MethodWithoutSteps(method=spec.method.type)


def _check_lora(shape: EncoderShape, lora: LoraSpec) -> None:
    for layer in lora.layers or ():
        if layer >= shape.layers:
            raise LayerOutOfRange(layer=layer, count=shape.layers, last=shape.layers - 1)
    for role in lora.targets:
        for name, d_in, d_out in shape.linear_layers(role):
            if lora.r > min(d_in, d_out):
                raise RankTooLarge(
                    r=lora.r, module=name, d_in=d_in, d_out=d_out, limit=min(d_in, d_out)
                )


def count_parameters(shape: EncoderShape, method: EncoderMethod, n_labels: int) -> ParameterCounts:
    """Return the exact counts for a base with a head for `n_labels` labels.

    With `head: lora`, the rank of a head layer is at most its smaller side: a higher rank adds
    nothing to a layer with n_labels outputs. Raises `RoleNotFound`.
    """
    head = sum(_linear_parameters(d_in, d_out) for d_in, d_out in shape.head_layers(n_labels))
    blocks = shape.layers + (shape.pooling is Pooling.MEAN)
    base = shape.embedding_parameters + blocks * shape.block_parameters + head
    match method:
        case ProbeSpec():
            return ParameterCounts(
                trainable=_linear_parameters(*shape.head_layers(n_labels)[-1]), total=base
            )
        case BaselineSpec(blocks=blocks):
            return ParameterCounts(trainable=head + blocks * shape.block_parameters, total=base)
        case FullSpec():
            pooling_block = shape.block_parameters * (shape.pooling is Pooling.MEAN)
            return ParameterCounts(trainable=base - pooling_block, total=base)
        case LoraSpec():
            adapters = [
                _adapter_parameters(method, *sides)
                for sides in adapted_layer_dims(shape, method, n_labels)
            ]
            return ParameterCounts(
                trainable=sum(each.trainable for each in adapters)
                + (head if method.head is HeadMode.TRAIN else 0),
                total=base + sum(each.total for each in adapters),
            )


def adapted_layer_dims(
    shape: EncoderShape, lora: LoraSpec, n_labels: int
) -> Iterator[tuple[int, int]]:
    """Yield (d_in, d_out) of every layer that gets an adapter."""
    for _ in range(shape.layers) if lora.layers is None else lora.layers:
        for role in lora.targets:
            for _, d_in, d_out in shape.linear_layers(role):
                yield d_in, d_out
    if lora.head is HeadMode.LORA:
        yield from shape.head_layers(n_labels)


def _linear_parameters(d_in: int, d_out: int) -> int:
    return d_in * d_out + d_out


def _adapter_parameters(lora: LoraSpec, d_in: int, d_out: int) -> ParameterCounts:
    r, trained = min(lora.r, d_in, d_out), lora.variant.trained_parameter_names
    sizes = {"A": r * d_in, "B": d_out * r, "magnitude": d_out}
    return ParameterCounts(
        trainable=sum(sizes[part] for part in trained),
        total=sum(sizes[part] for part in trained | {"A", "B"}),
    )
