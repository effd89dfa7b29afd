"""Causes of an adapter of another program that cannot be taken in."""

from lora_core.errors import LoraCoreError


class AdapterError(LoraCoreError):
    """An adapter of another program cannot be taken in."""


class AdapterNotFound(AdapterError):
    """Not the directory of a PEFT adapter."""

    code = "adapter_not_found"
    message = "{path} is no PEFT adapter that can be read: {problem}."


class AdapterSetting(AdapterError):
    """A setting of PEFT whose meaning cannot be kept."""

    code = "adapter_setting_unsupported"
    message = "adapter_config.json has {key} = {value}, which is not possible here: {problem}."


class AdapterBaseUnknown(AdapterError):
    """An adapter that does not say what it was trained on."""

    code = "adapter_base_unknown"
    message = "adapter_config.json names no base_model_name_or_path. Name the base with --base."


class AdapterTensors(AdapterError):
    """Tensors that the config or the base does not account for, or too few of them."""

    code = "adapter_tensors"
    message = "Tensors of the adapter are {problem}: {names}."


class AdapterShape(AdapterError):
    """A tensor of a shape that does not fit."""

    code = "adapter_shape"
    message = "{tensor} has the shape {found}; the config and the base ask for {expected}."


class AdapterNotFinite(AdapterError):
    """A tensor with a number that is none."""

    code = "adapter_not_finite"
    message = "{tensor} holds numbers that are not finite. Train the adapter again."


class AdapterLabels(AdapterError):
    """Another number of labels than the head has."""

    code = "adapter_labels"
    message = "There are names for {given} labels, and the head answers {count}."
