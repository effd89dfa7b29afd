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


class RemergedWeightsMismatch(ExportError):
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


class OnnxPackagesMissing(ExportError):
    code = "onnx_packages_missing"
    title = "The packages that an export to ONNX needs are not installed."
    message = (
        "An export to ONNX needs {missing}, which this environment lacks. Install them: "
        "`pip install onnx onnxscript onnxruntime`."
    )


class NotTranslatableToOnnx(ExportError):
    code = "onnx_not_translatable"
    title = "The encoder cannot be translated to ONNX."
    message = (
        "The exporter of torch {torch} cannot translate a {encoder!r} model to ONNX: {reason} "
        "Export it for transformers instead (format transformers)."
    )


class OnnxMismatch(ExportError):
    code = "onnx_mismatch"
    title = "ONNX Runtime does not compute the logits of the model."
    message = (
        "Under ONNX Runtime {onnxruntime} a logit differs by {difference:.2e}, and at most "
        "{tolerance:.2e} is accepted. Nothing was exported. Please report this, with the versions "
        "of torch, onnx and onnxruntime."
    )


class TooFewCertificationTexts(ExportError):
    code = "int8_texts_required"
    title = "Too few texts to certify an int8 model."
    message = (
        "An int8 model is certified on at least {required} texts, and there are {count}. Pass a "
        "file with more texts like those that the model will read, best of all texts that it was "
        "not trained on (--texts)."
    )


class Int8RegressionUnsupported(ExportError):
    code = "int8_needs_labels"
    title = "A model of numbers has no labels to certify in int8."
    message = (
        "{path} predicts a number. An int8 export is certified by the labels that stay the same, "
        "so it is for models that predict labels: export this one without --int8."
    )


class Int8Mismatch(ExportError):
    code = "int8_mismatch"
    title = "Quantized to int8, the model predicts too many other labels."
    message = (
        "In int8 the model predicts the same labels for {equal:.1%} of {texts} texts, and at least "
        "{minimum:.1%} are required; a logit differs by {difference:.2g}. Nothing was exported. "
        "Export it without --int8."
    )
