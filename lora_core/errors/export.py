"""Errors of exporting a model to another program's format."""

from lora_core.errors import LoraCoreError


class ExportError(LoraCoreError):
    """The model cannot be exported."""


class OutputExists(ExportError):
    code = "output_exists"
    title = "The output folder already exists."
    message = "{path} already exists and is not an empty folder. Choose a new one."


class NoEncoder(ExportError):
    code = "no_encoder"
    title = "A linear model has no encoder to export."
    message = (
        "{path} is a linear model without an encoder, so it cannot be exported to {program}. Its "
        "files linear.json and linear.safetensors contain the parameters of scikit-learn."
    )


class NoAdapter(ExportError):
    code = "no_adapter"
    title = "The model has no adapter to export."
    message = (
        "{path} has no adapter: its method is {method!r}. Export the merged model instead "
        "(format transformers)."
    )


class MergedWeightsChanged(ExportError):
    code = "merged_weights_changed"
    title = "Merging again does not give the weights of the run."
    message = (
        "The merged weights of {path} are not those that its run recorded. Nothing was exported. "
        "Please report this, with your processor and the versions of torch and loraworks."
    )


class BaseMismatch(ExportError):
    code = "base_differs"
    title = "The adapter was trained on a different base model."
    message = (
        "On {base!r} the adapter does not reproduce the model: logits differ by "
        "{difference:.2e}. Pass the base model that it was trained on with --base."
    )
