"""Options that several commands share, and the way a command gets what is made from them."""

import functools
import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.client import Client

# Where `loraworks up` listens in the same environment.
DEFAULT_URL = f"http://127.0.0.1:{os.environ.get('LORAWORKS_PORT', '8000')}"

Url = Annotated[
    str | None,
    typer.Option("--url", help=f"Address of the service [LORAWORKS_URL, or {DEFAULT_URL}]."),
]
Key = Annotated[str | None, typer.Option("--key", help="API key [LORAWORKS_API_KEY].")]
Host = Annotated[str | None, typer.Option("--host", help="Address to listen on [LORAWORKS_HOST].")]
Port = Annotated[
    int | None,
    typer.Option("--port", min=0, max=65535, help="Port, 0 for a free one [LORAWORKS_PORT]."),
]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Folder of all that is kept [LORAWORKS_DATA_DIR]."),
]
ServiceDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Folder of the service [LORAWORKS_DATA_DIR].")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Limit = Annotated[int, typer.Option("--limit", min=1, help="How many at most.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="Id of the job.")]
SweepId = Annotated[str, typer.Argument(metavar="SWEEP", help="Id of the sweep.")]

Command = Callable[..., None]


def supplied(
    name: str, source: Callable[..., AbstractContextManager[Any]]
) -> Callable[[Command], Command]:
    """A decorator: the command's parameter `name` comes from `source`, whose own parameters become
    options of the command."""
    added = inspect.signature(source).parameters

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def run(**values: Any) -> None:
            given = {parameter: values.pop(parameter) for parameter in added}
            with source(**given) as supply:
                command(**{name: supply}, **values)

        own = inspect.signature(command)
        kept = [parameter for parameter in own.parameters.values() if parameter.name != name]
        named = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in (*kept, *added.values())
        ]
        run.__signature__ = own.replace(parameters=named)  # type: ignore[attr-defined]
        return run

    return decorate


@contextmanager
def _client(ctx: typer.Context, url: Url = None, key: Key = None) -> Iterator[Client]:
    """Given after the command, else before it (`loraworks --url … jobs list`)."""
    before_url, before_key = ctx.obj or (None, None)
    with Client(url or before_url or DEFAULT_URL, key or before_key) as client:
        yield client


connected = supplied("client", _client)
