"""A typed client of the API."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import httpx2

from app.cli.connection import (
    ByteStream,
    Connection,
    connection_errors,
    decode_json,
    drop_none,
    raise_for_status,
    resource_path,
)
from app.cli.responses import (
    DatasetJson,
    DatasetListItemJson,
    DiagnosisJson,
    JobEventJson,
    JobJson,
    JobListItemJson,
    JobPlanJson,
    Json,
    LabelScoreJson,
    MetricPointJson,
    ModelJson,
    ModelListItemJson,
    ModelVersionJson,
    PredictionRunJson,
    SweepJson,
    SweepListItemJson,
    SweepPlanJson,
    TrialJson,
)

SweepAction = Literal["pause", "stop", "resume", "retry"]


# Timeouts in seconds.
PROMOTE_TIMEOUT = 120  # the service loads and tries the model before it moves the alias
IMPORT_TIMEOUT = 900  # an import may wait for others, and the model is loaded
CHECK_TIMEOUT = 300  # a check may wait for others
STREAM_TIMEOUT = 45  # the stream pings every 15 s; after three missed pings it is considered lost


@dataclass(frozen=True)
class StreamMessage:
    """A server-sent event of a job's stream: `metric`, `event`, `state` or `end`."""

    event: str
    id: str
    data: Json


@dataclass(frozen=True)
class LabeledPredictions:
    """Labels with scores for each text, and the model version that predicted them."""

    labels: list[list[LabelScoreJson]]
    version: str | None
    truncated: int


class Client(Connection):
    """The API calls."""

    # -- jobs ---------------------------------------------------------------------------------

    def submit_job(self, body: Json) -> JobJson:
        job: JobJson = self.post_idempotent("/v1/jobs", json=body)
        return job

    def plan_job(self, body: Json) -> JobPlanJson:
        plan: JobPlanJson = self.request_json(
            "POST", "/v1/jobs", json=body, params={"dry_run": "true"}
        )
        return plan

    def get_job(self, job_id: str) -> JobJson:
        job: JobJson = self.request_json("GET", resource_path("jobs", job_id))
        return job

    def list_jobs(self, limit: int, **filters: str | None) -> list[JobListItemJson]:
        return list(self.iterate_pages("/v1/jobs", limit, **filters))

    def update_job(self, job_id: str, changes: Json) -> JobJson:
        job: JobJson = self.request_json("PATCH", resource_path("jobs", job_id), json=changes)
        return job

    def list_misclassified(self, job_id: str, limit: int, split: str) -> list[Json]:
        """Return misclassified texts, the most confident first."""
        path = f"{resource_path('jobs', job_id)}/mistakes"
        result: list[Json] = self.request_json("GET", path, params={"split": split, "limit": limit})
        return result

    def download_misclassified(self, job_id: str, split: str, format: str) -> ByteStream:
        """Stream all misclassified texts as a file."""
        path = f"{resource_path('jobs', job_id)}/mistakes/download"
        return self.stream_bytes(path, split=split, format=format)

    def cancel_job(self, job_id: str) -> JobJson:
        job: JobJson = self.request_json("POST", f"{resource_path('jobs', job_id)}/cancel")
        return job

    def retry_job(self, job_id: str) -> JobJson:
        job: JobJson = self.post_idempotent(f"{resource_path('jobs', job_id)}/retry")
        return job

    def delete_job(self, job_id: str) -> None:
        self.request("DELETE", resource_path("jobs", job_id))

    def compare_jobs(self, job_ids: list[str]) -> Json:
        result: Json = self.request_json("GET", "/v1/jobs/compare", params={"job": job_ids})
        return result

    def list_metric_points(
        self, job_id: str, limit: int, **filters: str | None
    ) -> list[MetricPointJson]:
        return list(
            self.iterate_pages(f"{resource_path('jobs', job_id)}/metrics", limit, **filters)
        )

    def list_job_events(self, job_id: str, limit: int) -> list[JobEventJson]:
        return list(self.iterate_pages(f"{resource_path('jobs', job_id)}/events", limit))

    def stream_job(self, job_id: str, after: str | None = None) -> Iterator[StreamMessage]:
        """Yield messages after the id `after`, until the job or the connection ends."""
        headers = {"Last-Event-ID": after} if after else None
        timeout = httpx2.Timeout(STREAM_TIMEOUT, connect=5)
        path = f"{resource_path('jobs', job_id)}/stream"
        with (
            connection_errors(self.url),
            self.http.sse(path, headers=headers, timeout=timeout) as source,
        ):
            raise_for_status(source.response)
            for message in source:
                data = message.json()
                yield StreamMessage(
                    message.event, message.id, data if isinstance(data, dict) else {}
                )

    def download_artifact(self, artifact_id: str) -> ByteStream:
        """Stream the artifact as a tar file."""
        return self.stream_bytes(f"{resource_path('artifacts', artifact_id)}/archive")

    # -- datasets ----------------------------------------------------------------------------

    def upload_dataset(self, file: Path, **fields: str | None) -> DatasetJson:
        with file.open("rb") as content:
            dataset: DatasetJson = self.post_idempotent(
                "/v1/datasets", data=drop_none(fields), files={"file": (file.name, content)}
            )
        return dataset

    def download_dataset(self, ref: str) -> ByteStream:
        """Stream the file of a dataset."""
        return self.stream_bytes(f"{resource_path('datasets', ref)}/content")

    def list_datasets(self, limit: int) -> list[DatasetListItemJson]:
        return list(self.iterate_pages("/v1/datasets", limit))

    def get_dataset(self, ref: str) -> DatasetJson:
        dataset: DatasetJson = self.request_json("GET", resource_path("datasets", ref))
        return dataset

    def check_dataset(self, dataset_id: str) -> DiagnosisJson:
        """Run the data checks of a dataset again."""
        path = f"{resource_path('datasets', dataset_id)}/check"
        diagnosis: DiagnosisJson = self.request_json("POST", path, timeout=CHECK_TIMEOUT)[
            "diagnosis"
        ]
        return diagnosis

    def delete_dataset(self, dataset_id: str) -> None:
        self.request("DELETE", resource_path("datasets", dataset_id))

    # -- models -------------------------------------------------------------------------------

    def list_models(self, limit: int) -> list[ModelListItemJson]:
        return list(self.iterate_pages("/v1/models", limit))

    def get_model(self, name: str) -> ModelJson:
        model: ModelJson = self.request_json("GET", resource_path("models", name))
        return model

    def register_version(self, name: str, job_id: str) -> Json:
        response: Json = self.post_idempotent(
            f"{resource_path('models', name)}/versions", json={"job_id": job_id}
        )
        return response

    def import_version(self, name: str, archive: Path) -> ModelVersionJson:
        """Upload an exported model. The service loads it before it responds."""
        with archive.open("rb") as content:
            version: ModelVersionJson = self.post_idempotent(
                f"{resource_path('models', name)}/versions/import",
                files={"file": (archive.name, content, "application/x-tar")},
                timeout=httpx2.Timeout(IMPORT_TIMEOUT, connect=5),
            )
        return version

    def set_alias(self, name: str, version: int, alias: str) -> Json:
        path = f"{resource_path('models', name)}/aliases/{quote(alias, safe='')}"
        response: Json = self.request_json(
            "PUT", path, json={"version": version}, timeout=PROMOTE_TIMEOUT
        )
        return response

    def remove_alias(self, name: str, alias: str) -> None:
        self.request("DELETE", f"{resource_path('models', name)}/aliases/{quote(alias, safe='')}")

    def list_shadow_comparisons(self, name: str) -> list[Json]:
        """Compare shadow versions with the versions that serve."""
        pairs: list[Json] = self.request_json("GET", f"{resource_path('models', name)}/shadow")
        return pairs

    def roll_back_alias(self, name: str, alias: str) -> Json:
        """Move an alias back to its previous version."""
        path = f"{resource_path('models', name)}/aliases/{quote(alias, safe='')}/rollback"
        response: Json = self.request_json("POST", path, timeout=PROMOTE_TIMEOUT)
        return response

    def delete_model(self, name: str, version: int | None = None) -> None:
        versions = "" if version is None else f"/versions/{version}"
        self.request("DELETE", f"{resource_path('models', name)}{versions}")

    def predict(self, texts: list[str], model: str | None, *, truncate: bool) -> LabeledPredictions:
        body = {"inputs": texts, "truncate": truncate, **({"model": model} if model else {})}
        response = self.request("POST", "/predict", json=body)
        return LabeledPredictions(
            labels=decode_json(response),
            version=response.headers.get("X-Model-Version"),
            truncated=int(response.headers.get("X-Truncated", "0")),
        )

    def explain(self, text: str, model: str) -> Json:
        """Return the words that drove the prediction for a text."""
        response: Json = self.request_json(
            "POST", f"{resource_path('models', model)}/explain", json={"inputs": text}
        )
        return response

    # -- prediction runs ----------------------------------------------------------------------

    def submit_prediction_run(self, body: Json) -> PredictionRunJson:
        run: PredictionRunJson = self.post_idempotent("/v1/predictions", json=body)
        return run

    def get_prediction_run(self, run_id: str) -> PredictionRunJson:
        run: PredictionRunJson = self.request_json("GET", resource_path("predictions", run_id))
        return run

    def list_prediction_runs(self, limit: int, **filters: str | None) -> list[PredictionRunJson]:
        return list(self.iterate_pages("/v1/predictions", limit, **filters))

    def cancel_prediction_run(self, run_id: str) -> PredictionRunJson:
        run: PredictionRunJson = self.request_json(
            "POST", f"{resource_path('predictions', run_id)}/cancel"
        )
        return run

    def delete_prediction_run(self, run_id: str) -> None:
        self.request("DELETE", resource_path("predictions", run_id))

    def download_predictions(self, run_id: str, format: str) -> ByteStream:
        """Stream the rows with their predictions as a file."""
        return self.stream_bytes(f"{resource_path('predictions', run_id)}/results", format=format)

    # -- sweeps -------------------------------------------------------------------------------

    def start_sweep(self, body: Json) -> SweepJson:
        sweep: SweepJson = self.post_idempotent("/v1/sweeps", json=body)
        return sweep

    def plan_sweep(self, body: Json) -> SweepPlanJson:
        plan: SweepPlanJson = self.request_json(
            "POST", "/v1/sweeps", json=body, params={"dry_run": "true"}
        )
        return plan

    def get_sweep(self, sweep_id: str) -> SweepJson:
        sweep: SweepJson = self.request_json("GET", resource_path("sweeps", sweep_id))
        return sweep

    def list_sweeps(self, limit: int, **filters: str | None) -> list[SweepListItemJson]:
        return list(self.iterate_pages("/v1/sweeps", limit, **filters))

    def list_trials(self, sweep_id: str) -> list[TrialJson]:
        trials: list[TrialJson] = self.request_json(
            "GET", f"{resource_path('sweeps', sweep_id)}/cells"
        )
        return trials

    def send_sweep_action(self, sweep_id: str, action: SweepAction) -> SweepJson:
        sweep: SweepJson = self.request_json(
            "POST", f"{resource_path('sweeps', sweep_id)}/{action}"
        )
        return sweep

    def extend_sweep(self, sweep_id: str, body: Json) -> SweepJson:
        sweep: SweepJson = self.request_json(
            "POST", f"{resource_path('sweeps', sweep_id)}/extend", json=body
        )
        return sweep

    def promote_trial(self, sweep_id: str, body: Json) -> JobJson:
        """Start the job that creates the model of a trial."""
        job: JobJson = self.post_idempotent(
            f"{resource_path('sweeps', sweep_id)}/promote", json=body
        )
        return job

    def delete_sweep(self, sweep_id: str) -> None:
        self.request("DELETE", resource_path("sweeps", sweep_id))

    def download_sweep_results(self, sweep_id: str, format: str) -> ByteStream:
        """Stream the trials as a file."""
        return self.stream_bytes(f"{resource_path('sweeps', sweep_id)}/results", format=format)

    def download_sweep_report(self, sweep_id: str) -> ByteStream:
        """Stream the HTML report."""
        return self.stream_bytes(f"{resource_path('sweeps', sweep_id)}/report")

    # -- health -------------------------------------------------------------------------------

    def is_ready(self) -> bool:
        """Return whether the service is reachable and ready."""
        try:
            return self.http.get("/readyz", timeout=2).is_success
        except httpx2.HTTPError:
            return False
