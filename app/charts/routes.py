"""Routes of a sweep's charts and report."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse
from pydantic import Field

from app.auth.middleware import require_scope
from app.charts import figures, sweep_report
from app.http.dependencies import DatabaseDep
from app.http.fields import ResponseModel
from app.sweeps import repository, results
from app.sweeps.routes import SweepId

router = APIRouter(prefix="/v1/sweeps", tags=["sweeps"])


class ChartView(ResponseModel):
    """A Plotly figure with a title, a caption and a text alternative."""

    title: str
    caption: str
    alt: str
    wide: bool = Field(description="Whether the chart takes the full width of a page.")
    figure: dict[str, Any] = Field(
        description="`data` and `layout` for Plotly. Texts are escaped, since Plotly reads markup."
    )


@router.get("/{sweep_id}/charts", dependencies=[require_scope("jobs:read")])
def list_sweep_charts(
    sweep_id: SweepId,
    database: DatabaseDep,
    map: Annotated[bool, Query(description="Include the map over two fields.")] = True,
) -> list[ChartView]:
    """List the charts of the complete trials: map, importance, settings, costs."""
    with database.read() as session:
        snapshot = results.read_cached_snapshot(session, repository.get_sweep(session, sweep_id))
    return [
        ChartView(**{**vars(chart), "figure": chart.figure.to_dict()})
        for chart in figures.sweep_charts(snapshot)
        if map or not chart.map
    ]


@router.get(
    "/{sweep_id}/report", dependencies=[require_scope("jobs:read")], response_class=HTMLResponse
)
def get_sweep_report(sweep_id: SweepId, database: DatabaseDep) -> HTMLResponse:
    """Get a self-contained page with winner, charts and all trials, also while the sweep runs."""
    with database.read() as session:
        snapshot = results.read_cached_snapshot(session, repository.get_sweep(session, sweep_id))
    page = sweep_report.render_report(snapshot)
    return HTMLResponse(
        page, headers={"Content-Security-Policy": sweep_report.CONTENT_SECURITY_POLICY}
    )
