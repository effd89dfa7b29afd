"""Errors of online prediction."""

from app.errors import AppError, ServiceUnavailable, TooManyRequests, UnprocessableContent


class BlankInput(AppError):
    """Empty input."""

    status = 400
    code = "empty_input"
    message = "{what} is empty. Send at least one character that is not white space."


class TooManyInputs(UnprocessableContent):
    """Too many inputs in one request."""

    code = "too_many_inputs"
    message = "There are {count} inputs; a request takes at most {limit}. Send several requests."


class TextPairUnsupported(UnprocessableContent):
    """Text pairs are not supported."""

    code = "pair_refused"
    message = "Input {index} holds {count} texts; the model reads one text at a time."


class ConflictingFunctions(UnprocessableContent):
    """Conflicting score functions."""

    code = "function_clash"
    message = "Send either `raw_scores` or `parameters.function_to_apply`, not both."


class UnknownLabel(UnprocessableContent):
    """The model does not have this label."""

    code = "label_unknown"
    message = "{ref} does not have this label. Its labels are: {labels}."


class InvalidTimeout(UnprocessableContent):
    """Invalid request timeout."""

    code = "invalid_timeout"
    message = "The header X-Request-Timeout must be a number of seconds greater than 0."


class ServerOverloaded(TooManyRequests):
    """The server is at capacity."""

    code = "overloaded"
    message = "{waiting} texts are waiting for a prediction. Try again in {retry_after} s."


class KeyOverloaded(TooManyRequests):
    """The API key has reached its share of the capacity."""

    code = "key_overloaded"
    message = "{waiting} texts of this API key are waiting. Try again in {retry_after} s."


class RateLimitExceeded(TooManyRequests):
    """The API key has exceeded its rate limit."""

    code = "quota_used"
    message = (
        "The rate limit of this API key is {quota:g} texts per second. "
        "Try again in {retry_after} s."
    )


class DeadlineExceeded(AppError):
    """The deadline passed before the text was computed."""

    status = 504
    code = "deadline_passed"
    message = "The text was not computed before its deadline. Allow more time, or try again later."


class ModelLoading(ServiceUnavailable):
    """The model is still loading."""

    code = "model_loading"
    message = "The model is still loading, and continues to load. Try again in a moment."


class InferenceFailed(AppError):
    """The model could not be computed."""

    status = 424
    code = "inference_failed"
    message = "The model could not be computed ({kind}); see the log of the service."


class ModelCorrupt(AppError):
    """The files of the model are damaged."""

    status = 424
    code = "artifact_corrupt"
    message = "The files of {ref} are damaged: {problem}. Promote another version."


class ModelLoadFailed(AppError):
    """The model could not be loaded."""

    status = 424
    code = "model_unloadable"
    message = "{ref} could not be loaded ({kind}); see the log of the service."


class ModelOutputMismatch(AppError):
    """The model does not reproduce its stored reference logits."""

    status = 424
    code = "model_disagrees"
    message = "{ref} does not reproduce its reference logits: {problem} Promote another version."


class ImportedModelRejected(AppError):
    """The imported model fails the import checks."""

    status = 424
    code = "model_refused"
    message = "{ref} cannot be served. {problem} Promote another version, and delete this one."


class ModelTokenizerFailed(AppError):
    """The tokenizer of the model failed on a text."""

    status = 424
    code = "tokenizer_failed"
    message = "The tokenizer of {ref} failed on a text ({kind}). Promote another version."


class ModelTooLarge(AppError):
    """The model does not fit into the memory limit."""

    status = 424
    code = "model_too_large"
    message = "{ref} needs {needed} bytes of memory; LORAWORKS_MAX_LOADED_BYTES allows {limit}."


class NonFiniteScore(AppError):
    """The model computed a score that is not finite."""

    status = 424
    code = "non_finite_score"
    message = "{ref} computed a score that is NaN or infinite. Promote another version."
