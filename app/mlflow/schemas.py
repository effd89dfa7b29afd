"""Response bodies of the MLflow routes."""

from typing import Literal
from uuid import UUID

from pydantic import Field

from app.http.fields import ResponseModel, Timestamp

MlflowState = Literal["off", "waiting", "connected", "failing"]


class MlflowSendFailureView(ResponseModel):
    """Why the last attempt to use MLflow failed."""

    code: str
    message: str
    at: Timestamp


class MlflowStatus(ResponseModel):
    """Whether jobs are sent to MLflow, and how far behind it is."""

    state: MlflowState = Field(
        description="`off`: no worker has ever had the setting `LORAWORKS_MLFLOW_TRACKING_URI`. "
        "`waiting`: no worker with it runs now, or none has tried yet. `failing`: the last attempt "
        "failed; all is sent later."
    )
    tracking_uri: str | None
    experiment: str | None
    experiment_url: str | None
    pending_runs: int = Field(description="Jobs and sweeps of which something is not sent yet.")
    pending_models: int = Field(description="Models of which something is not sent yet.")
    failed_runs: int = Field(description="Runs that were given up, since MLflow rejected them.")
    last_success_at: Timestamp | None
    next_attempt_at: Timestamp | None = Field(description="Null unless `state` is `failing`.")
    last_error: MlflowSendFailureView | None = Field(description="Of the last attempt that failed.")


class MlflowRunView(ResponseModel):
    """The MLflow run of a job."""

    job_id: UUID
    run_id: str
    url: str
    status: str | None = Field(description="As last sent: RUNNING, FINISHED, FAILED or KILLED.")
    complete: bool = Field(description="MLflow has everything of the job.")
    last_error: str | None = Field(description="What MLflow rejected, since its last success.")
