"""FastAPI dependencies shared by all routes.

They are coroutines because FastAPI runs plain functions in a thread, which costs more than they do.
"""

from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Request

from app.database.engines import Database
from app.http.concurrency import RequestExecutor
from app.queue.dispatch import JobQueue
from app.resources import Resources
from app.settings import Settings
from app.storage.store import Store


@dataclass(frozen=True, slots=True)
class Caller:
    """The authenticated caller of a request: the id, name and scopes of its API key."""

    id: UUID
    name: str
    scopes: frozenset[str]


def _resources(request: Request) -> Resources:
    resources: Resources = request.app.state.resources
    return resources


async def _settings(request: Request) -> Settings:
    return _resources(request).settings


async def _database(request: Request) -> Database:
    return _resources(request).database


async def _store(request: Request) -> Store:
    return _resources(request).store


async def _queue(request: Request) -> JobQueue:
    return _resources(request).queue


async def _caller(request: Request) -> Caller:
    caller: Caller = request.state.caller  # set before routing, see app.auth.middleware
    return caller


async def _executor(request: Request) -> RequestExecutor:
    return RequestExecutor(request)


SettingsDep = Annotated[Settings, Depends(_settings)]
DatabaseDep = Annotated[Database, Depends(_database)]
StoreDep = Annotated[Store, Depends(_store)]
QueueDep = Annotated[JobQueue, Depends(_queue)]
CallerDep = Annotated[Caller, Depends(_caller)]
ExecutorDep = Annotated[RequestExecutor, Depends(_executor)]
