"""What the service says of itself once it can be used."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from app.cli.output import facts, json_line, say
from app.cli.preflight import address

if TYPE_CHECKING:
    from app.settings import Settings


def announcement(
    settings: "Settings", *, admin_key: str | None = None, as_json: bool = False
) -> Callable[[], None]:
    """Prints where the service is: for people, or one line of JSON.

    A new admin key is shown on a terminal. Anywhere else it would stay, as in the log of a
    container, so it goes into a file, which is named. Raises `DataFolderUnusable`.
    """
    on_terminal = sys.stdout.isatty() and not as_json
    file = _keep(settings, admin_key) if admin_key and not on_terminal else None
    url = address(settings.host, settings.port)
    ready = {"url": url, "docs": f"{url}/docs", "data_dir": str(settings.data_dir)}

    def announce() -> None:
        if as_json:
            json_line({**ready, "admin_key_file": str(file) if file else None})
            return
        facts([("API", url), ("docs", ready["docs"]), ("data", ready["data_dir"])])
        if file:
            say(f"The admin key is in {file}, for its owner alone. Keep it and delete the file.")
        elif admin_key:
            say(f"Admin key, shown only this once: {admin_key}", style="bold")
        say("Ready. Ctrl-C stops it.")

    return announce


def _keep(settings: "Settings", admin_key: str) -> Path:
    from app.resources import using_data_folder

    file = settings.data_dir.absolute() / "admin-key"
    with using_data_folder(settings):
        file.unlink(missing_ok=True)  # of a key that was revoked
        mode = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with open(os.open(file, mode, 0o600), "w", encoding="utf-8") as opened:
            opened.write(admin_key + "\n")
    return file
