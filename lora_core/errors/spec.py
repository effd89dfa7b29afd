"""Errors of a run description that does not fit the base model or the host."""

from lora_core.errors import LoraCoreError


class SpecError(LoraCoreError):
    """The run description does not fit the base model or the host."""


class InvalidSpec(SpecError):
    code = "invalid_spec"
    title = "Invalid run description."
    message = "{path} is not a valid run description: {problem}."


class LayerRoleNotFound(SpecError):
    code = "role_not_found"
    title = "The encoder has no module with this role."
    message = "No module of {encoder} has the role {role!r}. Available roles: {available}."


class LayerRolesFused(SpecError):
    code = "roles_fused"
    title = "Several roles are one layer in this encoder."
    message = (
        "In {encoder}, the roles {roles} are one layer, {module}, and an adapter is on all of it. "
        "Adapt all of these roles or none: add {missing}, or leave out {given}."
    )


class RankTooLarge(SpecError):
    code = "rank_too_large"
    title = "The LoRA rank is too large for a layer."
    message = (
        "Rank {r} is too large for {module} ({d_in} x {d_out}): "
        "use a rank of at most {limit}, the smaller side."
    )


class LayerOutOfRange(SpecError):
    code = "layer_out_of_range"
    title = "The encoder does not have this layer."
    message = "Layer {layer} does not exist: this encoder has {count} layers, numbered 0 to {last}."


class MaxLengthTooLarge(SpecError):
    code = "length_too_large"
    title = "max_length exceeds the positions of the encoder."
    message = "max_length {max_length} exceeds the {limit} positions of this encoder."


class PairsInWindowsUnsupported(SpecError):
    code = "windows_of_pairs"
    title = "Pairs of texts cannot be read in windows."
    message = (
        "Pairs of texts are read as a whole, so long_texts cannot be 'windows'. Omit it: of a pair "
        "that is too long, the longer text is truncated first."
    )


class MeanPoolingBuiltIn(SpecError):
    code = "pooling_fixed"
    title = "The pooling of this base model cannot be changed."
    message = (
        "{base!r} has mean pooling built in. Omit pooling, or train on the base model that it was "
        "derived from."
    )


class PoolingUnsupported(SpecError):
    code = "pooling_unsupported"
    title = "The encoder does not support mean pooling."
    message = (
        "{encoder} runs in transformers' own class, which decides what its head reads. Omit "
        "pooling; some configs select it by `classifier_pooling`."
    )


class PartialRunUnsupported(SpecError):
    code = "no_partial_run"
    title = "The method has no training steps to budget."
    message = (
        "{method} is fitted in one go, so its runs cannot be compared on a share of their steps. "
        "Use the search strategy grid, random or tpe."
    )


class SelectByUnsupported(SpecError):
    code = "select_by_unsupported"
    title = "The task has no such metric to select a checkpoint by."
    message = (
        "stop.select_by {select_by!r} is not possible with a {task} task. Use one of {available}, "
        "or omit it."
    )


class DeviceUnavailable(SpecError):
    code = "device_missing"
    title = "The device is not available on this host."
    message = "Device {device!r} is not available here. Available: {available}."


class TooFewDevices(SpecError):
    code = "too_few_devices"
    title = "There are fewer GPUs than processes."
    message = (
        "{processes} processes need one GPU each, but device {device!r} provides {count}. Start "
        "fewer processes, or train on 'cpu'."
    )


class PrecisionUnsupported(SpecError):
    code = "precision_unsupported"
    title = "The device does not support the requested precision."
    message = "{device} has no fast {precision}; use precision 'auto' or 'fp32'."
