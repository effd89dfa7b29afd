"""Options shared by several commands, and a decorator that injects what is built from them."""

import functools
import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.local_service_url import local_service_url

if TYPE_CHECKING:
    from app.cli.client import Client


# The address where `loraworks up` listens in the same environment.
DEFAULT_URL = local_service_url(
    os.environ.get("LORAWORKS_HOST") or "127.0.0.1", os.environ.get("LORAWORKS_PORT") or "8000"
)

Url = Annotated[
    str | None,
    typer.Option("--url", help=f"URL of the service [LORAWORKS_URL, or {DEFAULT_URL}]."),
]
Key = Annotated[str | None, typer.Option("--key", help="API key [LORAWORKS_API_KEY].")]
Host = Annotated[str | None, typer.Option("--host", help="Address to listen on [LORAWORKS_HOST].")]
Port = Annotated[
    int | None,
    typer.Option("--port", min=0, max=65535, help="Port, 0 for a free one [LORAWORKS_PORT]."),
]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Directory for all data [LORAWORKS_DATA_DIR]."),
]
ExistingDataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Data directory of the service [LORAWORKS_DATA_DIR]."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Limit = Annotated[int, typer.Option("--limit", min=1, help="Maximum number of items.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="Job id.")]
SweepId = Annotated[str, typer.Argument(metavar="SWEEP", help="Sweep id.")]

Command = Callable[..., None]


def inject_command_parameter(
    name: str, source: Callable[..., AbstractContextManager[Any]]
) -> Callable[[Command], Command]:
    """Return a decorator that passes the value of `source` as the command's parameter `name`.

    The parameters of `source` become options of the command.
    """
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
        run.__annotations__ = {p.name: p.annotation for p in named}
        run.__signature__ = own.replace(parameters=named)  # type: ignore[attr-defined]
        return run

    return decorate


@contextmanager
def _client(ctx: typer.Context, url: Url = None, key: Key = None) -> Iterator["Client"]:
    """Yield a client. Options after the command override those before it (`loraworks --url …`)."""
    from app.cli.client import Client  # slow: it loads httpx2 and all response bodies

    before_url, before_key = ctx.obj or (None, None)
    with Client(url or before_url or DEFAULT_URL, key or before_key) as client:
        yield client


with_client = inject_command_parameter("client", _client)
