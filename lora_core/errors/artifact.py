"""Errors of using a trained model, or of predicting a text with it."""

from lora_core.errors import LoraCoreError


class ArtifactError(LoraCoreError):
    """The model directory cannot be used."""


class ArtifactCorrupt(ArtifactError):
    """A file of the model is missing, unexpected or modified."""

    code = "artifact_corrupt"
    message = "{path} does not match its manifest: {problem}."


class EngineUnavailable(ArtifactError):
    """The inference engine is not available on this host."""

    code = "engine_missing"
    message = "Inference engine {engine} requires {needs}."


class EngineMismatch(ArtifactError):
    """The inference engine does not reproduce the logits stored with the model."""

    code = "engine_disagrees"
    message = (
        "Logits of {engine} differ from the stored ones by {difference:.2e}. At most "
        "{tolerance:.2e} and identical predicted labels are accepted."
    )


class EmptyInput(ArtifactError):
    """Empty input text."""

    code = "empty_input"
    message = "Input {index} is empty."


class InputTooLong(ArtifactError):
    """The input text exceeds the token limit and truncation is off."""

    code = "text_too_long"
    message = (
        "Input {index} has {tokens} tokens; the limit is {limit}. "
        "Shorten it or set truncate to true."
    )


class InvalidArchive(ArtifactError):
    """The model archive is damaged or incomplete."""

    code = "archive_broken"
    message = (
        "The archive cannot be read: {problem}. Upload the tar file that "
        "`loraworks models export` writes, uncompressed."
    )


class UnsafeArchive(ArtifactError):
    """The model archive contains a forbidden entry."""

    code = "archive_unsafe"
    message = "The archive contains {entry}, {problem}. Nothing was imported."


class HeaderTooLarge(ArtifactError):
    """The safetensors header is too large."""

    code = "header_too_large"
    message = "The safetensors header of {file} exceeds the limit of {limit:,} bytes or tensors."


class UnsupportedArtifact(ArtifactError):
    """The model cannot be imported."""

    code = "artifact_unfit"
    message = "The model cannot be imported: {problem}."


class UnsupportedTokenizer(ArtifactError):
    """The tokenizer of the imported model is not supported."""

    code = "tokenizer_unfit"
    message = (
        "The tokenizer of the model cannot be imported: {problem}. Only the components of common "
        "tokenizers are supported, with bounded settings."
    )


class TokenizerFailed(ArtifactError):
    """The tokenizer of the model failed on a text."""

    code = "tokenizer_failed"
    message = "The tokenizer of the model failed on a text ({kind})."


class GoldenMismatch(ArtifactError):
    """The model does not reproduce its golden predictions."""

    code = "golden_mismatch"
    message = (
        "The model does not reproduce the golden predictions stored with it: logits differ by "
        "{difference:.2e}, more than {tolerance:.2e}. It is damaged or was built differently."
    )
