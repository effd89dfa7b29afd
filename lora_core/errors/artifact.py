"""Causes of a finished model that cannot be used, or of a text that it cannot answer."""

from lora_core.errors import LoraCoreError


class ArtifactError(LoraCoreError):
    """A finished model directory cannot be used."""


class ArtifactCorrupt(ArtifactError):
    """A file is missing, extra or changed."""

    code = "artifact_corrupt"
    message = "{path} does not match its manifest: {problem}."


class EngineMissing(ArtifactError):
    """This machine does not have what an engine needs."""

    code = "engine_missing"
    message = "The engine {engine} needs {needs}."


class EngineDisagrees(ArtifactError):
    """An engine does not give the logits that were stored with the model."""

    code = "engine_disagrees"
    message = (
        "{engine} differs from the stored logits by {difference:.2e}; at most {tolerance:.2e} and "
        "the same labels are accepted."
    )


class EmptyInput(ArtifactError):
    """Nothing to classify."""

    code = "empty_input"
    message = "Input {index} is empty."


class TextTooLong(ArtifactError):
    """A text over the limit while truncation is off."""

    code = "text_too_long"
    message = (
        "Input {index} has {tokens} tokens, more than the limit of {limit}. "
        "Shorten it or set truncate to true."
    )


class ArchiveBroken(ArtifactError):
    """Not the archive of a model, or not all of it."""

    code = "archive_broken"
    message = (
        "The archive cannot be read: {problem}. Send the tar file that "
        "`loraworks models export` writes, uncompressed."
    )


class ArchiveUnsafe(ArtifactError):
    """An archive with an entry that no model has."""

    code = "archive_unsafe"
    message = "The archive holds {entry}, {problem}; nothing of it is kept."


class HeaderTooLarge(ArtifactError):
    """A safetensors file with a head that no model needs."""

    code = "header_too_large"
    message = "The head of {file} is over the limit of {limit:,} bytes or tensors."


class ArtifactUnfit(ArtifactError):
    """A model directory that holds what it should, but not a model to serve."""

    code = "artifact_unfit"
    message = "The model cannot be taken in: {problem}."


class TokenizerUnfit(ArtifactError):
    """Unsupported tokenizer in an imported model."""

    code = "tokenizer_unfit"
    message = (
        "The tokenizer of the model cannot be taken in: {problem}. Only components of common "
        "tokenizers are, with bounded settings."
    )


class TokenizerFailed(ArtifactError):
    """The tokenizer of a model failed on a text."""

    code = "tokenizer_failed"
    message = "The tokenizer of the model failed on a text ({kind})."


class GoldenMismatch(ArtifactError):
    """A model that does not give the answers that were kept with it."""

    code = "golden_mismatch"
    message = (
        "The model does not give the answers that were kept with it: logits differ by "
        "{difference:.2e}, more than {tolerance:.2e}. It is damaged, or was made in another way."
    )
