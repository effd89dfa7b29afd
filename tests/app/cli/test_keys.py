"""`loraworks keys` on a database, and the keys at a service."""

from uuid import UUID, uuid4

import httpx2
import pytest
from sqlalchemy import update

from app.auth.service import start_session_purging_expired
from app.auth.tables import ApiKey, BrowserSession
from app.database import migrations
from app.database.engines import Database
from app.main import create_app
from app.settings import Settings
from tests.app.cli.conftest import Run, answer, serving


def test_key_is_created_shown_once_used_and_revoked(
    run: Run, settings: Settings, auth_settings: Settings
) -> None:
    folder = str(settings.data_dir)
    made = answer(run("keys", "create", "ada", "--data-dir", folder, "--json"))
    assert made["key"].startswith("lw_")
    listed = run("keys", "list", "--data-dir", folder)
    assert "ada" in listed.stdout
    assert made["key"] not in listed.stdout

    quiet = auth_settings.model_copy(update={"log_level": "ERROR"})
    with serving(create_app(quiet)) as url:
        assert run("jobs", "list", LORAWORKS_URL=url).exit_code == 3
        in_environment = run("jobs", "list", LORAWORKS_URL=url, LORAWORKS_API_KEY=made["key"])
        assert in_environment.exit_code == 0
        for arguments in (
            ("jobs", "list", "--url", url, "--key", made["key"]),
            ("--url", url, "--key", made["key"], "jobs", "list"),
        ):
            assert run(*arguments).exit_code == 0

    assert run("keys", "revoke", made["id"], LORAWORKS_DATA_DIR=folder).exit_code == 0
    [key] = answer(run("keys", "list", "--json", LORAWORKS_DATA_DIR=folder))
    assert key["revoked_at"] is not None
    with serving(create_app(quiet)) as url:
        refused = run("jobs", "list", LORAWORKS_URL=url, LORAWORKS_API_KEY=made["key"])
    assert refused.exit_code == 3
    assert "(key_revoked)" in refused.stderr


def test_browser_sessions_are_listed_and_ended(
    run: Run, settings: Settings, auth_settings: Settings
) -> None:
    here = {"LORAWORKS_DATA_DIR": str(settings.data_dir)}
    key = answer(run("keys", "create", "ada", "--json", **here))
    assert "No browser is signed in" in run("keys", "sessions", **here).output
    with serving(create_app(auth_settings.model_copy(update={"log_level": "ERROR"}))) as url:
        for _ in range(3):
            signed_in = httpx2.post(f"{url}/sign-in", data={"key": key["key"]})
            assert signed_in.status_code == 200
    first, *others = answer(run("keys", "sessions", "--json", **here))
    assert (first["key_id"], first["key_name"]) == (key["id"], "ada")
    assert "ada" in run("keys", "sessions", **here).stdout
    assert answer(run("keys", "sign-out", first["id"], "--json", **here)) == {"ended": 1}
    assert answer(run("keys", "sessions", "--json", **here)) == others
    assert "2" in run("keys", "sign-out", key["id"], **here).output
    again = run("keys", "sign-out", key["id"], **here)
    assert (again.exit_code, "(session_not_found)" in again.stderr) == (3, True)


@pytest.mark.parametrize(
    ("table", "column"),
    [(BrowserSession, "expires_at"), (BrowserSession, "last_used_at"), (ApiKey, "expires_at")],
)
def test_ended_sessions_are_not_listed(
    run: Run,
    settings: Settings,
    database: Database,
    table: type[BrowserSession | ApiKey],
    column: str,
) -> None:
    here = {"LORAWORKS_DATA_DIR": str(settings.data_dir)}
    for name in ("ada", "bob"):
        key_id = UUID(answer(run("keys", "create", name, "--json", **here))["id"])
        with database.write() as session:
            start_session_purging_expired(
                session, pepper=b"", key_id=key_id, seconds=99, idle_seconds=99
            )
    id_column = BrowserSession.key_id if table is BrowserSession else ApiKey.id
    with database.write() as session:
        session.execute(update(table).where(id_column == key_id).values({column: 1.0}))
    listed = answer(run("keys", "sessions", "--json", **here))
    assert [each["key_name"] for each in listed] == ["ada"]


def test_scopes_and_days_limit_a_key(run: Run, settings: Settings) -> None:
    made = answer(
        run(
            "keys", "create", "ada", "--scope", "predict", "--scope", "jobs:read", "--days", "2",
            "--json", LORAWORKS_DATA_DIR=str(settings.data_dir),
        )
    )  # fmt: skip
    assert made["scopes"] == ["predict", "jobs:read"]
    assert made["expires_at"] is not None


def test_a_key_cannot_outlive_the_calendar(run: Run, settings: Settings) -> None:
    """Its expiry could not be shown, so that no key could be listed any more."""
    folder = str(settings.data_dir)
    refused = run("keys", "create", "ada", "--days", "1e9", LORAWORKS_DATA_DIR=folder)
    assert refused.exit_code == 2
    longest = run("keys", "create", "ada", "--days", "36500", LORAWORKS_DATA_DIR=folder)
    assert longest.exit_code == 0
    assert len(answer(run("keys", "list", "--json", LORAWORKS_DATA_DIR=folder))) >= 1


def test_missing_database_is_created(run: Run, settings: Settings) -> None:
    fresh = settings.data_dir / "fresh"
    assert run("keys", "create", "ada", "--data-dir", str(fresh)).exit_code == 0
    assert (fresh / "loraworks.sqlite3").exists()


def test_an_older_schema_is_not_upgraded(run: Run, settings: Settings) -> None:
    """The old version of the service may be running on it."""
    folder = settings.data_dir / "older"
    older = settings.model_copy(update={"data_dir": folder})
    assert run("keys", "create", "ada", "--data-dir", str(folder)).exit_code == 0
    migrations.downgrade(older, "-1")
    for arguments in (("keys", "list"), ("keys", "create", "bob")):
        refused = run(*arguments, "--data-dir", str(folder))
        assert (refused.exit_code, "(schema_older)" in refused.stderr) == (4, True)


def test_unknown_scope_or_key_is_rejected(run: Run, settings: Settings) -> None:
    folder = str(settings.data_dir)
    scope = run("keys", "create", "ada", "--scope", "everything", LORAWORKS_DATA_DIR=folder)
    assert scope.exit_code == 3
    assert "(scope_unknown)" in scope.stderr
    key = run("keys", "revoke", str(uuid4()), LORAWORKS_DATA_DIR=folder)
    assert key.exit_code == 3
    assert "(key_not_found)" in key.stderr


def test_invalid_setting_is_named(run: Run) -> None:
    result = run("keys", "list", LORAWORKS_PORT="many")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: LORAWORKS_PORT: ")


def test_mistyped_data_directory_is_not_created(run: Run, settings: Settings) -> None:
    typo = settings.data_dir / "typo"
    for arguments in (("keys", "list"), ("keys", "revoke", str(uuid4()))):
        refused = run(*arguments, "--data-dir", str(typo))
        assert (refused.exit_code, "(no_data)" in refused.stderr) == (2, True)
    assert not typo.exists()


def test_key_needs_a_name(run: Run, settings: Settings) -> None:
    for name in ("", "  ", "a" * 65, "a\x1b[1m"):
        refused = run("keys", "create", name, LORAWORKS_DATA_DIR=str(settings.data_dir))
        assert (refused.exit_code, "(key_name_invalid)" in refused.stderr) == (3, True)
