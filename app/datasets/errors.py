"""Errors of uploaded datasets. Errors inside a file come from `lora_core`."""

from app.errors import Conflict, ContentTooLarge, NotFound, UnprocessableContent


class DatasetNotFound(NotFound):
    code = "dataset_not_found"
    title = "Dataset not found."
    message = "Dataset {ref} does not exist."


class DatasetInUse(Conflict):
    code = "dataset_in_use"
    title = "The dataset is in use."
    message = (
        "{ref} is used by {count} queued or running job(s) or prediction run(s). "
        "Wait for them to finish or cancel them."
    )


class DatasetDamaged(Conflict):
    code = "dataset_damaged"
    title = "The stored file is damaged."
    message = (
        "The file of {ref} is damaged: {problem}. Delete this version, then upload the file again."
    )


class TextForgottenMeanwhile(Conflict):
    code = "text_forgotten_meanwhile"
    title = "A text was forgotten while the request ran."
    message = (
        "A text was forgotten while the new version of {name} was made. The version may have it, "
        "so it was not stored. Send the request again."
    )


class UploadTooLarge(ContentTooLarge):
    code = "upload_too_large"
    title = "File too large."
    message = "The file is larger than the limit of {limit} bytes."


class UploadQuotaExceeded(ContentTooLarge):
    code = "key_upload_quota_exceeded"
    title = "Upload quota of the API key exceeded."
    message = (
        "The datasets of this API key have {used} bytes. This file would exceed the limit of "
        "{limit} bytes (LORAWORKS_MAX_UPLOAD_BYTES_PER_KEY). Delete some datasets first."
    )


class MalformedUpload(UnprocessableContent):
    code = "malformed_upload"
    title = "Malformed upload."
    message = "The upload cannot be read: {problem}. Send multipart/form-data with one part 'file'."


class DatasetNameRequired(UnprocessableContent):
    code = "name_required"
    title = "A dataset name is required."
    message = (
        "No name can be derived from {filename!r}. Send one with letters or digits in the field "
        "'name'."
    )


class DatasetParserCrashed(UnprocessableContent):
    code = "data_unreadable"
    title = "The parser crashed."
    message = "{file} cannot be read: the parser stopped unexpectedly. The file may be damaged."
