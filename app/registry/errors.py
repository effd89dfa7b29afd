"""Errors of the model registry."""

from app.errors import Conflict, ContentTooLarge, NotFound, UnprocessableContent


class InvalidModelRef(UnprocessableContent):
    """Invalid model reference."""

    code = "invalid_model_ref"
    message = (
        "{ref!r} is not a valid model reference. Use 'name', 'name@alias' or 'name:3', with "
        "lower-case letters, digits and dashes."
    )


class ModelNotFound(NotFound):
    """Model not found."""

    code = "model_not_found"
    message = "Model {ref} does not exist."


class NoModelPromoted(NotFound):
    """No model in production."""

    code = "no_model_promoted"
    message = (
        "No {what} is in production yet. Move the alias 'production' to a version (`loraworks "
        "models promote NAME:1`), or specify a version, such as 'sentiment:1'."
    )


class ModelAmbiguous(UnprocessableContent):
    """Several models are in production."""

    code = "model_ambiguous"
    message = "Several models are in production: {names}. Specify one with 'model'."


class AliasNotFound(NotFound):
    """Alias not found."""

    code = "alias_not_found"
    message = "Model {name} has no alias {alias!r}."


class VersionInUse(Conflict):
    """The version has an alias."""

    code = "version_in_use"
    message = "{ref} is the target of {aliases}. Move or delete the alias first."


class ModelInUse(Conflict):
    """The model has aliases."""

    code = "model_in_use"
    message = "Model {name} still has {aliases}. Delete the alias first."


class JobWithoutModel(Conflict):
    """The job has no model."""

    code = "job_without_artifact"
    message = "Job {job_id} has no model: it did not succeed, or its model was deleted."


class NothingToRollBack(Conflict):
    """No previous version to roll back to."""

    code = "nothing_to_roll_back"
    message = (
        "{name}@{alias} has no previous version, or it was deleted. Move the alias to the version "
        "that you want."
    )


class ImportTooLarge(ContentTooLarge):
    """The import exceeds a limit."""

    code = "import_too_large"
    message = (
        "The model was not imported: validating it needs more than {limit}. The operator can raise "
        "the limit with {setting}."
    )


class ImportCrashed(UnprocessableContent):
    """The validation of the model crashed."""

    code = "import_crashed"
    message = "The model was not imported: its validation crashed. The archive may be damaged."
