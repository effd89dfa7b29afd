"""Errors of a run description that does not fit the base model or the host."""

from lora_core.errors import LoraCoreError


class SpecError(LoraCoreError):
    """The run description does not fit the base model or the host."""


class InvalidSpec(SpecError):
    """Invalid run description."""

    code = "invalid_spec"
    message = "{path} is not a valid run description: {problem}."


class RoleNotFound(SpecError):
    """The encoder has no module with this role."""

    code = "role_not_found"
    message = "No module of {encoder} has the role {role!r}. Available roles: {available}."


class RankTooLarge(SpecError):
    """The LoRA rank is too large for a layer."""

    code = "rank_too_large"
    message = (
        "Rank {r} is too large for {module} ({d_in} x {d_out}): "
        "use a rank of at most {limit}, the smaller side."
    )


class LayerOutOfRange(SpecError):
    """The encoder does not have this layer."""

    code = "layer_out_of_range"
    message = "Layer {layer} does not exist: this encoder has {count} layers, numbered 0 to {last}."


class MaxLengthTooLarge(SpecError):
    """max_length exceeds the positions of the encoder."""

    code = "length_too_large"
    message = "max_length {max_length} exceeds the {limit} positions of this encoder."


class PoolingNotChangeable(SpecError):
    """The pooling of this base model cannot be changed."""

    code = "pooling_fixed"
    message = (
        "{base!r} has mean pooling built in. Omit pooling, or train on the base model that it was "
        "derived from."
    )


class MethodWithoutSteps(SpecError):
    """The method has no training steps to budget."""

    code = "no_partial_run"
    message = (
        "{method} is fitted in one go, so its runs cannot be compared on a share of their steps. "
        "Use the search strategy grid, random or tpe."
    )


class DeviceUnavailable(SpecError):
    """The device is not available on this host."""

    code = "device_missing"
    message = "Device {device!r} is not available here. Available: {available}."


class TooFewDevices(SpecError):
    """There are fewer GPUs than processes."""

    code = "too_few_devices"
    message = (
        "{processes} processes need one GPU each, but device {device!r} provides {count}. Start "
        "fewer processes, or train on 'cpu'."
    )


class PrecisionUnsupported(SpecError):
    """The device does not support the requested precision."""

    code = "precision_unsupported"
    message = "{device} has no fast {precision}; use precision 'auto' or 'fp32'."
