"""Errors of uploaded data sets. Errors inside a file come from `lora_core`."""

from app.errors import Conflict, ContentTooLarge, NotFound, UnprocessableContent


class DatasetNotFound(NotFound):
    """Data set not found."""

    code = "dataset_not_found"
    message = "Data set {ref} does not exist."


class DatasetInUse(Conflict):
    """The data set is in use."""

    code = "dataset_in_use"
    message = (
        "{ref} is used by {count} queued or running job(s) or prediction run(s). "
        "Wait for them to finish or cancel them."
    )


class DatasetDamaged(Conflict):
    """The stored file is damaged."""

    code = "dataset_damaged"
    message = "The file of {ref} is damaged: {problem}. Upload it again."


class UploadTooLarge(ContentTooLarge):
    """File too large."""

    code = "upload_too_large"
    message = "The file is larger than the limit of {limit} bytes."


class UploadQuotaExceeded(ContentTooLarge):
    """Upload quota of the API key exceeded."""

    code = "key_bytes_used"
    message = (
        "The data sets of this API key have {used} bytes. This file would exceed the limit of "
        "{limit} bytes (LORAWORKS_KEY_UPLOAD_BYTES). Delete some data sets first."
    )


class MalformedUpload(UnprocessableContent):
    """Malformed upload."""

    code = "malformed_upload"
    message = "The upload cannot be read: {problem}. Send multipart/form-data with one part 'file'."


class DatasetNameRequired(UnprocessableContent):
    """A data set name is required."""

    code = "name_needed"
    message = (
        "No name can be derived from {filename!r}. Send one with letters or digits in the field "
        "'name'."
    )


class DatasetUnreadable(UnprocessableContent):
    """The parser crashed."""

    code = "data_unreadable"
    message = "{file} cannot be read: the parser stopped unexpectedly. The file may be damaged."
