"""What can go wrong when a model is asked."""

from app.errors import AppError, Invalid, Overloaded


class Empty(AppError):
    """Nothing to classify."""

    status = 400
    code = "empty_input"
    message = "{what} is empty; send at least one character that is not white space."


class TooManyInputs(Invalid):
    """More texts than one call may have."""

    code = "too_many_inputs"
    message = "There are {count} inputs; one call takes at most {limit}. Send several calls."


class Busy(Overloaded):
    """As many calls wait as the service lets wait."""

    code = "overloaded"
    message = "{limit} calls are waiting for an answer. Try again in {retry_after} s."


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


class NotFinite(AppError):
    """The model computed something that is no number."""

    status = 424
    code = "non_finite_score"
    message = "{ref} gave a score that is no number; promote another version."
