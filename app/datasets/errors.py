"""What can go wrong with uploaded data sets. What is wrong inside a file is said by `lora_core`."""

from app.errors import Conflict, Invalid, NotFound, TooLarge


class DatasetNotFound(NotFound):
    """There is no such data set."""

    code = "dataset_not_found"
    message = "There is no data set {ref}."


class DatasetInUse(Conflict):
    """A job or a prediction run still reads the data set."""

    code = "dataset_in_use"
    message = (
        "{ref} is read by {count} queued or running job(s) or prediction run(s). "
        "Wait for them or cancel them."
    )


class DatasetDamaged(Conflict):
    """The stored file is not the one that was uploaded."""

    code = "dataset_damaged"
    message = "The file of {ref} is damaged: {problem}. Upload it again."


class UploadTooLarge(TooLarge):
    """The file is over the limit."""

    code = "upload_too_large"
    message = "The file is larger than {limit} bytes, the most that is taken."


class KeyBytesUsed(TooLarge):
    """One key keeps as many bytes as one key may keep."""

    code = "key_bytes_used"
    message = (
        "The data sets of this key have {used} bytes; with this one it would be over the "
        "{limit} that it may keep (LORAWORKS_KEY_UPLOAD_BYTES). Delete some of them."
    )


class MalformedUpload(Invalid):
    """The body is not the upload of one file."""

    code = "malformed_upload"
    message = "The upload cannot be read: {problem}. Send multipart/form-data with one part 'file'."


class NameNeeded(Invalid):
    """Neither the name nor that of the file has a letter or a digit."""

    code = "name_needed"
    message = (
        "No name can be made from {filename!r}. Send one with letters or digits in the field "
        "'name'."
    )


class Unreadable(Invalid):
    """The parser stopped without saying why."""

    code = "data_unreadable"
    message = "{file} cannot be read: the parser stopped unexpectedly. The file may be damaged."
