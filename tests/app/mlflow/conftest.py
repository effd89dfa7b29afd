"""A stand-in for MLflow that workers send to."""

from collections.abc import Callable, Iterator

import pytest

from app.database.engines import Database
from app.mlflow.connection import MlflowConnection
from tests.mlflow_rows import connect, make_due, send
from tests.mlflow_server import MlflowStandIn, mlflow_stand_in


@pytest.fixture
def mlflow() -> Iterator[MlflowStandIn]:
    with mlflow_stand_in() as running:
        yield running


@pytest.fixture
def connection(database: Database, mlflow: MlflowStandIn) -> MlflowConnection:
    """The connection of a worker that has started."""
    return connect(database, mlflow.url)


@pytest.fixture
def send_all(database: Database, connection: MlflowConnection) -> Callable[[], None]:
    """Send what is not sent, also what waits for its next attempt."""

    def run() -> None:
        make_due(database)
        assert send(database, connection)

    return run
