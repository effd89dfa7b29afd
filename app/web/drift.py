"""The page on whether a version's traffic is still like its training texts."""

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse

from app.auth.middleware import require_scope
from app.drift import repository as drift
from app.drift import service
from app.drift.description import describe_drift
from app.drift.views import drift_check_view
from app.http.dependencies import DatabaseDep, SettingsDep
from app.http.fields import Slug
from app.web.page import render_template
from app.web.shown_version import VersionQuery, get_shown_version

DRIFT_DAYS = 7.0  # what counts as recent
MAX_LABELS = 30
MAX_CHECKS = 50

# The page shows what is known of a version, and texts of traffic.
router = APIRouter(
    include_in_schema=False,
    dependencies=[require_scope("models:read"), require_scope("datasets:read")],
)


@router.get("/models/{name}/drift")
def drift_page(
    request: Request,
    name: Slug,
    database: DatabaseDep,
    settings: SettingsDep,
    version: VersionQuery = None,
) -> HTMLResponse:
    """Show the state, the most different texts, label shares and checks of a version.

    By default of the version in production or, without any, of the newest one.
    """
    with database.read() as session:
        ref, number, numbers = get_shown_version(session, name, version)
        view = service.get_drift(session, settings=settings, ref=ref, days=DRIFT_DAYS)
        checks = drift.list_checks(session, model=name, number=number, after=None, limit=MAX_CHECKS)
        newest = view.newest_check
        detail = newest and service.get_check(session, ref=ref, check_id=newest.id)
    return render_template(
        request,
        "drift.html",
        name=name,
        number=number,
        numbers=numbers,
        view=view,
        description=describe_drift(view),
        newest=detail,
        checks=[drift_check_view(each) for each in checks],
        max_labels=MAX_LABELS,
    )
