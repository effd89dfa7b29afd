"""Causes of a model that cannot be written in the format of another program."""

from lora_core.errors import LoraCoreError


class ExportError(LoraCoreError):
    """A model cannot be written in the format of another program."""


class OutExists(ExportError):
    """The folder to write is there already."""

    code = "out_exists"
    message = "{path} is there already and not an empty folder; name a new one."


class NoEncoder(ExportError):
    """A linear model in a format for encoders."""

    code = "no_encoder"
    message = (
        "{path} is a linear model: it has no encoder, and so no form for {program}. Its files "
        "linear.json and linear.safetensors hold the parameters of scikit-learn."
    )


class NoAdapter(ExportError):
    """A model without an adapter of its own."""

    code = "no_adapter"
    message = (
        "{path} holds no adapter: its method was {method!r}. Export the merged model instead "
        "(format transformers)."
    )


class BaseDiffers(ExportError):
    """Another base than the one that the adapter was trained on."""

    code = "base_differs"
    message = (
        "With {base!r} under it the adapter gives other answers than the model: logits differ by "
        "{difference:.2e}. Say with --base where the base lies that it was trained on."
    )
