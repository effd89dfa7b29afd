"""Causes of a run whose description does not fit the base model."""

from lora_core.errors import LoraCoreError


class SpecError(LoraCoreError):
    """The description of the run does not fit the base model."""


class InvalidSpec(SpecError):
    """The file is not a description of a run."""

    code = "invalid_spec"
    message = "{path} is not a valid run description: {problem}."


class RoleNotFound(SpecError):
    """A role names no module of this encoder."""

    code = "role_not_found"
    message = "No module of {encoder} has the role {role!r}. Roles it has: {available}."


class RankTooLarge(SpecError):
    """A low rank that is not low."""

    code = "rank_too_large"
    message = (
        "Rank {r} is too large for {module} ({d_in} x {d_out}): "
        "use a rank of at most {limit}, the smaller side."
    )


class LayerOutOfRange(SpecError):
    """A block number that the encoder does not have."""

    code = "layer_out_of_range"
    message = "There is no layer {layer}: this encoder has {count} layers, numbered 0 to {last}."


class LengthTooLarge(SpecError):
    """More tokens than the encoder has positions."""

    code = "length_too_large"
    message = "max_length {max_length} is more than the {limit} positions of this encoder."


class PoolingFixed(SpecError):
    """Another pooling than the one that the base was trained with."""

    code = "pooling_fixed"
    message = (
        "{base!r} was trained with mean pooling, which is part of it: leave pooling out, or train "
        "on the base that it was made from."
    )


class NoPartialRun(SpecError):
    """A part of a run of a method that has no steps."""

    code = "no_partial_run"
    message = (
        "{method} is fitted as a whole, so there is no part of a run to compare. "
        "Search with the strategy grid, random or tpe."
    )


class DeviceMissing(SpecError):
    """The device is not on this machine."""

    code = "device_missing"
    message = "Device {device!r} is not available here. Available: {available}."


class TooFewDevices(SpecError):
    """More processes than GPUs for them."""

    code = "too_few_devices"
    message = (
        "{processes} processes need a GPU each, and device {device!r} means {count} here: start "
        "fewer, or train on 'cpu'."
    )


class PrecisionUnsupported(SpecError):
    """The device cannot compute in the precision that was asked for."""

    code = "precision_unsupported"
    message = "{device} has no fast {precision}; use precision 'auto' or 'fp32'."
