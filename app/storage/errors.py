"""What can go wrong with stored artifacts."""

from app.errors import AppError, Conflict, NotFound, Unavailable


class ArtifactNotFound(NotFound):
    """There is no such artifact."""

    code = "artifact_not_found"
    message = "There is no artifact {artifact_id}."


class ArtifactFileNotFound(NotFound):
    """The artifact has no such file."""

    code = "artifact_file_not_found"
    message = "Artifact {artifact_id} has no file of that name; its manifest lists the names."


class ArtifactExists(Conflict):
    """The place in the store is taken."""

    code = "artifact_exists"
    message = "The store already holds {key}. An artifact never changes; use another key."


class ArtifactDamaged(Conflict):
    """The stored files are not those of the manifest."""

    code = "artifact_corrupt"
    message = "The stored files of {name} are damaged: {problem}. What made them must run again."


class StorageUnavailable(Unavailable):
    """The store of models, checkpoints and uploads does not answer."""

    code = "storage_unavailable"
    message = (
        "The store of models, checkpoints and uploads does not answer ({reason}). "
        "Try again shortly."
    )


class StorageRefused(Unavailable):
    """The store of models, checkpoints and uploads does not let the service in."""

    code = "storage_refused"
    message = (
        "The store of models, checkpoints and uploads cannot be used ({reason}). Its operator "
        "should check LORAWORKS_STORE_URL, the rights on it, and the credentials."
    )


class StoreUrlInvalid(AppError):
    """The address of the store is none."""

    status = 500
    code = "store_url_invalid"
    message = (
        "LORAWORKS_STORE_URL {problem}. Write s3://bucket/prefix or file:///folder, or leave it "
        "empty for the data folder."
    )
