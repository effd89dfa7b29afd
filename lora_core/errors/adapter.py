"""Errors of importing an adapter that another program trained."""

from lora_core.errors import LoraCoreError


class AdapterError(LoraCoreError):
    """The adapter cannot be imported."""


class AdapterNotFound(AdapterError):
    """PEFT adapter not found or not readable."""

    code = "adapter_not_found"
    message = "{path} is not a readable PEFT adapter: {problem}."


class UnsupportedAdapterSetting(AdapterError):
    """Unsupported PEFT setting."""

    code = "adapter_setting_unsupported"
    message = "adapter_config.json has {key} = {value}, which is not supported: {problem}."


class AdapterBaseUnknown(AdapterError):
    """The adapter does not name its base model."""

    code = "adapter_base_unknown"
    message = "adapter_config.json has no base_model_name_or_path. Pass the base model with --base."


class AdapterTensorMismatch(AdapterError):
    """The adapter's tensors do not match its config and base model."""

    code = "adapter_tensors"
    message = "Tensors of the adapter are {problem}: {names}."


class AdapterShapeMismatch(AdapterError):
    """A tensor of the adapter has the wrong shape."""

    code = "adapter_shape"
    message = "{tensor} has shape {found}; the config and the base model require {expected}."


class AdapterNotFinite(AdapterError):
    """The adapter contains NaN or infinite values."""

    code = "adapter_not_finite"
    message = "{tensor} contains NaN or infinite values. Train the adapter again."


class AdapterLabelMismatch(AdapterError):
    """The number of label names does not match the classification head."""

    code = "adapter_labels"
    message = "{given} label names were given, but the classification head has {count} labels."
