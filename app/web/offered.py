"""Names that forms offer: what can be trained on, and what a job can start from."""

from sqlalchemy.orm import Session

from app.datasets import repository as datasets
from app.registry import repository as registry
from app.settings import Settings
from lora_core.hub import PREFIX
from lora_core.samples import minilm, reviews

MOST = 100  # uploads, and models: the newest


def sources(session: Session, settings: Settings) -> list[str]:
    """Samples, uploads, data sets of the hub."""
    uploads = datasets.page(session, after=None, limit=MOST)
    return [
        *reviews.SAMPLES,
        *dict.fromkeys(each.name for each in uploads),  # a name has many versions
        *(f"{PREFIX}{name}" for name in settings.hub_datasets),
    ]


def bases(session: Session, settings: Settings) -> list[str]:
    """The sample, models of this installation, models of the hub."""
    return [minilm.NAME, *models(session), *settings.hub_models]


def models(session: Session) -> list[str]:
    """Of this installation."""
    return [model.name for model in registry.models(session, after=None, limit=MOST)]
