"""Errors of the model registry."""

from app.errors import Conflict, ContentTooLarge, NotFound, UnprocessableContent


class InvalidModelRef(UnprocessableContent):
    code = "invalid_model_ref"
    title = "Invalid model reference."
    message = (
        "{ref!r} is not a valid model reference. Use 'name', 'name@alias' or 'name:3', with "
        "lower-case letters, digits and dashes."
    )


class ModelNotFound(NotFound):
    code = "model_not_found"
    title = "Model not found."
    message = "Model {ref} does not exist."


class NoModelPromoted(NotFound):
    code = "no_model_promoted"
    title = "No model in production."
    message = (
        "No {what} is in production yet. Move the alias 'production' to a version (`loraworks "
        "models promote NAME:1`), or specify a version, such as 'sentiment:1'."
    )


class SeveralModelsInProduction(UnprocessableContent):
    code = "model_ambiguous"
    title = "Several models are in production."
    message = "Several models are in production: {names}. Specify one with 'model'."


class AliasNotFound(NotFound):
    code = "alias_not_found"
    title = "Alias not found."
    message = "Model {name} has no alias {alias!r}."


class VersionHasAlias(Conflict):
    code = "version_in_use"
    title = "The version has an alias."
    message = "{ref} is the target of {aliases}. Move or delete the alias first."


class ModelHasAliases(Conflict):
    code = "model_in_use"
    title = "The model has aliases."
    message = "Model {name} still has {aliases}. Delete the alias first."


class VersionReadByJobs(Conflict):
    code = "version_read_by_jobs"
    title = "Jobs read the version."
    message = (
        "{ref} is read by {count} queued or running job(s) or prediction run(s). "
        "Wait for them to finish or cancel them."
    )


class JobWithoutModel(Conflict):
    code = "job_without_model"
    title = "The job has no model."
    message = "Job {job_id} has no model: it did not succeed, or its model was deleted."


class NothingToRollBack(Conflict):
    code = "nothing_to_roll_back"
    title = "No previous version to roll back to."
    message = (
        "{name}@{alias} has no previous version, or it was deleted. Move the alias to the version "
        "that you want."
    )


class ImportResourcesExceeded(ContentTooLarge):
    code = "import_too_large"
    title = "The import exceeds a limit."
    message = (
        "The model was not imported: validating it needs more than {limit}. The operator can raise "
        "the limit with {setting}."
    )


class ImportCrashed(UnprocessableContent):
    code = "import_crashed"
    title = "The validation of the model crashed."
    message = "The model was not imported: its validation crashed. The archive may be damaged."
