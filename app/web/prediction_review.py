"""The page on which people label a random sample of a version's kept predictions."""

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse

from app.auth.middleware import require_scope
from app.feedback import service
from app.feedback.live_accuracy import list_live_accuracy
from app.feedback.views import ONLY_TARGET
from app.http.dependencies import DatabaseDep, SettingsDep, StoreDep
from app.http.fields import Slug
from app.registry import service as registry
from app.registry.model_io_schemas import read_io_schema
from app.web.page import render_template
from app.web.shown_version import VersionQuery, get_shown_version

LIVE_ACCURACY_DAYS = 30.0
MAX_BUTTONS = 12  # labels that get a button each; with more, they are in a list
SAMPLE_SIZES = (20, 60, 200)

router = APIRouter(include_in_schema=False, dependencies=[require_scope("datasets:read")])


@router.get("/models/{name}/review")
def review_predictions_page(
    request: Request,
    name: Slug,
    database: DatabaseDep,
    store: StoreDep,
    settings: SettingsDep,
    version: VersionQuery = None,
) -> HTMLResponse:
    """Show the texts of a version that were drawn and have no feedback, with a button per label.

    By default of the version in production or, without any, of the newest one.
    """
    with database.read() as session:
        ref, _, numbers = get_shown_version(session, name, version)
        resolved = registry.resolve_model(session, ref)
        accuracies = list_live_accuracy(session, model=name, days=LIVE_ACCURACY_DAYS)
    outputs = read_io_schema(store, resolved)
    return render_template(
        request,
        "review.html",
        name=name,
        number=resolved.number,
        numbers=numbers,
        review=service.get_review_sample(database, store, ref=ref),
        targets={target or ONLY_TARGET: each for target, each in outputs.targets.items()},
        only_target=None if outputs.has_several_targets else ONLY_TARGET,
        accuracies=accuracies,
        keeps_texts=settings.keep_traffic == "texts",
        max_buttons=MAX_BUTTONS,
        sample_sizes=SAMPLE_SIZES,
    )
