"""The routers of all pages, for the application to include."""

from app.web import (
    assets,
    compare_jobs,
    datasets,
    documentation,
    drift,
    job,
    jobs,
    label_review,
    labeling,
    mlflow_status,
    models,
    prediction_review,
    prediction_runs,
    retraining,
    sign_in,
    sweep,
    sweep_form,
    sweeps,
    webhooks,
)

# Routes that need no API key.
PUBLIC_ROUTES = (
    *assets.router.routes,
    *documentation.router.routes,
    *sign_in.router.routes,
)
PAGE_ROUTERS = (
    *(assets.router, documentation.router, sign_in.router),
    *(jobs.router, job.router, compare_jobs.router),
    *(sweeps.router, sweep_form.router, sweep.router),
    *(
        models.router,
        prediction_review.router,
        drift.router,
        retraining.router,
        datasets.router,
        labeling.router,
        label_review.router,
        prediction_runs.router,
        webhooks.router,
        mlflow_status.router,
    ),
)
