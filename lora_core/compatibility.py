"""Check whether a spec is compatible with a base, and count the parameters that it trains.

Both need only `config.json`, not torch.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lora_core.encoders import get_family
from lora_core.encoders.families import (
    FULL_ATTENTION,
    MAX_SQUARE_WINDOWS,
    ConfigSizeField,
    EncoderFamily,
    FastPathFamily,
)
from lora_core.errors.base_model import ConfigKeyIgnored, UnreadableBase
from lora_core.errors.spec import (
    LayerOutOfRange,
    LayerRoleNotFound,
    MaxLengthTooLarge,
    MeanPoolingBuiltIn,
    PartialRunUnsupported,
    PoolingUnsupported,
    RankTooLarge,
    SelectByUnsupported,
)
from lora_core.specs.data import MAX_LENGTH
from lora_core.specs.method import (
    SKLEARN_METHODS,
    EncoderMethod,
    FullFineTuningSpec,
    HeadMode,
    LastLayersBaselineSpec,
    LayerRole,
    LoraSpec,
    ProbeSpec,
)
from lora_core.specs.pooling import POOLING_BLOCK_KEY, Pooling
from lora_core.specs.train import SELECT_BY_CHOICES, TrainSpec

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
    attention_bias: bool = True
    feed_forward_bias: bool = True
    norm_bias: bool = True
    head_bias: bool = True  # of the layers before the last
    # 0: the same as the size that is usual.
    depth: int = 0  # how many blocks a text passes through; ALBERT runs one block many times
    key_value_heads: int = 0
    head_width: int = 0
    inner_width: int = 0  # of the layers inside a block
    window: int = 0  # tokens that a token sees of a text in each of `local_blocks`
    local_blocks: int = 0
    pooling: Pooling = Pooling.CLS

    @property
    def mean_pooling_blocks(self) -> int:
        """The number of blocks that average: 1 if the head reads the mean and the config cannot say
        so."""
        return int(self.pooling is Pooling.MEAN and self.family.pooling_key is None)

    @property
    def parameters_per_norm(self) -> int:
        """The number of parameters of one layer norm."""
        return self.width * (1 + self.norm_bias)

    @cached_property
    def parameters_per_block(self) -> int:
        """The number of parameters of one transformer block."""
        parameters = 2 * self.parameters_per_norm
        for name, dims in self.linear_dims_by_path(self.family.roles).items():
            in_feed_forward = name in self.family.roles[LayerRole.MLP]
            bias = self.feed_forward_bias if in_feed_forward else self.attention_bias
            parameters += _linear_parameters(*dims, bias=bias)
        return parameters

    def last_blocks_parameters(self, count: int) -> int:
        """Return the number of parameters of the last `count` pretrained blocks.

        Where norms come first, the norm of the embeddings takes the place of the first.
        """
        without = self.family.final_norm is not None and count == self.layers
        return count * self.parameters_per_block - without * self.parameters_per_norm

    @cached_property
    def block_multiplications(self) -> int:
        """The number of multiplications of one token by the weights of one block."""
        return sum(
            d_in * d_out for d_in, d_out in self.linear_dims_by_path(self.family.roles).values()
        )

    @property
    def embedding_parameters(self) -> int:
        """The number of parameters before the first block."""
        width = self.embedding_width or self.width
        projection = 0 if width == self.width else _linear_parameters(width, self.width)
        positions = self.positions if self.family.learned_positions else 0
        return (
            self.vocabulary + positions + self.segments + 1 + self.norm_bias
        ) * width + projection

    @property
    def block_passes(self) -> int:
        """The number of blocks that a text passes through."""
        return self.depth or self.layers

    @property
    def counts_are_exact(self) -> bool:
        """Whether `count_parameters` is exact: of general families it leaves out small tensors."""
        return isinstance(self.family, FastPathFamily)

    @property
    def max_tokens(self) -> int:
        """The length of the longest possible text."""
        return self.positions - (self.padding + 1)

    def resolve_max_length(self, requested: int | None) -> int:
        """Return the number of tokens that texts are truncated to: as requested, or the default."""
        return requested or min(MAX_LENGTH, self.max_tokens)

    def attended_tokens_in_all_blocks(self, length: float) -> float:
        """Return for how many tokens a token's attention is computed, summed over the blocks.

        As in `encoders.local_attention`: texts of many windows are cut into chunks, whose tokens
        attend to three of them.
        """
        reach = self.window // 2  # to each side
        local = 3 * reach if length > MAX_SQUARE_WINDOWS * reach else length
        return (self.block_passes - self.local_blocks) * length + self.local_blocks * local

    def head_linear_dims(self, n_labels: int) -> tuple[tuple[int, int], ...]:
        """Return (d_in, d_out) of the linear layers after the last block."""
        return (*[(self.width, self.width)] * (len(self.family.head) - 1), (self.width, n_labels))

    def head_parameters(self, n_labels: int) -> int:
        """Return the number of parameters after the encoder."""
        *others, last = self.head_linear_dims(n_labels)
        linears = sum(_linear_parameters(*dims, bias=self.head_bias) for dims in others)
        norm = self.parameters_per_norm if self.family.head_norm is not None else 0
        return linears + norm + _linear_parameters(*last)

    def linear_dims_by_path(self, roles: Collection[LayerRole]) -> dict[str, tuple[int, int]]:
        """Return (d_in, d_out) of the layers with these roles in one block, by path.

        Raises `LayerRoleNotFound`.
        """
        return {
            name: (d_in, d_out)
            for role in roles
            for name, d_in, d_out in self.linear_dims_with_role(role)
        }

    def linear_dims_with_role(self, role: LayerRole) -> Iterator[tuple[str, int, int]]:
        """Yield (name, d_in, d_out) of each layer with this role in one block.

        Raises `LayerRoleNotFound`.
        """
        roles = self.family.roles
        if role not in roles:
            available = ", ".join(roles)
            raise LayerRoleNotFound(
                role=str(role), encoder=self.family.model_type, available=available
            )
        d, f = self.width, self.feed_forward
        inner = self.inner_width or d
        head_width = self.head_width or inner // self.heads
        query, key = self.heads * head_width, (self.key_value_heads or self.heads) * head_width
        fused = sum(roles[other] == roles[role] for other in roles)  # roles with this layer
        up = (inner, f + f * self.family.gated)
        networks = self.family.feed_forward_networks
        count = len(roles[role])
        dims = {
            LayerRole.QUERY: [(inner, fused * query)] * count,
            LayerRole.KEY: [(inner, fused * key)] * count,
            LayerRole.VALUE: [(d, fused * key)] * count,
            LayerRole.PROJECTION: [(query, inner)],
            LayerRole.MLP: ([up] * (count // networks - 1) + [(f, inner)]) * networks,
        }
        for name, (d_in, d_out) in zip(roles[role], dims[role], strict=True):
            yield name, d_in, d_out


def read_encoder_shape(
    config: Mapping[str, Any], *, base: str, pooling: Pooling = Pooling.AUTO
) -> EncoderShape:
    """Read the sizes in the config of the base with the name `base`.

    Raises `UnsupportedEncoder`, `UnreadableBase`, `ConfigKeyIgnored`, `MeanPoolingBuiltIn`,
    `PoolingUnsupported`.
    """
    family = get_family(config, base=base)
    sizes = {name: _read_size(config, field, base) for name, field in family.sizes.items()}
    if not family.learned_positions:
        _check_rotations(config, base)
    biases = {name: config.get(flag.name, flag.default) for name, flag in family.biases.items()}
    if invalid := [name for name, value in biases.items() if type(value) is not bool]:
        key = family.biases[invalid[0]].name
        raise UnreadableBase(base=base, reason=f"{key} in config.json is not true or false")
    if not isinstance(family, FastPathFamily):
        _check_general(config, family, sizes, base, pooling)
        pooling = Pooling.CLS
    has_mean_pooling_block = config.get(POOLING_BLOCK_KEY) is True
    if has_mean_pooling_block and pooling is Pooling.CLS:
        raise MeanPoolingBuiltIn(base=base)
    if pooling is Pooling.AUTO:
        declared = config.get("pooling", config.get(family.pooling_key or "pooling"))
        mean = has_mean_pooling_block or declared == Pooling.MEAN
        pooling = Pooling.MEAN if mean else Pooling.CLS
    sizes["layers"] -= has_mean_pooling_block
    if "window" in sizes:
        sizes["local_blocks"] = _count_local_blocks(config, sizes["layers"], base)
    shape = EncoderShape(family=family, pooling=pooling, **sizes, **biases)  # type: ignore[arg-type]
    if shape.width % shape.heads:
        reason = f"width {shape.width} is not divisible by {shape.heads} heads"
        raise UnreadableBase(base=base, reason=reason)
    if shape.layers < 1:
        raise UnreadableBase(base=base, reason="its config has no block besides the pooling block")
    if shape.max_tokens < 1:
        raise UnreadableBase(base=base, reason="its config has no position for a text")
    return shape


def ignores_declared_mean(config: Mapping[str, Any], shape: EncoderShape, pooling: Pooling) -> bool:
    """Return whether a sentence encoder declares mean pooling that its family cannot have.

    Not if somebody chose another `pooling`.
    """
    declared = pooling is Pooling.AUTO and config.get("pooling") == Pooling.MEAN
    return declared and shape.pooling is not Pooling.MEAN


def _count_local_blocks(config: Mapping[str, Any], layers: int, base: str) -> int:
    """Return the number of blocks with attention in a window, as ModernBERT's config says it.

    Raises `UnreadableBase`.
    """
    if isinstance(types := config.get("layer_types"), list):
        return sum(each != FULL_ATTENTION for each in types[:layers])
    distance = _read_size(config, ConfigSizeField(("global_attn_every_n_layers",), 3), base)
    return sum(bool(i % distance) for i in range(layers))


def _read_size(config: Mapping[str, Any], field: ConfigSizeField, base: str) -> int:
    """Return a size. Raises `UnreadableBase`."""
    key = next((key for key in field.names if key in config), field.names[0])
    size = config.get(key, field.default)
    if size is None and field.default == 0:  # it is derived from the others
        return 0
    if type(size) is not int or not field.minimum <= size <= _MAX_SIZE:
        raise UnreadableBase(
            base=base, reason=f"{key} in config.json is not a valid size: {str(size)[:32]}"
        )
    return size


def _check_rotations(config: Mapping[str, Any], base: str) -> None:
    """Refuse rotations whose angles depend on the length of the text: texts of a batch share
    them."""
    by_type = config.get("rope_parameters")
    settings = [config.get("rope_scaling"), by_type]
    settings += by_type.values() if isinstance(by_type, Mapping) else []
    for each in settings:
        kind = isinstance(each, Mapping) and (each.get("rope_type") or each.get("type"))
        if kind in ("dynamic", "longrope"):
            reason = f"its rotary positions depend on the length of a text (rope_type {kind!r})"
            raise UnreadableBase(base=base, reason=reason)


# Names of sizes in other formats -> ours
_OTHER_SIZE_KEYS = {
    "n_embd": "width", "d_model": "width", "dim": "width",
    "n_layer": "layers", "n_layers": "layers", "num_layers": "layers",
    "n_head": "heads", "n_heads": "heads", "num_heads": "heads",
    "n_inner": "feed_forward", "d_ff": "feed_forward", "ffn_dim": "feed_forward",
    "n_positions": "positions", "n_ctx": "positions",
}  # fmt: skip


def _check_general(
    config: Mapping[str, Any],
    family: EncoderFamily,
    sizes: Mapping[str, int],
    base: str,
    pooling: Pooling,
) -> None:
    """Refuse what would be a different model in transformers, or cannot be had from it."""
    for each in family.required:
        if (value := config.get(each.name, each.default)) != each.value:
            found = f"{each.name} in config.json is {str(value)[:32]!r}"
            raise UnreadableBase(base=base, reason=f"{found}; only {each.value!r} is supported")
    for key, name in _OTHER_SIZE_KEYS.items():
        if (value := config.get(key)) is not None and value != sizes[name]:
            raise ConfigKeyIgnored(
                base=base, key=key, value=str(value)[:32], model_type=family.model_type
            )
    if pooling is Pooling.MEAN:
        raise PoolingUnsupported(encoder=family.model_type)


def check_compatibility(shape: EncoderShape, spec: TrainSpec) -> None:
    """Reject a spec that could never run on this base.

    Raises `MaxLengthTooLarge`, `LayerOutOfRange`, `LayerRoleNotFound`, `LayerRolesFused`,
    `RankTooLarge`, `PartialRunUnsupported`, `SelectByUnsupported`.
    """
    check_method_supports_partial_run(spec)
    _check_selects_by_metric_of_task(spec)
    max_length = spec.data.max_length
    if max_length is not None and max_length > shape.max_tokens:
        raise MaxLengthTooLarge(max_length=max_length, limit=shape.max_tokens)
    match spec.method:
        case LastLayersBaselineSpec(blocks=blocks) if blocks > shape.layers:
            raise LayerOutOfRange(layer=blocks - 1, count=shape.layers, last=shape.layers - 1)
        case LoraSpec() as lora:
            _check_lora(shape, lora)


def check_method_supports_partial_run(spec: TrainSpec) -> None:
    """Reject a partial run of a method without steps. Raises `PartialRunUnsupported`."""
    if spec.trial is not None and spec.method.type in {"auto", *SKLEARN_METHODS}:
        raise PartialRunUnsupported(method=spec.method.type)


def _check_selects_by_metric_of_task(spec: TrainSpec) -> None:
    # Not when the spec is parsed: a service learns a task that is left out from the dataset.
    select_by, choices = spec.stop.select_by, SELECT_BY_CHOICES[spec.task.type]
    if select_by is not None and select_by not in choices:
        raise SelectByUnsupported(
            select_by=select_by.value, task=spec.task.type, available=", ".join(choices)
        )


def _check_lora(shape: EncoderShape, lora: LoraSpec) -> None:
    for layer in lora.layers or ():
        if layer >= shape.layers:
            raise LayerOutOfRange(layer=layer, count=shape.layers, last=shape.layers - 1)
    shape.family.check_fused_roles(lora.targets)
    for name, (d_in, d_out) in shape.linear_dims_by_path(lora.targets).items():
        if lora.r > min(d_in, d_out):
            raise RankTooLarge(
                r=lora.r, module=name, d_in=d_in, d_out=d_out, limit=min(d_in, d_out)
            )


def count_parameters(shape: EncoderShape, method: EncoderMethod, n_labels: int) -> ParameterCounts:
    """Return the counts for a base with a head for `n_labels` labels: `counts_are_exact`.

    With `head: lora`, the rank of a head layer is at most its smaller side: a higher rank adds
    nothing to a layer with n_labels outputs. Raises `LayerRoleNotFound`.
    """
    head = shape.head_parameters(n_labels)
    pooling_block = shape.mean_pooling_blocks * shape.parameters_per_block
    base = shape.embedding_parameters + shape.last_blocks_parameters(shape.layers) + head
    base += pooling_block + (shape.family.final_norm is not None) * shape.parameters_per_norm
    match method:
        case ProbeSpec():
            return ParameterCounts(
                trainable=_linear_parameters(*shape.head_linear_dims(n_labels)[-1]), total=base
            )
        case LastLayersBaselineSpec(blocks=blocks):
            return ParameterCounts(
                trainable=head + shape.last_blocks_parameters(blocks), total=base
            )
        case FullFineTuningSpec():
            return ParameterCounts(trainable=base - pooling_block, total=base)
        case LoraSpec():
            adapters = [
                (count, _adapter_parameters(method, *dims))
                for dims, count in count_adapted_layers_by_dims(shape, method, n_labels).items()
            ]
            return ParameterCounts(
                trainable=sum(count * each.trainable for count, each in adapters)
                + (head if method.head is HeadMode.TRAIN else 0),
                total=base + sum(count * each.total for count, each in adapters),
            )


def count_adapted_layers_by_dims(
    shape: EncoderShape, lora: LoraSpec, n_labels: int
) -> Counter[tuple[int, int]]:
    """Return the number of layers that get an adapter, by (d_in, d_out)."""
    blocks = shape.layers if lora.layers is None else len(lora.layers)
    layers = Counter([*shape.linear_dims_by_path(lora.targets).values()] * blocks)
    if lora.head is HeadMode.LORA:
        layers.update(shape.head_linear_dims(n_labels))
    return layers


def _linear_parameters(d_in: int, d_out: int, *, bias: bool = True) -> int:
    return d_in * d_out + d_out * bias


def _adapter_parameters(lora: LoraSpec, d_in: int, d_out: int) -> ParameterCounts:
    r, trained = min(lora.r, d_in, d_out), lora.variant.trained_parameter_names
    sizes = {"A": r * d_in, "B": d_out * r, "magnitude": d_out}
    return ParameterCounts(
        trainable=sum(sizes[part] for part in trained),
        total=sum(sizes[part] for part in trained | {"A", "B"}),
    )
