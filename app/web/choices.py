"""Names that forms offer: what can be trained on, what a job can start from, what can be asked."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from app.datasets import repository as datasets
from app.registry import repository as registry
from app.registry.tables import PRODUCTION
from app.settings import Settings
from lora_core.hub import PREFIX
from lora_core.samples import minilm, reviews

MOST = 100  # uploads, and models: the newest


@dataclass(frozen=True)
class Choice:
    """A model that can be asked, and whose held-out texts may serve as examples."""

    ref: str
    says: str
    artifact_id: str


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


def versions(session: Session) -> dict[str, list[Choice]]:
    """All that can be asked, by model."""
    return {name: _choices(session, name) for name in models(session)}


def _choices(session: Session, name: str) -> list[Choice]:
    """What production answers, the other aliases, each version."""
    row = registry.model(session, name)
    versions = {each.number: each for each in registry.versions(session, row.id)}

    def choice(ref: str, says: str, number: int) -> Choice:
        return Choice(ref, says, str(versions[number].artifact_id))

    aliases = registry.aliases(session, row.id)
    return [
        *(
            choice(name, f"{PRODUCTION}, now version {number}", number)
            for alias, number in aliases.items()
            if alias == PRODUCTION
        ),
        *(
            choice(f"{name}@{alias}", f"{alias}, now version {number}", number)
            for alias, number in aliases.items()
            if alias != PRODUCTION
        ),
        *(choice(f"{name}:{number}", f"version {number}", number) for number in versions),
    ]
