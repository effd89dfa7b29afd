"""Errors of importing an adapter that another program trained."""

from lora_core.errors import LoraCoreError


class AdapterError(LoraCoreError):
    """The adapter cannot be imported."""


class AdapterNotFound(AdapterError):
    code = "adapter_not_found"
    title = "PEFT adapter not found or not readable."
    message = "{path} is not a readable PEFT adapter: {problem}."


class UnsupportedAdapterSetting(AdapterError):
    code = "adapter_setting_unsupported"
    title = "Unsupported PEFT setting."
    message = "adapter_config.json has {key} = {value}, which is not supported: {problem}."


class AdapterBaseNotNamed(AdapterError):
    code = "adapter_base_unknown"
    title = "The adapter does not name its base model."
    message = "adapter_config.json has no base_model_name_or_path. Pass the base model with --base."


class AdapterTensorNamesMismatch(AdapterError):
    code = "adapter_tensors"
    title = "The adapter's tensors do not match its config and base model."
    message = "Tensors of the adapter are {problem}: {names}."


class AdapterShapeMismatch(AdapterError):
    code = "adapter_shape"
    title = "A tensor of the adapter has the wrong shape."
    message = "{tensor} has shape {found}; the config and the base model require {expected}."


class AdapterNotFinite(AdapterError):
    code = "adapter_not_finite"
    title = "The adapter contains NaN or infinite values."
    message = "{tensor} contains NaN or infinite values. Train the adapter again."


class AdapterLabelCountMismatch(AdapterError):
    code = "adapter_labels"
    title = "The number of label names does not match the classification head."
    message = "{given} label names were given, but the classification head has {count} labels."
