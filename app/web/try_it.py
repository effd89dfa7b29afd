"""A text box with the answer as one types. The page lists the models; its script asks them."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query, Request
from sqlalchemy.orm import Session
from starlette.responses import HTMLResponse

from app.deps import DatabaseDep
from app.fields import Text
from app.keys.auth import requires
from app.registry import repository
from app.registry.tables import PRODUCTION
from app.web.page import render

MOST_NAMES = 100  # that are offered, the newest

router = APIRouter(include_in_schema=False)
Ref = Annotated[Annotated[str, Text(200)] | None, Query()]


@dataclass(frozen=True)
class Choice:
    """A model that can be asked, and whose held-out texts may serve as examples."""

    ref: str
    says: str
    artifact_id: str


@router.get("/try", dependencies=[requires("models:read")])
def try_it(
    request: Request, database: DatabaseDep, model: Ref = None, beside: Ref = None
) -> HTMLResponse:
    """Two models side by side; at the first visit, how to get one."""
    with database.read() as session:
        models = {
            row.name: _choices(session, row.name)
            for row in repository.models(session, after=None, limit=MOST_NAMES)
        }
    known = [choice.ref for choices in models.values() for choice in choices]
    return render(
        request,
        "try_it.html",
        models=models,
        chosen=model if model in known else next(iter(known), None),
        beside=beside if beside in known else None,
        unknown=[each for each in (model, beside) if each and each not in known],
    )


def _choices(session: Session, name: str) -> list[Choice]:
    """What production answers, the other aliases, each version."""
    row = repository.model(session, name)
    versions = {each.number: each for each in repository.versions(session, row.id)}

    def choice(ref: str, says: str, number: int) -> Choice:
        return Choice(ref, says, str(versions[number].artifact_id))

    aliases = repository.aliases(session, row.id)
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
