"""Errors of the connection to MLflow, and of its settings."""

from app.errors import AppError, NotFound, ServiceUnavailable


class MlflowUrlInvalid(AppError):
    status = 500
    code = "mlflow_url_invalid"
    title = "Invalid tracking URI of MLflow."
    message = (
        "LORAWORKS_MLFLOW_TRACKING_URI {problem}. Use a URL such as https://mlflow.example, or "
        "leave it unset: nothing is sent to MLflow then."
    )


class MlflowExperimentInvalid(AppError):
    status = 500
    code = "mlflow_experiment_invalid"
    title = "Invalid name of the MLflow experiment."
    message = (
        "LORAWORKS_MLFLOW_EXPERIMENT {problem}. Set it to the name of an experiment, which is "
        "created if it does not exist, or leave it unset."
    )


class MlflowCredentialsInvalid(AppError):
    status = 500
    code = "mlflow_credentials_invalid"
    title = "Invalid credentials for MLflow."
    message = (
        "{problem}. Set LORAWORKS_MLFLOW_TOKEN, or LORAWORKS_MLFLOW_USERNAME together with "
        "LORAWORKS_MLFLOW_PASSWORD, or none of them."
    )


class MlflowRunNotFound(NotFound):
    code = "mlflow_run_not_found"
    title = "The job has no MLflow run."
    message = (
        "Job {job_id} has no run in MLflow. A run appears when a job starts, and only if the "
        "workers have the setting LORAWORKS_MLFLOW_TRACKING_URI."
    )


class MlflowError(ServiceUnavailable):
    """MLflow could not be used."""


class MlflowUnreachable(MlflowError):
    code = "mlflow_unreachable"
    title = "MLflow did not respond."
    message = "MLflow at {tracking_uri} did not respond: {reason}."


class MlflowUnauthorized(MlflowError):
    code = "mlflow_unauthorized"
    title = "MLflow rejected the credentials."
    message = (
        "MLflow at {tracking_uri} denied access (status {http_status}). Check "
        "LORAWORKS_MLFLOW_TOKEN, or LORAWORKS_MLFLOW_USERNAME and LORAWORKS_MLFLOW_PASSWORD."
    )


class MlflowHostHeaderRejected(MlflowError):
    code = "mlflow_host_not_allowed"
    title = "MLflow does not accept its own host name."
    message = (
        "MLflow at {tracking_uri} rejects requests to this host name. Start it with "
        "--allowed-hosts and the name."
    )


class MlflowUnexpectedResponse(MlflowError):
    code = "mlflow_unexpected_response"
    title = "The response is not one of MLflow's REST API."
    message = (
        "{tracking_uri} answered {call} with status {http_status} and not as MLflow's REST API "
        "does. Check LORAWORKS_MLFLOW_TRACKING_URI."
    )


class MlflowExperimentDeleted(MlflowError):
    code = "mlflow_experiment_deleted"
    title = "The MLflow experiment was deleted."
    message = (
        "The MLflow experiment {experiment!r} was deleted. Restore it in MLflow, or set "
        "LORAWORKS_MLFLOW_EXPERIMENT to another name."
    )


class MlflowRejected(MlflowError):
    code = "mlflow_rejected"
    title = "MLflow rejected a request."
    message = "MLflow rejected {call}: {error_code}: {reason}."

    @property
    def error_code(self) -> str:
        """The code in the response, such as `RESOURCE_DOES_NOT_EXIST`."""
        return str(self.detail["error_code"])

    @property
    def is_permanent(self) -> bool:
        """Whether the same request would be rejected again; False for errors of the server."""
        return bool(self.detail["http_status"] < 500)
