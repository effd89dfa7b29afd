"""`loraworks up`: the whole service in one command."""

import os
from contextlib import nullcontext
from typing import Annotated

import typer

from app.cli.options import AsJson, DataDir, Host, Port
from app.cli.preflight import alone, listen, load_settings, new_admin_key
from app.cli.ready import announcement

NoWorker = Annotated[bool, typer.Option("--no-worker", help="Start the API alone.")]


def up(
    host: Host = None,
    port: Port = None,
    data_dir: DataDir = None,
    no_worker: NoWorker = False,
    as_json: AsJson = False,
) -> None:
    """Start the service: the API and one worker. Ctrl-C stops both.

    With --json one line with url, docs, data_dir and admin_key_file is printed once it is ready.
    """
    from app.cli.service import run_service
    from app.database.migrations import upgrade

    chosen = {"host": host, "port": port, "data_dir": data_dir}
    settings = load_settings(chosen)
    with listen(settings.host, settings.port) as listener:
        settings = load_settings({**chosen, "port": listener.getsockname()[1]})
        # APIs beside each other need a database that is made for it.
        embedded = settings.database_url is None
        with nullcontext() if no_worker and not embedded else alone(settings):
            upgrade(settings)
            announce = announcement(settings, admin_key=new_admin_key(settings), as_json=as_json)
            # A broker wakes workers that listen to it. This one only polls, so it must do so often.
            os.environ.setdefault("LORAWORKS_POLL_SECONDS", "1")
            run_service(settings, listener, announce, with_worker=not no_worker)
