"""Settings of MLflow: what is accepted, and what is refused with which code."""

import base64
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from starlette.testclient import TestClient

from app.errors import AppError
from app.main import create_app
from app.mlflow.client import MlflowClient
from app.mlflow.connection import MlflowConnection, parse_mlflow_settings
from app.mlflow.errors import MlflowUnreachable
from app.mlflow.urls import loraworks_base_url
from app.settings import Settings
from tests.mlflow_server import MlflowStandIn
from worker.service import open_service

URL = "https://mlflow.example"


def parse(**settings: Any) -> MlflowConnection | None:
    return parse_mlflow_settings(Settings(**{"mlflow_tracking_uri": URL, **settings}))


def test_no_server_by_default() -> None:
    assert parse_mlflow_settings(Settings()) is None
    assert parse(mlflow_tracking_uri="") is None


@pytest.mark.parametrize("path", ["", "/", "/mlflow", "/mlflow/"])
def test_the_uri_has_no_slash_at_its_end(path: str) -> None:
    connection = parse(mlflow_tracking_uri=f"http://127.0.0.1:5000{path}")
    assert connection == MlflowConnection(f"http://127.0.0.1:5000{path.rstrip('/')}", "loraworks")


@pytest.mark.parametrize(
    ("settings", "code", "message"),
    [
        ({"mlflow_tracking_uri": "mlflow.example"}, "mlflow_url_invalid", "http"),
        ({"mlflow_tracking_uri": "http://"}, "mlflow_url_invalid", "host"),
        ({"mlflow_tracking_uri": "sqlite:///mlflow.db"}, "mlflow_url_invalid", "http"),
        ({"mlflow_tracking_uri": "http://[::1"}, "mlflow_url_invalid", "not a valid URL"),
        ({"mlflow_tracking_uri": "http://a:secret@b"}, "mlflow_url_invalid", "password"),
        ({"mlflow_tracking_uri": f"{URL}/#/experiments"}, "mlflow_url_invalid", "fragment"),
        ({"mlflow_tracking_uri": f"{URL}/?"}, "mlflow_url_invalid", "query"),
        ({"mlflow_tracking_uri": "http://a..b"}, "mlflow_url_invalid", "not a valid URL"),
        ({"mlflow_tracking_uri": f"http://{'a' * 64}"}, "mlflow_url_invalid", "not a valid URL"),
        ({"mlflow_experiment": " "}, "mlflow_experiment_invalid", "is empty"),
        ({"mlflow_experiment": "a\nb"}, "mlflow_experiment_invalid", "printed"),
        ({"mlflow_experiment": "\udcff"}, "mlflow_experiment_invalid", "printed"),
        ({"mlflow_experiment": "e" * 501}, "mlflow_experiment_invalid", "500"),
        ({"mlflow_username": "u"}, "mlflow_credentials_invalid", "need each other"),
        ({"mlflow_password": "secret"}, "mlflow_credentials_invalid", "need each other"),
        (
            {"mlflow_token": "secret", "mlflow_username": "u", "mlflow_password": "secret"},
            "mlflow_credentials_invalid",
            "Both",
        ),
        ({"mlflow_username": "u", "mlflow_password": ""}, "mlflow_credentials_invalid", "need"),
        ({"mlflow_token": "secret\n"}, "mlflow_credentials_invalid", "character"),
        ({"mlflow_token": "secret "}, "mlflow_credentials_invalid", "space"),
    ],
)
def test_invalid_settings(settings: dict[str, Any], code: str, message: str) -> None:
    with pytest.raises(AppError, match=message) as caught:
        parse(**settings)
    assert caught.value.code == code
    assert "secret" not in str(caught.value)


def test_processes_do_not_start_with_invalid_settings(settings: Settings) -> None:
    wrong = settings.model_copy(update={"mlflow_tracking_uri": "mlflow"})
    with (
        pytest.raises(AppError, match="LORAWORKS_MLFLOW_TRACKING_URI"),
        TestClient(create_app(wrong)),
    ):
        pass
    with pytest.raises(AppError, match="LORAWORKS_MLFLOW_TRACKING_URI"):
        open_service(wrong)


@pytest.mark.parametrize(
    ("settings", "header"),
    [
        ({}, None),
        ({"mlflow_token": "", "mlflow_username": "", "mlflow_password": ""}, None),
        ({"mlflow_token": "secret"}, "Bearer secret"),
        (
            {"mlflow_username": "ü", "mlflow_password": "secret"},
            f"Basic {base64.b64encode('ü:secret'.encode()).decode()}",
        ),
    ],
)
def test_credentials(settings: dict[str, Any], header: str | None, mlflow: MlflowStandIn) -> None:
    connection = parse(mlflow_tracking_uri=mlflow.url, **settings)
    assert connection is not None
    assert "secret" not in repr(connection)
    assert "secret" not in repr(Settings(**settings))
    with MlflowClient(connection) as client:
        client.get_or_create_experiment("a")
    assert set(mlflow.authorizations) == {header}


def test_an_error_does_not_repeat_the_credentials(mlflow: MlflowStandIn) -> None:
    echo = b'{"error_code": "secret?", "message": "Bearer secret is unknown."}'
    mlflow.failures = [("", 400, echo)]
    connection = parse(mlflow_tracking_uri=mlflow.url, mlflow_token="secret")
    assert connection is not None
    with (
        MlflowClient(connection) as client,
        pytest.raises(AppError, match=r"\*\*\*\?: Bearer \*\*\* is"),
    ):
        client.get_or_create_experiment("a")


def test_an_error_of_the_request_does_not_repeat_the_credentials(mlflow: MlflowStandIn) -> None:
    connection = MlflowConnection(mlflow.url, "a", authorization="Bearer secret\n")
    with MlflowClient(connection) as client, pytest.raises(MlflowUnreachable) as caught:
        client.get_or_create_experiment("a")
    assert "secret" not in str(caught.value)


def test_url_of_the_service(tmp_path: Path) -> None:
    for unset in (None, ""):
        settings = Settings(data_dir=tmp_path, public_url=unset)
        assert loraworks_base_url(settings) == "http://127.0.0.1:8000"
    for host, name in (
        ("::1", "[::1]"), ("::", "[::1]"), ("0.0.0.0", "127.0.0.1"), ("a.example", "a.example"),  # noqa: S104
    ):  # fmt: skip
        assert loraworks_base_url(Settings(host=host, port=9, auth="on")) == f"http://{name}:9"
    assert (
        loraworks_base_url(Settings(public_url="https://lab.example/l/")) == "https://lab.example/l"
    )
    for wrong in ("lab.example", "ftp://lab.example", "https://", "https://lab.example/#a"):
        with pytest.raises(ValidationError, match="a URL starts with"):
            Settings(public_url=wrong)
