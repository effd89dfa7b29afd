"""Sends jobs and versions to MLflow. Any number of workers may do so: one sends at a time."""

from threading import Event as Flag

import structlog

from app.database.errors import OUTAGE_ERRORS
from app.mlflow import repository
from app.mlflow.connection import MlflowConnection
from app.mlflow.sender import send_due
from app.mlflow.urls import public_url
from app.resources import Resources
from worker.outages import OutageTracker

POLL_SECONDS = 5.0  # between two looks for something to send, which read every unfinished job

log = structlog.get_logger(__name__)


class MlflowSender:
    """Sends what is due in a thread of its own, so that a slow server delays nothing else."""

    def __init__(
        self, resources: Resources, connection: MlflowConnection, *, draining: Flag
    ) -> None:
        self._resources = resources
        self._connection = connection
        self._draining = draining
        self._outages = OutageTracker(log)
        self._registered = False

    def run(self) -> None:
        """Run until the worker drains. What was being sent then is sent by another worker."""
        while not self._draining.wait(POLL_SECONDS):
            try:
                with self._outages.tracking_outage():
                    self._send()
            except OUTAGE_ERRORS:
                continue
            except Exception:
                log.exception("failed to send to mlflow")

    def _send(self) -> None:
        database = self._resources.database
        if not self._registered:
            with database.write() as session:
                repository.register(session, self._connection)
            self._registered = True
        send_due(
            database,
            self._connection,
            public_url=public_url(self._resources.settings),
            should_stop=self._draining.is_set,
        )
