"""Settings from the environment."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from app.settings import Settings


def test_everything_lies_below_the_data_folder(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    assert settings.url == f"sqlite:///{tmp_path}/loraworks.sqlite3"
    for path in (settings.artifacts_dir, settings.datasets_dir, settings.work_dir):
        assert path.parent == tmp_path


def test_a_relative_folder_stays_the_same_when_the_process_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Settings().data_dir == tmp_path / "data"


def test_lists_are_read_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAWORKS_ALLOWED_HOSTS", "lab.example, ml.example,")
    monkeypatch.setenv("LORAWORKS_BASE_DIRS", "/srv/models")
    settings = Settings()
    assert settings.allowed_hosts == ("lab.example", "ml.example")
    assert settings.base_dirs == (Path("/srv/models"),)
    assert "distilbert-base-uncased" in settings.hub_models
    monkeypatch.setenv("LORAWORKS_HUB_MODELS", "")
    assert Settings().hub_models == ()


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "example.org"])  # noqa: S104
def test_an_address_that_others_reach_needs_keys(host: str) -> None:
    with pytest.raises(ValidationError, match=r"LORAWORKS_HOST=.*LORAWORKS_AUTH=on"):
        Settings(host=host)
    assert Settings(host=host, auth="on").host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost"])
def test_loopback_needs_no_keys(host: str) -> None:
    assert Settings(host=host).auth == "off"


@pytest.mark.parametrize(
    "origin", ["*", "lab.example", "https://lab.example/", "https://*.example"]
)
def test_what_no_browser_writes_is_no_origin(origin: str) -> None:
    with pytest.raises(ValidationError, match="an origin is a scheme and a host"):
        Settings(allowed_origins=(origin,))


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1  # type: ignore[misc]


def test_a_beat_must_fit_into_the_lease_twice() -> None:
    with pytest.raises(ValidationError, match="LORAWORKS_BEAT_SECONDS"):
        Settings(beat_seconds=40, lease_seconds=60)


def test_neither_errors_nor_repr_show_the_pepper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAWORKS_PEPPER", "short-secret")
    with pytest.raises(ValidationError) as caught:
        Settings()
    assert "short-secret" not in str(caught.value)
    monkeypatch.setenv("LORAWORKS_PEPPER", "long-secret" * 4)
    assert "long-secret" not in repr(Settings())
