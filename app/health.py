"""Whether the service lives and can work. These routes need no key."""

from fastapi import APIRouter

from app.db import migrate
from app.deps import DatabaseDep
from app.fields import View

router = APIRouter(tags=["health"])


class Health(View):
    """`ok`, or the answer is an error."""

    status: str = "ok"


@router.get("/livez", openapi_extra={"security": []})
def livez() -> Health:
    """The process answers."""
    return Health()


@router.get("/readyz", openapi_extra={"security": []})
@router.get("/health", openapi_extra={"security": []})
@router.get("/ping", openapi_extra={"security": []})
def readyz(database: DatabaseDep) -> Health:
    """The database answers and has the schema of this version."""
    migrate.check(database)
    return Health()
