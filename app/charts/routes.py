"""Pictures of a sweep over HTTP."""

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from app.charts import report
from app.deps import DatabaseDep
from app.keys.auth import requires
from app.sweeps import repository, results
from app.sweeps.routes import SweepId

router = APIRouter(prefix="/v1/sweeps", tags=["sweeps"])


@router.get("/{sweep_id}/report", dependencies=[requires("jobs:read")])
def read_report(sweep_id: SweepId, database: DatabaseDep) -> HTMLResponse:
    """One page that needs nothing else: winner, pictures, all cells; also while the sweep runs."""
    with database.read() as session:
        board = results.board(session, repository.get(session, sweep_id))
    page = report.render(board)
    return HTMLResponse(page, headers={"Content-Security-Policy": report.CONTENT_SECURITY_POLICY})
