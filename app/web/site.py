"""All pages together, as the application takes them."""

from fastapi import FastAPI

from app.web import (
    assets,
    compare,
    datasets,
    guide,
    job,
    jobs,
    more_cells,
    new_job,
    new_sweep,
    predictions,
    problem,
    registry,
    sign_in,
    sweep,
    sweeps,
    try_it,
)

PUBLIC = (*assets.router.routes, *guide.router.routes, *sign_in.router.routes)  # need no key
PAGES = (
    *(assets.router, guide.router, sign_in.router),
    *(jobs.router, new_job.router, job.router, compare.router),
    *(sweeps.router, new_sweep.router, sweep.router, more_cells.router),
    *(registry.router, datasets.router, try_it.router, predictions.router),
)


def install(app: FastAPI) -> None:
    """Show errors as pages to people."""
    app.state.problem_page = problem.page
