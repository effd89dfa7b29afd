"""All pages together, as the application takes them."""

from fastapi import FastAPI

from app.web import (
    assets,
    compare,
    datasets,
    documentation,
    error_page,
    extend_sweep,
    job,
    jobs,
    models,
    new_job,
    predictions,
    sign_in,
    sweep,
    sweep_form,
    sweeps,
    try_it,
)

PUBLIC = (
    *assets.router.routes,
    *documentation.router.routes,
    *sign_in.router.routes,
)  # need no key
PAGES = (
    *(assets.router, documentation.router, sign_in.router),
    *(jobs.router, new_job.router, job.router, compare.router),
    *(sweeps.router, sweep_form.router, sweep.router, extend_sweep.router),
    *(models.router, datasets.router, try_it.router, predictions.router),
)


def install(app: FastAPI) -> None:
    """Show errors as pages to people."""
    app.state.problem_page = error_page.page
