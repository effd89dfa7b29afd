"""Pictures of a sweep over HTTP."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse
from pydantic import Field

from app.auth.middleware import requires
from app.charts import figures, report
from app.http.dependencies import DatabaseDep
from app.http.fields import View
from app.sweeps import repository, results
from app.sweeps.routes import SweepId

router = APIRouter(prefix="/v1/sweeps", tags=["sweeps"])


class PictureView(View):
    """A picture, and what it shows in words."""

    title: str
    caption: str
    alt: str
    wide: bool = Field(description="Needs the breadth of the page.")
    figure: dict[str, Any] = Field(
        description="`data` and `layout` for Plotly, which reads markup: texts are escaped."
    )


@router.get("/{sweep_id}/pictures", dependencies=[requires("jobs:read")])
def read_pictures(
    sweep_id: SweepId,
    database: DatabaseDep,
    map: Annotated[bool, Query(description="With the map over two fields.")] = True,
) -> list[PictureView]:
    """What there is to see in the cells that ran whole: map, importance, settings, cost."""
    with database.read() as session:
        board = results.board(session, repository.get(session, sweep_id))
    return [
        PictureView(**{**vars(picture), "figure": picture.figure.to_dict()})
        for picture in figures.of(board)
        if map or not picture.map
    ]


@router.get("/{sweep_id}/report", dependencies=[requires("jobs:read")])
def read_report(sweep_id: SweepId, database: DatabaseDep) -> HTMLResponse:
    """One page that needs nothing else: winner, pictures, all cells; also while the sweep runs."""
    with database.read() as session:
        board = results.board(session, repository.get(session, sweep_id))
    page = report.render(board)
    return HTMLResponse(page, headers={"Content-Security-Policy": report.CONTENT_SECURITY_POLICY})
