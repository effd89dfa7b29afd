"""`loraworks up`: the whole service in one command."""

import os
from pathlib import Path
from typing import Annotated

import typer

from app.cli.options import AsJson
from app.cli.output import facts, json_line, say
from app.cli.preflight import address, listen, load_settings, new_admin_key

Host = Annotated[str | None, typer.Option("--host", help="Address to listen on [LORAWORKS_HOST].")]
Port = Annotated[
    int | None,
    typer.Option("--port", min=0, max=65535, help="Port, 0 for a free one [LORAWORKS_PORT]."),
]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Folder of all that is kept [LORAWORKS_DATA_DIR]."),
]
NoWorker = Annotated[bool, typer.Option("--no-worker", help="Start the API alone.")]


def up(
    host: Host = None,
    port: Port = None,
    data_dir: DataDir = None,
    no_worker: NoWorker = False,
    as_json: AsJson = False,
) -> None:
    """Start the service: the API and one worker. Ctrl-C stops both.

    With --json one line with url, docs, data_dir and admin_key is printed once it is ready.
    """
    from app.cli.service import run_service
    from app.db.migrate import upgrade

    chosen = {"host": host, "port": port, "data_dir": data_dir}
    settings = load_settings(chosen)
    with listen(settings.host, settings.port) as listener:
        settings = load_settings({**chosen, "port": listener.getsockname()[1]})
        upgrade(settings)
        admin_key = new_admin_key(settings)
        url = address(settings.host, settings.port)

        def announce() -> None:
            ready = {"url": url, "docs": f"{url}/docs", "data_dir": str(settings.data_dir)}
            if as_json:
                json_line({**ready, "admin_key": admin_key})
                return
            facts([("API", url), ("docs", ready["docs"]), ("data", ready["data_dir"])])
            if admin_key:
                say(f"Admin key, shown only this once: {admin_key}", style="bold")
            say("Ready. Ctrl-C stops it.")

        # API and worker read their settings from the environment.
        os.environ["LORAWORKS_HOST"] = settings.host
        os.environ["LORAWORKS_PORT"] = str(settings.port)
        os.environ["LORAWORKS_DATA_DIR"] = str(settings.data_dir)
        run_service(settings, listener, announce, with_worker=not no_worker)
