"""`loraworks mlflow` against a running service."""

from app.resources import Resources
from tests.app.cli.conftest import Run, answer
from tests.mlflow_rows import connect, send
from tests.servers import free_port


def test_without_mlflow(cli: Run) -> None:
    assert "LORAWORKS_MLFLOW_TRACKING_URI" in cli("mlflow", "status").stdout
    assert answer(cli("mlflow", "status", "--json"))["state"] == "off"


def test_a_server_that_is_away(cli: Run, resources: Resources) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    send(resources.database, connect(resources.database, url))
    shown = cli("mlflow", "status")
    assert shown.exit_code == 0, shown.output
    words = " ".join(shown.stdout.split())
    assert f"state failing server {url} experiment loraworks" in words
    assert "did not respond" in words
