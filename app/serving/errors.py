"""Errors of online prediction."""

from app.errors import AppError, ServiceUnavailable, TooManyRequests, UnprocessableContent


class BlankInput(AppError):
    status = 400
    code = "empty_input"
    title = "Empty input."
    message = "{what} is empty. Send at least one character that is not white space."


class TooManyInputs(UnprocessableContent):
    code = "too_many_inputs"
    title = "Too many inputs in one request."
    message = "There are {count} inputs; a request takes at most {limit}. Send several requests."


class InvalidPair(UnprocessableContent):
    code = "invalid_pair"
    title = "An input is neither a text nor a pair of texts."
    message = "{what} holds {count} texts. Send one text, or two texts for a model of text pairs."


class ScoreFunctionGivenTwice(UnprocessableContent):
    code = "conflicting_score_functions"
    title = "Conflicting score functions."
    message = "Send either `raw_scores` or `parameters.function_to_apply`, not both."


class AbstentionNotApplicable(UnprocessableContent):
    code = "abstention_not_applicable"
    title = "Only a single-label model can abstain."
    message = (
        "{ref} is a {task} model, and `abstain_below` is for single-label models. A multi-label "
        "model predicts no label if none reaches its threshold; a number comes with an interval. "
        "Of several targets, name a single-label one with `target`."
    )


class VersionWithoutExamples(UnprocessableContent):
    code = "no_nearest_examples"
    title = "The version has no training examples to compare texts with."
    message = (
        "{ref} has no training examples to compare texts with: it was imported, or trained before "
        "they were stored. Train it again, or leave out `abstain_unfamiliar`."
    )


class TooFewTextsForUnfamiliarity(UnprocessableContent):
    code = "too_few_held_out_texts"
    title = "The version had too few held-out texts to say which texts are unfamiliar."
    message = (
        "{ref} had {count} texts in the {split} split. To say which texts are unfamiliar, {needed} "
        "needed. Train it with more texts, or leave out `abstain_unfamiliar`."
    )


class ScoreFunctionNotApplicable(UnprocessableContent):
    code = "score_function_not_applicable"
    title = "The score function does not apply to a number."
    message = "{ref} predicts a number, to which {function} does not apply. Leave it out."


class RerankNotApplicable(UnprocessableContent):
    code = "rerank_not_applicable"
    title = "Only a regression of text pairs can rank texts."
    message = (
        "{ref} is a {task} model, and texts are ranked by the numbers of a regression of text "
        "pairs. Name such a model, or use `/predict`."
    )


class UnknownModelLabel(UnprocessableContent):
    code = "label_unknown"
    title = "The model does not have this label."
    message = "{ref} does not have this label. Its labels are: {labels}."


class InvalidTimeout(UnprocessableContent):
    code = "invalid_timeout"
    title = "Invalid request timeout."
    message = "The header X-Request-Timeout must be a number of seconds greater than 0."


class ServerOverloaded(TooManyRequests):
    code = "overloaded"
    title = "The server is at capacity."
    message = "{waiting} texts are waiting for a prediction. Try again in {retry_after} s."


class ApiKeyShareExceeded(TooManyRequests):
    code = "key_overloaded"
    title = "The API key has reached its share of the capacity."
    message = "{waiting} texts of this API key are waiting. Try again in {retry_after} s."


class RateLimitExceeded(TooManyRequests):
    code = "rate_limit_exceeded"
    title = "The API key has exceeded its rate limit."
    message = (
        "The rate limit of this API key is {quota:g} texts per second. "
        "Try again in {retry_after} s."
    )


class DeadlineExceeded(AppError):
    status = 504
    code = "deadline_passed"
    title = "The deadline passed before inference started."
    message = "The deadline passed before inference started. Allow more time, or try again later."


class ModelLoading(ServiceUnavailable):
    code = "model_loading"
    title = "The model is still loading."
    message = "The model is still loading. Try again in a few seconds."


class InferenceFailed(AppError):
    status = 424
    code = "inference_failed"
    title = "Inference failed."
    message = "Inference failed ({kind}). See the server log."


class ModelArtifactCorrupt(AppError):
    status = 424
    code = "artifact_corrupt"
    title = "The files of the model are damaged."
    message = "The files of {ref} are damaged: {problem}. Promote another version."


class ModelLoadFailed(AppError):
    status = 424
    code = "model_unloadable"
    title = "The model could not be loaded."
    message = "{ref} could not be loaded ({kind}). See the server log."


class ModelGoldenPredictionsMismatch(AppError):
    status = 424
    code = "model_output_mismatch"
    title = "The model does not reproduce its golden predictions."
    message = "{ref} does not reproduce its golden predictions: {problem} Promote another version."


class ImportedModelRejected(AppError):
    status = 424
    code = "model_refused"
    title = "The imported model fails the import checks."
    message = "{ref} cannot be served. {problem} Promote another version, and delete this one."


class ModelTokenizerFailed(AppError):
    status = 424
    code = "tokenizer_failed"
    title = "The tokenizer of the model failed on a text."
    message = "The tokenizer of {ref} failed on a text ({kind}). Promote another version."


class ModelTooLarge(AppError):
    status = 424
    code = "model_too_large"
    title = "The model does not fit into the memory limit."
    message = "{ref} needs {needed} bytes of memory; LORAWORKS_MAX_LOADED_BYTES allows {limit}."


class NonFiniteScore(AppError):
    status = 424
    code = "non_finite_score"
    title = "The model computed a score that is not finite."
    message = "{ref} computed a score that is NaN or infinite. Promote another version."
