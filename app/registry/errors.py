"""What can go wrong with named models."""

from app.errors import Conflict, Invalid, NotFound, TooLarge


class InvalidModelRef(Invalid):
    """Not the name of a model."""

    code = "invalid_model_ref"
    message = (
        "{ref!r} names no model. Write 'name', 'name@alias' or 'name:3', with lower-case letters, "
        "digits and dashes."
    )


class ModelNotFound(NotFound):
    """There is no such model."""

    code = "model_not_found"
    message = "There is no model {ref}."


class NoModelPromoted(NotFound):
    """No version is in production."""

    code = "no_model_promoted"
    message = (
        "No {what} is in production yet. Move the alias 'production' to a version (`loraworks "
        "models promote NAME:1`), or name a version, such as 'sentiment:1'."
    )


class ModelAmbiguous(Invalid):
    """Several models are in production."""

    code = "model_ambiguous"
    message = "Several models are in production: {names}. Say which with 'model'."


class AliasNotFound(NotFound):
    """The model has no such alias."""

    code = "alias_not_found"
    message = "The model {name} has no alias {alias!r}."


class VersionInUse(Conflict):
    """An alias points at the version."""

    code = "version_in_use"
    message = "{ref} is the target of {aliases}. Move or delete the alias first."


class ModelInUse(Conflict):
    """The model still has aliases."""

    code = "model_in_use"
    message = "The model {name} still has {aliases}. Delete the alias first."


class JobMadeNothing(Conflict):
    """The job has no artifact."""

    code = "job_without_artifact"
    message = "Job {job_id} has no model: it did not succeed, or its model was removed since."


class NothingBefore(Conflict):
    """The alias has not pointed at another version, or that one was deleted."""

    code = "nothing_to_roll_back"
    message = "{name}@{alias} has no version before this one; move it to the one that you want."


class ImportTooLarge(TooLarge):
    """Checking the model takes more than it may."""

    code = "import_too_large"
    message = (
        "The model was not taken in: checking it needs more than {limit}. The operator can allow "
        "more with {setting}."
    )


class ImportCrashed(Invalid):
    """The check of the model stopped without saying why."""

    code = "import_crashed"
    message = "The model was not taken in: its check stopped unexpectedly. It may be damaged."
