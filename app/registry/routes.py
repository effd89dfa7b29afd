"""Routes of registered models, their versions and aliases."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, status
from starlette.concurrency import run_in_threadpool

from app.auth.middleware import require_scope
from app.database.engines import Database
from app.datasets.multipart_upload import receive_upload, temporary_upload_dir
from app.http.dependencies import AppStateDep, DatabaseDep, ExecutorDep, SettingsDep, StoreDep
from app.http.fields import Slug
from app.http.pagination import Page, PageCursor, PageLimit, decode_cursor, split_page
from app.idempotency.header import IdempotencyDep
from app.registry import repository, service
from app.registry.schemas import (
    IMPORT_FORM,
    AliasUpdate,
    ModelListItem,
    ModelView,
    VersionCreate,
    VersionView,
)
from app.registry.service import ResolvedModel
from app.registry.views import model_view

router = APIRouter(prefix="/v1/models", tags=["models"])
import_router = APIRouter(prefix="/v1/models", tags=["models"])  # has its own body size limit

ServableCheck = Callable[[ResolvedModel], Awaitable[object]]  # raises if the version cannot serve


class AliasMover:
    """Moves an alias after checking that the version can serve."""

    def __init__(self, state: AppStateDep, database: DatabaseDep, store: StoreDep) -> None:
        self._check_servable = state.check_servable
        self._database = database
        self._store = store

    async def __call__(self, name: str, alias: str, number: int, *, rollback: bool = False) -> None:
        target = await run_in_threadpool(
            service.verify_version, self._database, store=self._store, name=name, number=number
        )
        await self._check_servable(target)
        await run_in_threadpool(self._move, name, alias, number, rollback=rollback)

    def _move(self, name: str, alias: str, number: int, *, rollback: bool) -> None:
        with self._database.write() as session:
            service.move_alias(session, name=name, alias=alias, number=number, rollback=rollback)


AliasMoverDep = Annotated[AliasMover, Depends(AliasMover)]
VersionNumber = Annotated[int, Path(ge=1, lt=10**9)]
_READ = [require_scope("models:read")]
_ADMIN = [require_scope("models:admin")]


@router.get("", dependencies=_READ)
def list_models(
    database: DatabaseDep, limit: PageLimit = 20, after: PageCursor = None
) -> Page[ModelListItem]:
    """List models, the newest first, without their versions."""
    with database.read() as session:
        models = repository.list_models(session, after=decode_cursor(after), limit=limit + 1)
        rows, following = split_page(models, limit)
        ids = [row.id for row in rows]
        versions = repository.get_version_count_and_newest_by_model(session, ids)
        aliases = repository.list_version_numbers_by_alias(session, ids)
        data = [
            ModelListItem(
                name=row.name,
                created_at=row.created_at,
                aliases=aliases[row.id],
                version_count=versions[row.id][0],
                newest=versions[row.id][1],
            )
            for row in rows
        ]
    return Page(data=data, next=following)


@router.get("/{name}", dependencies=_READ)
def get_model(name: Slug, database: DatabaseDep) -> ModelView:
    """Get a model with all its versions."""
    with database.read() as session:
        return model_view(session, repository.get_model(session, name))


@router.delete("/{name}", dependencies=_ADMIN, status_code=status.HTTP_204_NO_CONTENT)
def delete_model(name: Slug, database: DatabaseDep, store: StoreDep) -> None:
    """Delete a model that has no alias and of which no unfinished job reads a version."""
    with database.write() as session:
        service.delete_model(session, name=name, store=store)


@router.post("/{name}/versions", dependencies=_ADMIN, status_code=status.HTTP_201_CREATED)
def register_version(
    name: Slug,
    body: VersionCreate,
    build_idempotent_request: IdempotencyDep,
    database: DatabaseDep,
    store: StoreDep,
) -> VersionView:
    """Register the model of a job as the next version."""
    call = build_idempotent_request(body.model_dump(mode="json"))
    return service.register_version(database, name=name, job_id=body.job_id, store=store, call=call)


@import_router.post(
    "/{name}/versions/import", dependencies=_ADMIN, status_code=status.HTTP_201_CREATED,
    openapi_extra=IMPORT_FORM,
)  # fmt: skip
async def import_version(  # noqa: PLR0913 - FastAPI dependencies
    name: Slug,
    request: Request,
    build_idempotent_request: IdempotencyDep,
    settings: SettingsDep,
    database: DatabaseDep,
    store: StoreDep,
    executor: ExecutorDep,
) -> VersionView:
    """Import a model archive from another installation as the next version.

    The archive is unpacked and loaded in a sandbox. The model must reproduce the predictions that
    are stored with it.
    """
    async with temporary_upload_dir(settings) as directory:
        path = directory / "archive.tar"
        upload = await receive_upload(request, path=path, limit=settings.max_import_bytes)
        work = partial(
            service.import_model_version,
            database,
            store,
            settings=settings,
            name=name,
            archive=path,
            call=build_idempotent_request(upload.sha256),
        )
        return await executor.run_model_import(work)


@router.delete(
    "/{name}/versions/{number}", dependencies=_ADMIN, status_code=status.HTTP_204_NO_CONTENT
)
def delete_version(
    name: Slug, number: VersionNumber, database: DatabaseDep, store: StoreDep
) -> None:
    """Delete a version that has no alias and is not read by an unfinished job.

    Its number is never reused.
    """
    with database.write() as session:
        service.delete_version(session, name=name, number=number, store=store)


@router.put("/{name}/aliases/{alias}", dependencies=_ADMIN)
async def move_alias(
    name: Slug, alias: Slug, body: AliasUpdate, database: DatabaseDep, mover: AliasMoverDep
) -> ModelView:
    """Point an alias at a version; the alias `production` promotes it.

    The version must be intact, load, and reproduce the predictions stored with it. Otherwise the
    alias is not moved, and the old version continues to serve.
    """
    await mover(name, alias, body.version)
    return await run_in_threadpool(get_model, name, database)


@router.post("/{name}/aliases/{alias}/rollback", dependencies=_ADMIN)
async def roll_back_alias(
    name: Slug, alias: Slug, database: DatabaseDep, mover: AliasMoverDep
) -> ModelView:
    """Point an alias at its previous version. This can be done once."""
    number = await run_in_threadpool(_get_rollback_version_number, name, alias, database)
    await mover(name, alias, number, rollback=True)
    return await run_in_threadpool(get_model, name, database)


def _get_rollback_version_number(name: str, alias: str, database: Database) -> int:
    with database.read() as session:
        return service.get_rollback_version_number(session, name=name, alias=alias)


@router.delete("/{name}/aliases/{alias}", dependencies=_ADMIN, status_code=204)
def delete_alias(name: Slug, alias: Slug, database: DatabaseDep) -> None:
    """Delete an alias."""
    with database.write() as session:
        service.delete_alias(session, name=name, alias=alias)
