"""The page of settings: what is connected to this service."""

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse

from app.auth.middleware import require_scope
from app.http.dependencies import DatabaseDep
from app.mlflow import views
from app.web.page import render_template

router = APIRouter(include_in_schema=False, dependencies=[require_scope("jobs:read")])


@router.get("/settings")
def mlflow_status_page(request: Request, database: DatabaseDep) -> HTMLResponse:
    """Show whether MLflow is connected, and how far behind it is."""
    with database.read() as session:
        status = views.get_status(session)
    return render_template(request, "settings.html", mlflow=status)
