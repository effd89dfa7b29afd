"""`loraworks api`: the API alone, where migrating and training are the business of others."""

from typing import Annotated

import typer

from app.cli.client import Client
from app.cli.options import AsJson, DataDir, Host, Port
from app.cli.output import say
from app.cli.preflight import address, listen, load_settings
from app.cli.ready import announcement

PROBE_SECONDS = 5.0

CheckOnly = Annotated[
    bool, typer.Option("--check", help="Start nothing; exit 4 unless the one here is ready.")
]


def api(
    host: Host = None,
    port: Port = None,
    data_dir: DataDir = None,
    check_only: CheckOnly = False,
    as_json: AsJson = False,
) -> None:
    """Start the API without a worker. The schema must be up to date: see `loraworks migrate`.

    With --json one line with url, docs, data_dir and admin_key_file is printed once it is ready.
    """
    from app.cli.service import run_service

    chosen = {"host": host, "port": port, "data_dir": data_dir}
    settings = load_settings(chosen)
    if check_only:
        _probe(address(settings.host, settings.port))
        return
    with listen(settings.host, settings.port) as listener:
        settings = load_settings({**chosen, "port": listener.getsockname()[1]})
        run_service(settings, listener, announcement(settings, as_json=as_json), with_worker=False)


def _probe(url: str) -> None:
    """Raises `Unreachable` with what is wrong."""
    with Client(url) as client:
        client.request("GET", "/readyz", timeout=PROBE_SECONDS)
    say("The API is ready.")
