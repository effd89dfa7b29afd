"""Named models, their versions and aliases."""

import shutil
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, status
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from app.auth.middleware import requires
from app.datasets import files
from app.datasets.upload import receive
from app.http.dependencies import DatabaseDep, SettingsDep, StoreDep, WorkDep
from app.http.fields import Slug
from app.http.pagination import After, Limit, Page, cut, decode
from app.idempotency.header import KeyedDep
from app.registry import imports, repository, service
from app.registry.schemas import (
    IMPORT_FORM,
    AliasMove,
    ModelListItem,
    ModelView,
    VersionCreate,
    VersionView,
)
from app.registry.service import Resolved
from app.registry.tables import RegisteredModel

router = APIRouter(prefix="/v1/models", tags=["models"])
importing = APIRouter(prefix="/v1/models", tags=["models"])  # with a limit of the body of its own

TryOut = Callable[[Resolved], Awaitable[object]]  # raises where a version cannot serve


class Moving:
    """Moves an alias once its version has shown that it can serve."""

    def __init__(self, request: Request, database: DatabaseDep, store: StoreDep) -> None:
        self._try_out: TryOut = request.app.state.try_out  # set by who serves
        self._database = database
        self._store = store

    async def __call__(self, name: str, alias: str, number: int, *, back: bool = False) -> None:
        target = await run_in_threadpool(
            service.examined, self._database, store=self._store, name=name, number=number
        )
        await self._try_out(target)
        await run_in_threadpool(
            service.move_alias, self._database, name=name, alias=alias, number=number, back=back
        )


MovingDep = Annotated[Moving, Depends(Moving)]
Number = Annotated[int, Path(ge=1, lt=10**9)]
_READ = [requires("models:read")]
_ADMIN = [requires("models:admin")]


@router.get("", dependencies=_READ)
def list_models(
    database: DatabaseDep, limit: Limit = 20, after: After = None
) -> Page[ModelListItem]:
    """Models, the newest name first, without their versions."""
    with database.read() as session:
        found = repository.models(session, after=decode(after), limit=limit + 1)
        rows, following = cut(found, limit)
        versions = repository.version_counts(session, [row.id for row in rows])
        data = [
            ModelListItem(
                name=row.name,
                created_at=row.created_at,
                aliases=repository.aliases(session, row.id),
                version_count=versions[row.id][0],
                newest=versions[row.id][1],
            )
            for row in rows
        ]
    return Page(data=data, next=following)


@router.get("/{name}", dependencies=_READ)
def read_model(name: Slug, database: DatabaseDep) -> ModelView:
    """One model with all its versions."""
    with database.read() as session:
        return _view(session, repository.model(session, name))


@router.delete("/{name}", dependencies=_ADMIN, status_code=status.HTTP_204_NO_CONTENT)
def delete_model(name: Slug, database: DatabaseDep, store: StoreDep) -> None:
    """Forget a model that has no alias left."""
    with database.write() as session:
        service.delete_model(session, name=name, store=store)


@router.post("/{name}/versions", dependencies=_ADMIN, status_code=status.HTTP_201_CREATED)
def register_version(
    name: Slug, body: VersionCreate, keyed: KeyedDep, database: DatabaseDep, store: StoreDep
) -> VersionView:
    """Make the result of a job the next version."""
    call = keyed.call(body.model_dump(mode="json"))
    return service.register_job(database, name=name, job_id=body.job_id, store=store, call=call)


@importing.post(
    "/{name}/versions/import", dependencies=_ADMIN, status_code=status.HTTP_201_CREATED,
    openapi_extra=IMPORT_FORM,
)  # fmt: skip
async def import_version(  # noqa: PLR0913 - what an import touches
    name: Slug,
    request: Request,
    keyed: KeyedDep,
    settings: SettingsDep,
    database: DatabaseDep,
    store: StoreDep,
    at_work: WorkDep,
) -> VersionView:
    """Make the archive of a model of another installation the next version.

    It is unpacked and loaded apart, and must give the answers that were kept with it.
    """
    folder = files.incoming(settings)
    try:
        path = folder / "archive.tar"
        upload = await receive(request, path=path, limit=settings.max_import_bytes)
        work = partial(
            imports.add,
            database,
            store,
            settings=settings,
            name=name,
            archive=path,
            call=keyed.call(upload.sha256),
        )
        return await at_work.check(work)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@router.delete(
    "/{name}/versions/{number}", dependencies=_ADMIN, status_code=status.HTTP_204_NO_CONTENT
)
def delete_version(name: Slug, number: Number, database: DatabaseDep, store: StoreDep) -> None:
    """Forget a version at which no alias points. Its number never comes back."""
    with database.write() as session:
        service.delete_version(session, name=name, number=number, store=store)


@router.put("/{name}/aliases/{alias}", dependencies=_ADMIN)
async def move_alias(
    name: Slug, alias: Slug, body: AliasMove, database: DatabaseDep, moving: MovingDep
) -> ModelView:
    """Point an alias at a version: `production` promotes it.

    Refused, so that the old version serves on, unless the new one is whole, loads, and answers as
    it did when it was made.
    """
    await moving(name, alias, body.version)
    return await run_in_threadpool(read_model, name, database)


@router.post("/{name}/aliases/{alias}/rollback", dependencies=_ADMIN)
async def roll_back(name: Slug, alias: Slug, database: DatabaseDep, moving: MovingDep) -> ModelView:
    """Point an alias at the version before, once."""
    number = await run_in_threadpool(service.previous, database, name=name, alias=alias)
    await moving(name, alias, number, back=True)
    return await run_in_threadpool(read_model, name, database)


@router.delete("/{name}/aliases/{alias}", dependencies=_ADMIN, status_code=204)
def delete_alias(name: Slug, alias: Slug, database: DatabaseDep) -> None:
    """Take an alias away."""
    with database.write() as session:
        service.delete_alias(session, name=name, alias=alias)


def _view(session: Session, model: RegisteredModel) -> ModelView:
    return ModelView(
        name=model.name,
        created_at=model.created_at,
        aliases=repository.aliases(session, model.id),
        versions=[VersionView.of(model.name, v) for v in repository.versions(session, model.id)],
    )
