"""A sweep as one HTML page that needs nothing else: no network, no service, no other file."""

import base64
import hashlib
from pathlib import Path

from app.charts import pictures
from app.charts.sentences import about, findings, standing
from app.charts.tables import cells, choices
from app.sweeps.board import AT_WORK, Board
from app.sweeps.verdict import judge

# For a route that serves the page: scripts run, but as strangers to the service. What the page may
# load, which is nothing from elsewhere, it says itself.
CONTENT_SECURITY_POLICY = "sandbox allow-scripts allow-downloads; frame-ancestors 'none'"
PAGE = Path(__file__).with_name("page")


def render(board: Board) -> str:
    """The page. Whatever comes from users stands in it as text, never as markup or code."""
    import jinja2
    from plotly.offline import get_plotlyjs

    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.policies["json.dumps_kwargs"] = {"allow_nan": False}
    verdict = judge(board)
    drawn = pictures.of(board)
    scripts = [get_plotlyjs(), (PAGE / "report.js").read_text(encoding="utf-8")] if drawn else []
    return templates.get_template("report.html").render(
        board=board,
        about=about(board),
        running=board.state in AT_WORK,
        standing=standing(board),
        findings=findings(board, verdict),
        choices=choices(board, verdict),
        pictures=drawn,
        figures=[picture.figure.to_dict() for picture in drawn],
        cells=cells(board, verdict),
        style=(PAGE / "report.css").read_text(encoding="utf-8"),
        scripts=scripts,
        policy=_policy(scripts),
    )


def _policy(scripts: list[str]) -> str:
    """Nothing from elsewhere, and of scripts these alone, whatever a name may smuggle in."""
    hashes = [base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in scripts]
    allowed = " ".join(f"'sha256-{each}'" for each in hashes) or "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:"
    )
