"""Errors of the artifact store."""

from app.errors import AppError, Conflict, NotFound, ServiceUnavailable


class ArtifactNotFound(NotFound):
    code = "artifact_not_found"
    title = "Artifact not found."
    message = "There is no artifact {artifact_id}."


class ArtifactFileNotFound(NotFound):
    code = "artifact_file_not_found"
    title = "Artifact file not found."
    message = "Artifact {artifact_id} has no file with that name. Its manifest lists the names."


class ArtifactExists(Conflict):
    code = "artifact_exists"
    title = "The key already exists in the store."
    message = "The store already contains {key}. Artifacts are immutable; use another key."


class StoredArtifactCorrupt(Conflict):
    code = "artifact_corrupt"
    title = "The stored files do not match their manifest."
    message = "The stored files of {name} are damaged: {problem}. Run the job that made them again."


class StorageUnavailable(ServiceUnavailable):
    code = "storage_unavailable"
    title = "The artifact store is unavailable."
    message = (
        "The store of models, checkpoints and uploads is unavailable ({reason}). Try again shortly."
    )


class StorageRefused(ServiceUnavailable):
    code = "storage_refused"
    title = "The artifact store denied access, or is misconfigured."
    message = (
        "The store of models, checkpoints and uploads cannot be used ({reason}). The operator "
        "should check LORAWORKS_STORE_URL, its permissions, and the credentials."
    )


class StoreUrlInvalid(AppError):
    status = 500
    code = "store_url_invalid"
    title = "Invalid store URL."
    message = (
        "LORAWORKS_STORE_URL {problem}. Use s3://bucket/prefix or file:///directory, or leave it "
        "empty for the data directory."
    )
