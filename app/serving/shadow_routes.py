"""How a candidate does beside the version that answers: `/v1/models/{name}/shadow`."""

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool

from app.auth.middleware import requires
from app.database.engines import Database
from app.http.dependencies import DatabaseDep
from app.http.fields import Slug, Timestamp, View
from app.registry import repository
from app.serving.routes import ServingDep
from app.serving.shadow import Tally

router = APIRouter(prefix="/v1/models", tags=["models"])


class ShadowView(View):
    """How a candidate compares with the version that answered, in this process since it started."""

    version: str
    shadow: str
    since: Timestamp
    texts: int
    agreement: float | None  # share of texts with the same first label
    mean_difference: float | None  # of the first label's probability
    skipped: int  # texts that came while there was more urgent work
    failed: int

    @classmethod
    def of(cls, tally: Tally) -> "ShadowView":
        texts = tally.agreed + tally.differed
        return cls(
            version=tally.version,
            shadow=tally.shadow,
            since=tally.since,
            texts=texts,
            agreement=tally.agreed / texts if texts else None,
            mean_difference=tally.difference / texts if texts else None,
            skipped=tally.skipped,
            failed=tally.failed,
        )


@router.get("/{name}/shadow", dependencies=[requires("models:read")])
async def read_shadow(name: Slug, database: DatabaseDep, serving: ServingDep) -> list[ShadowView]:
    """What the candidate `name@shadow` makes of the texts that `name` is asked, newest first."""
    await run_in_threadpool(_expect, database, name)
    return [ShadowView.of(tally) for tally in serving.shadows.tallies(name)]


def _expect(database: Database, name: str) -> None:
    """Raises `ModelNotFound`."""
    with database.read() as session:
        repository.model(session, name)
