"""What the service says of itself once it can be used."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from app.cli.output import facts, json_line, say
from app.cli.preflight import address

if TYPE_CHECKING:
    from app.settings import Settings


def announcement(
    settings: "Settings", *, admin_key: str | None = None, as_json: bool = False
) -> Callable[[], None]:
    """Prints where the service is: for people, or one line of JSON."""
    url = address(settings.host, settings.port)
    ready = {"url": url, "docs": f"{url}/docs", "data_dir": str(settings.data_dir)}

    def announce() -> None:
        if as_json:
            json_line({**ready, "admin_key": admin_key})
            return
        facts([("API", url), ("docs", ready["docs"]), ("data", ready["data_dir"])])
        if admin_key:
            say(f"Admin key, shown only this once: {admin_key}", style="bold")
        say("Ready. Ctrl-C stops it.")

    return announce
