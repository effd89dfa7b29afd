"""`loraworks keys …`. Works on the database directly, because no route creates keys."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from app.cli.options import AsJson, ExistingDataDir, inject_command_parameter
from app.cli.output import Json, format_time, print_json, print_line, print_table
from app.cli.preflight import load_settings_and_configure_process, load_settings_requiring_database

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from app.auth.tables import ApiKey, BrowserSession
    from app.settings import Settings

app = typer.Typer(
    help="Create, list and revoke API keys and browser sessions on the machine of the service."
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the key's owner.")]
Scopes = Annotated[
    list[str] | None,
    typer.Option(
        "--scope", help="Scope of the key, such as predict (repeatable). Default: all scopes."
    ),
]
Days = Annotated[
    float | None,
    # Times of more years than a calendar has cannot be shown.
    typer.Option("--days", min=0.01, max=36_500, help="Days until the key expires."),
]
KeyId = Annotated[UUID, typer.Argument(metavar="KEY", help="Key id.")]
SessionId = Annotated[
    UUID, typer.Argument(metavar="SESSION", help="Session id, or a key id for all of its sessions.")
]


class _SettingsAndSession:
    """Settings and a session on a database whose schema is up to date."""

    def __init__(self, settings: "Settings", session: "Session") -> None:
        self.settings = settings
        self.session = session


@contextmanager
def _open(settings: "Settings") -> Iterator[_SettingsAndSession]:
    from app.database.engines import open_database
    from app.database.migrations import check_schema_revision

    database = open_database(settings)
    try:
        check_schema_revision(database)
        with database.write() as session:
            yield _SettingsAndSession(settings, session)
    finally:
        database.close()


@contextmanager
def _open_database(data_dir: ExistingDataDir = None) -> Iterator[_SettingsAndSession]:
    """Open the database; create the embedded one if the service has not started yet.

    One that exists is not upgraded: an older version of the service may be running on it.
    """
    from app.database.migrations import upgrade

    settings = load_settings_and_configure_process({"data_dir": data_dir})
    if settings.database_url is None and not settings.default_sqlite_path.exists():
        upgrade(settings)
    with _open(settings) as keys:
        yield keys


@contextmanager
def _open_existing_database(data_dir: ExistingDataDir = None) -> Iterator[_SettingsAndSession]:
    """Open the database, but raise `UsageError` if there is no service data yet."""
    with _open(load_settings_requiring_database(data_dir)) as keys:
        yield keys


with_database = inject_command_parameter("keys", _open_database)
with_existing_database = inject_command_parameter("keys", _open_existing_database)


@app.command("create")
@with_database
def create(
    keys: _SettingsAndSession,
    name: Name,
    scopes: Scopes = None,
    days: Days = None,
    as_json: AsJson = False,
) -> None:
    """Create an API key. Its secret is shown once and not stored."""
    from app.auth.secrets import load_or_create_pepper
    from app.auth.service import create_key as create_key
    from app.auth.tables import ALL_SCOPES
    from app.database.engines import display_url

    created = create_key(
        keys.session,
        pepper=load_or_create_pepper(keys.settings),
        name=name,
        scopes=scopes or ALL_SCOPES,
        days=days,
    )
    if as_json:
        print_json({**_key_view(created.key), "key": created.text})
        return
    print_line(created.text, style="bold")
    print_line("Save it now: it is shown only once. Send it as `Authorization: Bearer …`.")
    print_line(f"It is valid for the service on {display_url(keys.settings)}.")


@app.command("list")
@with_existing_database
def list_api_keys(keys: _SettingsAndSession, as_json: AsJson = False) -> None:
    """List API keys, without their secrets."""
    from app.auth.repository import list_keys

    found = list_keys(keys.session)
    if as_json:
        print_json([_key_view(key) for key in found])
        return
    print_table(
        ["key", "name", "scopes", "created", "expires", "revoked", "last used"],
        [
            (
                key.id,
                key.name,
                ", ".join(key.scopes),
                format_time(key.created_at),
                format_time(key.expires_at),
                format_time(key.revoked_at),
                format_time(key.last_used_at),
            )
            for key in found
        ],
        empty="No keys.",
    )


@app.command("revoke")
@with_existing_database
def revoke(keys: _SettingsAndSession, key: KeyId, as_json: AsJson = False) -> None:
    """Revoke an API key and its sessions. Running services reject it within a minute."""
    from app.auth.service import revoke_key_and_sessions as revoke_key_and_sessions

    revoked = _key_view(revoke_key_and_sessions(keys.session, key_id=key))
    print_json(revoked) if as_json else print_line(f"Revoked key {revoked['name']}.")


@app.command("sessions")
@with_existing_database
def list_sessions(keys: _SettingsAndSession, as_json: AsJson = False) -> None:
    """List the signed-in browsers and their keys."""
    from app.auth.repository import list_keys, list_sessions

    names = {key.id: key.name for key in list_keys(keys.session)}
    sessions = list_sessions(keys.session, idle_seconds=keys.settings.session_idle_seconds)
    if as_json:
        print_json([_session_view(each, names[each.key_id]) for each in sessions])
        return
    print_table(
        ["session", "key", "signed in", "last used", "expires"],
        [
            (
                each.id,
                names[each.key_id],
                format_time(each.created_at),
                format_time(each.last_used_at),
                format_time(each.expires_at),
            )
            for each in sessions
        ],
        empty="No browser is signed in.",
    )


@app.command("sign-out")
@with_existing_database
def end_browser_sessions(
    keys: _SettingsAndSession, session: SessionId, as_json: AsJson = False
) -> None:
    """End a browser session, or all sessions of a key. Takes effect within a minute."""
    from app.auth.service import end_session_or_key_sessions

    count = end_session_or_key_sessions(keys.session, id_=session)
    print_json({"ended": count}) if as_json else print_line(f"Ended {count} session(s).")


def _key_view(key: "ApiKey") -> Json:
    return {
        "id": str(key.id),
        "name": key.name,
        "scopes": key.scopes,
        **_timestamps(key, "created_at", "expires_at", "revoked_at", "last_used_at"),
    }


def _session_view(session: "BrowserSession", key_name: str) -> Json:
    return {
        "id": str(session.id),
        "key_id": str(session.key_id),
        "key_name": key_name,
        **_timestamps(session, "created_at", "last_used_at", "expires_at"),
    }


def _timestamps(row: "ApiKey | BrowserSession", *names: str) -> Json:
    times = {name: getattr(row, name) for name in names}
    return {
        name: None if at is None else datetime.fromtimestamp(at, UTC).isoformat()
        for name, at in times.items()
    }
