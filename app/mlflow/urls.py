"""Addresses of pages: of MLflow's user interface, and of this service for links in MLflow."""

from urllib.parse import quote

from app.outbox.tables import MlflowServer
from app.settings import Settings


def loraworks_base_url(settings: Settings) -> str:
    """Return the URL of this service, without a slash at its end."""
    return settings.public_url or settings.local_service_url


def experiment_url(server: MlflowServer) -> str | None:
    """Return the page of the experiment. None: it is not known yet."""
    if server.experiment_id is None:
        return None
    return f"{server.tracking_uri}/#/experiments/{server.experiment_id}"


def run_url(server: MlflowServer, run_id: str) -> str:
    """Return the page of a run."""
    return f"{server.tracking_uri}/#/experiments/{server.experiment_id}/runs/{run_id}"


def version_url(server: MlflowServer, name: str, version: str) -> str:
    """Return the page of a version of a registered model."""
    return f"{server.tracking_uri}/#/models/{quote(name)}/versions/{quote(version)}"
