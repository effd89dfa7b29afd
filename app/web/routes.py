"""The routers of all pages, for the application to include."""

from fastapi import FastAPI

from app.web import (
    assets,
    compare,
    datasets,
    documentation,
    extend_sweep,
    job,
    jobs,
    models,
    new_job,
    page,
    predictions,
    sign_in,
    sweep,
    sweep_form,
    sweeps,
    try_it,
)

# Routes that need no API key.
PUBLIC_ROUTES = (
    *assets.router.routes,
    *documentation.router.routes,
    *sign_in.router.routes,
)
PAGE_ROUTERS = (
    *(assets.router, documentation.router, sign_in.router),
    *(jobs.router, new_job.router, job.router, compare.router),
    *(sweeps.router, sweep_form.router, sweep.router, extend_sweep.router),
    *(models.router, datasets.router, try_it.router, predictions.router),
)


def install_error_pages(app: FastAPI) -> None:
    """Answer browsers with HTML error pages."""
    app.state.problem_page = page.render_error
