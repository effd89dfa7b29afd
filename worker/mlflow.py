"""Sends jobs and versions to MLflow. Any number of workers may do so: one sends at a time."""

from threading import Event as Flag

from app.mlflow import repository
from app.mlflow.connection import MlflowConnection
from app.mlflow.sender import send_due
from app.mlflow.urls import loraworks_base_url
from app.resources import Resources

POLL_SECONDS = 5.0  # between two looks for something to send, which read every unfinished job


class MlflowSender:
    """Sends what is due to one server."""

    def __init__(
        self, resources: Resources, connection: MlflowConnection, *, draining: Flag
    ) -> None:
        self._resources = resources
        self._connection = connection
        self._draining = draining
        self._registered = False

    def send_due(self) -> None:
        """Send until nothing is due or the worker drains.

        What was being sent then is sent by another worker.
        """
        database = self._resources.database
        if not self._registered:
            with database.write() as session:
                repository.register_server_and_fill_outbox(session, self._connection)
            self._registered = True
        send_due(
            database,
            self._connection,
            public_url=loraworks_base_url(self._resources.settings),
            should_stop=self._draining.is_set,
        )
