"""What can go wrong with stored artifacts."""

from app.errors import Conflict, NotFound


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
    message = "The stored files of {name} are damaged: {problem}. Train the model again."
