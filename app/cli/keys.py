"""`loraworks keys …`: works on the database of this machine, since no route makes keys."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from app.cli.options import AsJson, ServiceDir, supplied
from app.cli.output import as_json as print_json
from app.cli.output import moment, say, table
from app.cli.preflight import load_settings, settings_of_a_service
from app.cli.responses import Json

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from app.auth.tables import ApiKey, BrowserSession
    from app.settings import Settings

app = typer.Typer(
    help="Make, list and revoke API keys and browser sessions, on the machine of the service."
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Whose key it is.")]
Scopes = Annotated[
    list[str] | None,
    typer.Option("--scope", help="What it may do; repeated. Default: everything."),
]
Days = Annotated[float | None, typer.Option("--days", min=0.01, help="How long it is good for.")]
KeyId = Annotated[UUID, typer.Argument(metavar="KEY", help="Id of the key.")]
SessionId = Annotated[
    UUID, typer.Argument(metavar="SESSION", help="Id of the session, or of a key: all of its.")
]


class _Keys:
    """Settings and a session on the database, whose schema fits."""

    def __init__(self, settings: "Settings", session: "Session") -> None:
        self.settings = settings
        self.session = session


@contextmanager
def _database(data_dir: ServiceDir = None) -> Iterator[_Keys]:
    from app.database.engines import open_database
    from app.database.migrations import check, upgrade

    settings = load_settings({"data_dir": data_dir})
    if settings.database_url is None:  # a service of one machine, which may not have started yet
        upgrade(settings)
    database = open_database(settings)
    try:
        check(database)
        with database.write() as session:
            yield _Keys(settings, session)
    finally:
        database.close()


@contextmanager
def _kept(data_dir: ServiceDir = None) -> Iterator[_Keys]:
    """The same, but of a service that was here before."""
    settings_of_a_service(data_dir)
    with _database(data_dir) as keys:
        yield keys


with_keys = supplied("keys", _database)
with_kept_keys = supplied("keys", _kept)


@app.command("create")
@with_keys
def create(
    keys: _Keys, name: Name, scopes: Scopes = None, days: Days = None, as_json: AsJson = False
) -> None:
    """Make a key. Its text is shown once and kept nowhere."""
    from app.auth.scopes import ALL_SCOPES
    from app.auth.secrets import load_pepper
    from app.auth.service import create as create_key
    from app.database.engines import address

    made = create_key(
        keys.session,
        pepper=load_pepper(keys.settings),
        name=name,
        scopes=scopes or ALL_SCOPES,
        days=days,
    )
    if as_json:
        print_json({**_view(made.key), "key": made.text})
        return
    say(made.text, style="bold")
    say("Keep it: it is shown only this once. Send it as `Authorization: Bearer …`.")
    say(f"It is for the service on {address(keys.settings)}.")


@app.command("list")
@with_kept_keys
def list_keys(keys: _Keys, as_json: AsJson = False) -> None:
    """All keys, without their texts."""
    from app.auth.repository import list_all

    found = [_view(key) for key in list_all(keys.session)]
    if as_json:
        print_json(found)
        return
    table(
        ["key", "name", "scopes", "created", "expires", "revoked", "last used"],
        [
            (
                key["id"],
                key["name"],
                ", ".join(key["scopes"]),
                *(moment(key[at]) for at in ("created_at", "expires_at", "revoked_at")),
                moment(key["last_used_at"]),
            )
            for key in found
        ],
        empty="No keys.",
    )


@app.command("revoke")
@with_kept_keys
def revoke(keys: _Keys, key: KeyId, as_json: AsJson = False) -> None:
    """End a key and its sessions. Running services refuse it within a minute."""
    from app.auth.service import revoke as revoke_key

    revoked = _view(revoke_key(keys.session, key_id=key))
    print_json(revoked) if as_json else say(f"Revoked the key {revoked['name']}.")


@app.command("sessions")
@with_kept_keys
def list_sessions(keys: _Keys, as_json: AsJson = False) -> None:
    """Browsers that are signed in, and with which key."""
    from app.auth.repository import list_all, sessions

    names = {key.id: key.name for key in list_all(keys.session)}
    found = [
        {
            "id": str(each.id),
            "key_id": str(each.key_id),
            "key_name": names[each.key_id],
            **_times(each, "created_at", "last_used_at", "expires_at"),
        }
        for each in sessions(keys.session)
    ]
    if as_json:
        print_json(found)
        return
    table(
        ["session", "key", "signed in", "last used", "expires"],
        [
            (
                each["id"],
                each["key_name"],
                *(moment(each[at]) for at in ("created_at", "last_used_at", "expires_at")),
            )
            for each in found
        ],
        empty="No browser is signed in.",
    )


@app.command("sign-out")
@with_kept_keys
def sign_out(keys: _Keys, session: SessionId, as_json: AsJson = False) -> None:
    """End a browser session, or all sessions of a key. Services refuse them within a minute."""
    from app.auth.service import end_sessions

    count = end_sessions(keys.session, id_=session)
    print_json({"ended": count}) if as_json else say(f"Ended sessions: {count}.")


def _view(key: "ApiKey") -> Json:
    return {
        "id": str(key.id),
        "name": key.name,
        "scopes": key.scopes,
        **_times(key, "created_at", "expires_at", "revoked_at", "last_used_at"),
    }


def _times(row: "ApiKey | BrowserSession", *names: str) -> Json:
    times = {name: getattr(row, name) for name in names}
    return {
        name: None if at is None else datetime.fromtimestamp(at, UTC).isoformat()
        for name, at in times.items()
    }
