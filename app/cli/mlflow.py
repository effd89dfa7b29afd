"""`loraworks mlflow …`."""

from typing import TYPE_CHECKING

import typer

from app.cli.options import AsJson, with_client
from app.cli.output import format_time, print_fields, print_json, print_line

if TYPE_CHECKING:
    from app.cli.client import Client

app = typer.Typer(help="The connection to MLflow.")


@app.command("status")
@with_client
def show_status(client: "Client", as_json: AsJson = False) -> None:
    """Show whether jobs and versions are sent to MLflow, and how far behind it is."""
    status = client.get_mlflow_status()
    if as_json:
        print_json(status)
        return
    if status.state == "off":
        print_line("MLflow is off. Start the workers with LORAWORKS_MLFLOW_TRACKING_URI.")
        return
    error = status.last_error
    print_fields(
        [
            ("state", status.state),
            ("server", status.tracking_uri),
            ("experiment", status.experiment),
            ("page", status.experiment_url),
            ("runs to send", status.pending_runs),
            ("models to send", status.pending_models),
            ("runs given up", status.failed_runs),
            ("last success", format_time(status.last_success_at)),
            ("next attempt", format_time(status.next_attempt_at)),
            ("last error", error and f"{format_time(error.at)}: {error.message}"),
        ]
    )
