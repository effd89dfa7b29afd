"""Errors of exporting a model to another program's format."""

from lora_core.errors import LoraCoreError


class ExportError(LoraCoreError):
    """The model cannot be exported."""


class OutputExists(ExportError):
    """The output folder already exists."""

    code = "out_exists"
    message = "{path} already exists and is not an empty folder. Choose a new one."


class NoEncoder(ExportError):
    """A linear model has no encoder to export."""

    code = "no_encoder"
    message = (
        "{path} is a linear model without an encoder, so it cannot be exported to {program}. Its "
        "files linear.json and linear.safetensors contain the parameters of scikit-learn."
    )


class NoAdapter(ExportError):
    """The model has no adapter to export."""

    code = "no_adapter"
    message = (
        "{path} has no adapter: its method is {method!r}. Export the merged model instead "
        "(format transformers)."
    )


class BaseMismatch(ExportError):
    """The adapter was trained on a different base model."""

    code = "base_differs"
    message = (
        "On {base!r} the adapter does not reproduce the model: logits differ by "
        "{difference:.2e}. Pass the base model that it was trained on with --base."
    )
