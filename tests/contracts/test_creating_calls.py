"""Every creating call can be retried safely with an idempotency key."""

from app.main import create_app
from app.settings import Settings

# Calls that change or read without creating: repeating them is harmless.
HARMLESS = {
    *(f"/v1/jobs/{{job_id}}/{verb}" for verb in ("cancel", "pause", "resume")),
    "/v1/predictions/{run_id}/cancel",
    "/v1/models/{name}/retraining/runs/{run_id}/cancel",
    "/v1/bases/check",
    "/v1/models/{name}/aliases/{alias}/rollback",
    *("/v1/datasets/{ref}/check", "/v1/datasets/preview"),
    *(f"/v1/sweeps/{{sweep_id}}/{verb}" for verb in ("pause", "stop", "resume", "retry")),
    "/v1/sweeps/{sweep_id}/extend",  # the same trials are not added twice
    *("/predict", "/vertex", "/models/{ref}/predict", "/rerank", "/models/{ref}/rerank"),
    *("/openai/v1/chat/completions", "/openai/v1/completions"),
    "/openai/v1/moderations",
    *(
        f"/openai/v1/fine_tuning/jobs/{{fine_tuning_job_id}}/{verb}"
        for verb in ("cancel", "pause", "resume")
    ),
    *("/mistral/v1/classifications", "/mistral/v1/chat/classifications"),
    *(f"/mistral/v1/fine_tuning/jobs/{{job_id}}/{verb}" for verb in ("cancel", "start")),
    "/mistral/v1/fine_tuning/models/{model_id}/archive",
    "/v1/models/{ref}/explain",
    # The newest feedback of an author counts; a sample is drawn only when none is left to label.
    *("/v1/feedback", "/v1/models/{ref}/review", "/v1/forget"),
    "/v1/models/{ref}/drift/checks",  # a second check has no new texts
    "/v1/labeling/{name}/next",  # the same annotator gets the same texts again
    # The last secret counts, and receivers may get an event more than once.
    *(f"/v1/webhooks/{{webhook_id}}/{verb}" for verb in ("rotate", "test")),
    "/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/replay",
}


def test_every_creating_post_takes_an_idempotency_key(tmp_path: object) -> None:
    described = create_app(Settings(data_dir=str(tmp_path))).openapi()["paths"]  # type: ignore[arg-type]
    posts = {path: ways["post"] for path, ways in described.items() if "post" in ways}
    taking = {
        path
        for path, call in posts.items()
        for parameter in call.get("parameters", ())
        if (parameter["in"], parameter["name"]) == ("header", "Idempotency-Key")
    }
    assert taking == posts.keys() - HARMLESS
    assert posts.keys() >= HARMLESS
    assert len(taking) >= 3
