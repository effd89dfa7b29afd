"""Routes of MLflow: the state of the connection, and the run of a job."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter

from app.auth.middleware import require_scope
from app.http.dependencies import DatabaseDep
from app.http.fields import uuid_or_not_found_validator
from app.mlflow import views
from app.mlflow.errors import MlflowRunNotFound
from app.mlflow.schemas import MlflowRunView, MlflowStatus

router = APIRouter(prefix="/v1/mlflow", tags=["mlflow"], dependencies=[require_scope("jobs:read")])

JobId = Annotated[UUID, uuid_or_not_found_validator(lambda text: MlflowRunNotFound(job_id=text))]


@router.get("")
def get_mlflow_status(database: DatabaseDep) -> MlflowStatus:
    """Get whether jobs and versions are sent to MLflow, and how far behind it is."""
    with database.read() as session:
        return views.get_status(session)


@router.get("/runs/{job_id}")
def get_mlflow_run(job_id: JobId, database: DatabaseDep) -> MlflowRunView:
    """Get the MLflow run of a job."""
    with database.read() as session:
        return views.get_run_of_job(session, job_id)
