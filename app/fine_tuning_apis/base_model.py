"""The base model of a fine-tuning job, in place of the model that a script of another API names."""

import re

from app.database.engines import Database
from app.fine_tuning_apis.errors import FineTuningModelNotFound
from app.fine_tuning_apis.events import build_warning_event
from app.fine_tuning_apis.fine_tuned_model_names import ORGANIZATION
from app.jobs import pretrained_bases
from app.jobs.errors import BaseDirectoriesDisabled, BaseDirectoryNotAllowed, InvalidBase
from app.jobs.pretrained_bases import ResolvedBase
from app.queue.events import EventContent
from app.registry import refs
from app.registry import service as registry
from app.registry.errors import ModelNotFound, NoModelPromoted
from app.settings import Settings
from app.storage.store import Store
from lora_core.errors.base_model import BaseNotFound, LinearBase
from lora_core.samples import minilm


def resolve_base_or_default(
    model: str,
    *,
    owner: str,
    owners_models: re.Pattern[str],
    database: Database,
    store: Store,
    settings: Settings,
) -> tuple[ResolvedBase, list[EventContent]]:
    """Return the base to train, and a warning if it is not the model that was asked for.

    In place of a model of the `owner` of the API, and of a linear one, it is the default base, so
    that a script runs as it is. Raises `FineTuningModelNotFound`.
    """
    wanted = _own_version(model, owner, database)

    def resolve(name: str) -> ResolvedBase:
        return pretrained_bases.resolve_base(
            name, None, database=database, store=store, settings=settings
        )

    try:
        return resolve(wanted), []
    except LinearBase as error:
        if wanted == model:
            raise _not_found(model, error, owner) from error
        message = f"{wanted} is a linear model, which has no encoder to train. "
    except (BaseNotFound, InvalidBase, BaseDirectoriesDisabled, BaseDirectoryNotAllowed) as error:
        if _is_ours(model, error) or not owners_models.fullmatch(model):
            raise _not_found(model, error, owner) from error
        message = f"{model} is a model of {owner}. "
    message += f"{minilm.NAME} is trained in its place."
    return resolve(minilm.NAME), [build_warning_event("model_replaced", message)]


def _is_ours(model: str, error: Exception) -> bool:
    """Return whether this can only be the name of a model of this installation."""
    if model.startswith("ft:"):
        return f":{ORGANIZATION}:" in model
    return ":" in model or "@" in model or isinstance(error.__cause__, NoModelPromoted)


def _own_version(model: str, owner: str, database: Database) -> str:
    """Return the version that an `ft:…` name of ours stands for; other names unchanged."""
    if refs.job_id_in_model_name(model) is None:
        return model
    try:
        with database.read() as session:
            return registry.resolve_model(session, model).ref
    except ModelNotFound as error:
        raise _not_found(model, error, owner) from error


def _not_found(model: str, reason: Exception, owner: str) -> FineTuningModelNotFound:
    return FineTuningModelNotFound(model=model[:100], reason=str(reason), owner=owner, at="model")
