"""Route for the statistics of shadow evaluation: `/v1/models/{name}/shadow`."""

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool

from app.auth.middleware import require_scope
from app.database.engines import Database
from app.http.dependencies import DatabaseDep
from app.http.fields import ResponseModel, Slug, Timestamp
from app.registry import repository
from app.serving.routes import ServingDep
from app.serving.shadow import ShadowStats

router = APIRouter(prefix="/v1/models", tags=["models"])


class ShadowView(ResponseModel):
    """A candidate compared with the version in production, in this process since it started."""

    version: str
    shadow: str
    since: Timestamp
    texts: int
    agreement: float | None  # share of texts with the same most probable label
    mean_difference: float | None  # of the probability of production's label
    skipped: int  # texts, because the service was busy
    failed: int

    @classmethod
    def from_stats(cls, stats: ShadowStats) -> "ShadowView":
        texts = stats.agreed + stats.differed
        return cls(
            version=stats.version,
            shadow=stats.shadow,
            since=stats.since,
            texts=texts,
            agreement=stats.agreed / texts if texts else None,
            mean_difference=stats.total_difference / texts if texts else None,
            skipped=stats.skipped,
            failed=stats.failed,
        )


@router.get("/{name}/shadow", dependencies=[require_scope("models:read")])
async def get_shadow(name: Slug, database: DatabaseDep, service: ServingDep) -> list[ShadowView]:
    """Compare the candidate `name@shadow` with production on the live texts, newest pair first."""
    await run_in_threadpool(_check_model_exists, database, name)
    return [ShadowView.from_stats(stats) for stats in service.shadows.stats(name)]


def _check_model_exists(database: Database, name: str) -> None:
    """Raises `ModelNotFound`."""
    with database.read() as session:
        repository.get_model(session, name)
