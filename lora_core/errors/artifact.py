"""Errors of using a trained model, or of predicting a text with it."""

from lora_core.errors import LoraCoreError


class ArtifactError(LoraCoreError):
    """A model directory, or an input to its model, cannot be used."""


class ArtifactCorrupt(ArtifactError):
    code = "artifact_corrupt"
    title = "A file of the model is missing, unexpected or modified."
    message = "{path} does not match its manifest: {problem}."


class EngineUnavailable(ArtifactError):
    code = "engine_missing"
    title = "The inference engine is not available on this host."
    message = "Inference engine {engine} requires {needs}."


class EngineOutputMismatch(ArtifactError):
    code = "engine_output_mismatch"
    title = "The inference engine does not reproduce the golden predictions of the model."
    message = (
        "Logits of {engine} differ from the golden predictions by {difference:.2e}. At most "
        "{tolerance:.2e} and identical predicted labels are accepted."
    )


class EmptyInput(ArtifactError):
    code = "empty_input"
    title = "Empty input text."
    message = "Input {index} is empty."


class InputWithoutTokens(EmptyInput):
    code = "input_without_tokens"
    title = "The tokenizer of the model leaves nothing of the input text."
    message = (
        "Input {index} has no tokens: the tokenizer of the model leaves nothing of it. Send a text "
        "in the language of the training texts."
    )


class TextPairRequired(ArtifactError):
    code = "text_pair_required"
    title = "The model reads pairs of texts, and the input is a single text."
    message = (
        "Input {index} is a single text, but this model was trained on pairs. Send both texts, "
        'such as {{"text": "…", "text_pair": "…"}}.'
    )


class TextPairUnsupported(ArtifactError):
    code = "pair_refused"
    title = "The model reads single texts, and the input is a pair."
    message = (
        "Input {index} is a pair of texts, but this model was trained on single texts. Send each "
        "text as an input of its own."
    )


class SecondTextCountMismatch(ArtifactError):
    code = "unequal_pairs"
    title = "The numbers of first and second texts differ."
    message = "There are {texts} texts and {pairs} second texts. Give one for each text."


class InputTooLong(ArtifactError):
    code = "text_too_long"
    title = "The input text exceeds the token limit and truncation is off."
    message = (
        "Input {index} has {tokens} tokens; the limit is {limit}. "
        "Shorten it or set truncate to true."
    )


class TargetRequired(ArtifactError):
    code = "target_required"
    title = "The model has several targets, and one is needed."
    message = (
        "{model} has several targets, and this has a form for one only: name one of them with "
        "`target` (`--target`): {targets}."
    )


class UnknownTarget(ArtifactError):
    code = "unknown_target"
    title = "The model has no such target."
    message = "{model} has no target {target!r}. Its targets: {targets}."


class SingleTargetModel(ArtifactError):
    code = "one_target"
    title = "The model does not have several targets."
    message = "{model} predicts one thing only, so there is no target to choose: omit `target`."


class NoNearestExamples(ArtifactError):
    code = "no_nearest_examples"
    title = "The model has no training examples to compare texts with."
    message = (
        "{path} has no training examples to compare texts with: it was imported, or trained before "
        "they were stored. Train it again."
    )


class InvalidArchive(ArtifactError):
    code = "archive_broken"
    title = "The model archive is damaged or incomplete."
    message = (
        "The archive cannot be read: {problem}. Upload the tar file that "
        "`loraworks models export` writes, uncompressed."
    )


class UnsafeArchive(ArtifactError):
    code = "archive_unsafe"
    title = "The model archive contains a forbidden entry."
    message = "The archive contains {entry}, {problem}. Nothing was imported."


class SafetensorsHeaderTooLarge(ArtifactError):
    code = "header_too_large"
    title = "The safetensors header is too large."
    message = "The safetensors header of {file} exceeds the limit of {limit:,} bytes or tensors."


class InvalidImportedModel(ArtifactError):
    code = "unsupported_artifact"
    title = "The model cannot be imported."
    message = "The model cannot be imported: {problem}."


class UnsupportedTokenizer(ArtifactError):
    code = "unsupported_tokenizer"
    title = "The tokenizer of the imported model is not supported."
    message = (
        "The tokenizer of the model cannot be imported: {problem}. Only the components of common "
        "tokenizers are supported, with bounded settings."
    )


class TokenizerFailed(ArtifactError):
    code = "tokenizer_failed"
    title = "The tokenizer of the model failed on a text."
    message = "The tokenizer of the model failed on a text ({kind})."


class GoldenPredictionsMismatch(ArtifactError):
    code = "golden_predictions_mismatch"
    title = "The model does not reproduce its golden predictions."
    message = (
        "The model does not reproduce the golden predictions stored with it: logits differ by "
        "{difference:.2e}, more than {tolerance:.2e}. It is damaged or was built differently."
    )
