"""What can go wrong when a model is asked."""

from app.errors import AppError, Invalid, Overloaded, Unavailable


class Empty(AppError):
    """Nothing to classify."""

    status = 400
    code = "empty_input"
    message = "{what} is empty; send at least one character that is not white space."


class TooManyInputs(Invalid):
    """More texts than one call may have."""

    code = "too_many_inputs"
    message = "There are {count} inputs; one call takes at most {limit}. Send several calls."


class PairRefused(Invalid):
    """Two texts where one is read."""

    code = "pair_refused"
    message = "Input {index} holds {count} texts; this model reads one text at a time."


class FunctionClash(Invalid):
    """Two ways to make scores at once."""

    code = "function_clash"
    message = "`raw_scores` and `parameters.function_to_apply` exclude each other; send one."


class LabelUnknown(Invalid):
    """Not a label of the model."""

    code = "label_unknown"
    message = "{ref} has no such label. It has: {labels}."


class InvalidTimeout(Invalid):
    """No number of seconds."""

    code = "invalid_timeout"
    message = "The header X-Request-Timeout must be a number of seconds above 0."


class Busy(Overloaded):
    """No room for more texts."""

    code = "overloaded"
    message = "{waiting} texts are waiting for an answer. Try again in {retry_after} s."


class KeyBusy(Overloaded):
    """One key has as many texts under way as one key may have."""

    code = "key_overloaded"
    message = "{waiting} texts of this key are waiting. Try again in {retry_after} s."


class QuotaUsed(Overloaded):
    """One key sends more texts than its quota."""

    code = "quota_used"
    message = "This key may send {quota:g} texts a second. Try again in {retry_after} s."


class DeadlinePassed(AppError):
    """The answer would have come too late."""

    status = 504
    code = "deadline_passed"
    message = "The text was not computed before its deadline; nothing was computed for it."


class ModelLoading(Unavailable):
    """The model is not in memory yet."""

    code = "model_loading"
    message = "The model is still being loaded. Try again in a moment: it goes on."


class BatchFailed(AppError):
    """Computing failed."""

    status = 424
    code = "inference_failed"
    message = "The model could not be computed ({kind}); the log of the service tells more."


class ModelDamaged(AppError):
    """The files of the model are not those that were stored."""

    status = 424
    code = "artifact_corrupt"
    message = "The files of {ref} are damaged: {problem}. Promote another version."


class ModelUnloadable(AppError):
    """The files are whole but do not load."""

    status = 424
    code = "model_unloadable"
    message = "{ref} cannot be loaded ({kind}); the log of the service tells more."


class ModelDisagrees(AppError):
    """The model does not answer as it did when it was made."""

    status = 424
    code = "model_disagrees"
    message = "{ref} does not answer as it did when it was made: {problem} Promote another version."


class ModelRefused(AppError):
    """An imported version that fails the checks of an import."""

    status = 424
    code = "model_refused"
    message = "{ref} is not served. {problem} Promote another version, and delete this one."


class ModelTokenizerFailed(AppError):
    """The tokenizer of the model failed on a text."""

    status = 424
    code = "tokenizer_failed"
    message = "The tokenizer of {ref} failed on a text ({kind}); promote another version."


class ModelTooLarge(AppError):
    """More than may be in memory at all."""

    status = 424
    code = "model_too_large"
    message = "{ref} takes {needed} bytes of memory, and LORAWORKS_MAX_LOADED_BYTES allows {limit}."


class NotFinite(AppError):
    """The model computed something that is no number."""

    status = 424
    code = "non_finite_score"
    message = "{ref} gave a score that is no number; promote another version."
