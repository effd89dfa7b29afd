"""Settings from the environment."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from app.settings import Settings


def test_all_paths_are_in_the_data_directory(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    assert settings.sqlalchemy_url == f"sqlite:///{tmp_path}/loraworks.sqlite3"
    for path in (settings.artifacts_dir, settings.uploads_dir, settings.work_dir):
        assert path.parent == tmp_path


def test_relative_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Settings().data_dir == tmp_path / "data"


def test_lists_are_comma_separated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAWORKS_ALLOWED_HOSTS", "lab.example, ml.example,")
    monkeypatch.setenv("LORAWORKS_BASE_DIRS", "/srv/models")
    settings = Settings()
    assert settings.allowed_hosts == ("lab.example", "ml.example")
    assert settings.base_dirs == (Path("/srv/models"),)
    assert "distilbert-base-uncased" in settings.hub_models
    monkeypatch.setenv("LORAWORKS_HUB_MODELS", "")
    assert Settings().hub_models == ()


def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = Settings()
    for name, field in Settings.model_fields.items():
        if not isinstance(field.default, tuple):  # which an empty variable makes empty
            monkeypatch.setenv(f"LORAWORKS_{name.upper()}", "")
    assert Settings() == defaults


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "example.org"])  # noqa: S104
def test_non_loopback_host_requires_auth(host: str) -> None:
    with pytest.raises(ValidationError, match=r"LORAWORKS_HOST=.*LORAWORKS_AUTH=on"):
        Settings(host=host)
    assert Settings(host=host, auth="on").host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost"])
def test_loopback_host_requires_no_auth(host: str) -> None:
    assert Settings(host=host).auth == "off"


@pytest.mark.parametrize(
    "origin", ["*", "lab.example", "https://lab.example/", "https://*.example"]
)
def test_invalid_origins_are_rejected(origin: str) -> None:
    with pytest.raises(ValidationError, match="an origin is a scheme and a host"):
        Settings(allowed_origins=(origin,))


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1  # type: ignore[misc]


@pytest.mark.parametrize("name", ["heartbeat_seconds", "reconcile_seconds"])
def test_lease_must_be_at_least_two_heartbeats(name: str) -> None:
    with pytest.raises(ValidationError, match=f"LORAWORKS_{name.upper()}"):
        Settings.model_validate({name: 40, "lease_seconds": 60})


def test_files_of_requests_in_progress_are_no_orphans() -> None:
    with pytest.raises(ValidationError, match="orphan_seconds"):
        Settings(orphan_seconds=120)


def test_errors_and_repr_hide_the_pepper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAWORKS_PEPPER", "short-secret")
    with pytest.raises(ValidationError) as caught:
        Settings()
    assert "short-secret" not in str(caught.value)
    monkeypatch.setenv("LORAWORKS_PEPPER", "long-secret" * 4)
    assert "long-secret" not in repr(Settings())


@pytest.mark.parametrize(
    "name", ["KEEP_CHECKPOINT_DAYS", "KEEP_ARTIFACT_DAYS", "KEEP_JOB_DAYS", "KEEP_CURVE_POINTS"]
)
def test_retention_has_a_limit_by_default_and_none_on_request(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    field = name.lower()
    assert getattr(Settings(), field) > 0
    monkeypatch.setenv(f"LORAWORKS_{name}", "forever")
    assert getattr(Settings(), field) is None
    monkeypatch.setenv(f"LORAWORKS_{name}", "-1")
    with pytest.raises(ValidationError, match="greater than or equal"):
        Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("keep_traffic", "everything"),
        ("keep_traffic_share", 1.1),
        ("keep_traffic_share", -0.1),
        ("keep_traffic_days", 0),
        ("keep_traffic_days", 401),
        ("keep_traffic_days", "forever"),  # what is kept of traffic has an end
        ("keep_feedback_days", -1),
    ],
)
def test_what_is_kept_of_traffic_is_bounded(name: str, value: object) -> None:
    with pytest.raises(ValidationError, match=name):
        Settings.model_validate({name: value})
    assert Settings(keep_feedback_days="forever").keep_feedback_days is None  # type: ignore[arg-type]
    assert Settings().keep_traffic == "off"
