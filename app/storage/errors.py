"""Errors of the artifact store."""

from app.errors import AppError, Conflict, NotFound, ServiceUnavailable


class ArtifactNotFound(NotFound):
    """Artifact not found."""

    code = "artifact_not_found"
    message = "There is no artifact {artifact_id}."


class ArtifactFileNotFound(NotFound):
    """Artifact file not found."""

    code = "artifact_file_not_found"
    message = "Artifact {artifact_id} has no file with that name. Its manifest lists the names."


class ArtifactExists(Conflict):
    """The key already exists in the store."""

    code = "artifact_exists"
    message = "The store already contains {key}. Artifacts are immutable; use another key."


class ArtifactDamaged(Conflict):
    """The stored files do not match their manifest."""

    code = "artifact_corrupt"
    message = "The stored files of {name} are damaged: {problem}. Run the job that made them again."


class StorageUnavailable(ServiceUnavailable):
    """The artifact store is unavailable."""

    code = "storage_unavailable"
    message = (
        "The store of models, checkpoints and uploads is unavailable ({reason}). Try again shortly."
    )


class StorageRefused(ServiceUnavailable):
    """The artifact store denied access, or is misconfigured."""

    code = "storage_refused"
    message = (
        "The store of models, checkpoints and uploads cannot be used ({reason}). The operator "
        "should check LORAWORKS_STORE_URL, its permissions, and the credentials."
    )


class StoreUrlInvalid(AppError):
    """Invalid store URL."""

    status = 500
    code = "store_url_invalid"
    message = (
        "LORAWORKS_STORE_URL {problem}. Use s3://bucket/prefix or file:///directory, or leave it "
        "empty for the data directory."
    )
