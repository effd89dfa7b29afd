"""A typed client of the API."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import quote
from uuid import UUID

import httpx2

from app.cli.json_client import (
    ByteStream,
    JsonClient,
    convert_http_errors,
    decode_json,
    drop_none,
    raise_for_status,
    resource_url_path,
    validate_response_body,
)
from app.cli.output import Json
from app.datasets.schemas import DatasetListItem, DatasetView
from app.drift.schemas import DriftCheckDetail, DriftCheckView, DriftView
from app.feedback.schemas import FeedbackItemResults, FeedbackView, LiveAccuracy, ReviewSample
from app.jobs.schemas import (
    JobComparison,
    JobEventView,
    JobListItem,
    JobPlan,
    JobStateView,
    JobView,
    MetricPointView,
    MisclassifiedText,
)
from app.label_review.schemas import CorrectionDiff, SuspectLabels
from app.labeling.schemas import (
    AnnotationView,
    LabelingListItem,
    LabelingView,
    LeasedTexts,
)
from app.mlflow.schemas import MlflowStatus
from app.predictions.schemas import PredictionRunListItem, PredictionRunView
from app.registry.schemas import ModelListItem, ModelView, VersionView
from app.retraining.schemas import RetrainingRuleView, RetrainingRunView
from app.serving.schemas import ExplanationView, LabelScore, ModelInfo, ShadowComparisonView
from app.sweeps.schemas import SweepListItem, SweepPlan, SweepView, TrialView
from app.text_erasure.schemas import TextErasureResult
from app.webhooks.schemas import DeliveryView, WebhookView
from lora_core.data.data_report import DataReport
from lora_core.specs.text_input import TextInput, text_to_dict

SweepAction = Literal["pause", "stop", "resume", "retry"]

# Timeouts in seconds.
PROMOTE_TIMEOUT = 120  # the service loads and tries the model before it moves the alias
IMPORT_TIMEOUT = 900  # an import may wait for others, and the model is loaded
CHECK_TIMEOUT = 300  # a check may wait for others
STREAM_TIMEOUT = 45  # the stream pings every 15 s; after three missed pings it is considered lost


STREAM_BODIES: dict[str, type[MetricPointView | JobEventView | JobStateView | JobView]] = {
    "metric": MetricPointView,
    "event": JobEventView,
    "state": JobStateView,
    "end": JobView,
}


@dataclass(frozen=True)
class JobStreamMessage:
    """A server-sent event of a job's stream."""

    event: str
    id: str
    body: MetricPointView | JobEventView | JobStateView | JobView


def _retraining_path(name: str) -> str:
    return f"{resource_url_path('models', name)}/retraining"


@dataclass(frozen=True)
class PredictResponse:
    """Labels with scores, or a number, for each text, and the model version that predicted them."""

    labels: list[list[LabelScore]]
    version: str | None
    truncated: int
    task: str = "single_label"
    targets: list[dict[str, list[LabelScore]]] = field(default_factory=list)  # instead, if several


class _CheckedDataset(DatasetView):
    diagnosis: DataReport


class Client(JsonClient):
    """The API calls."""

    # -- jobs ---------------------------------------------------------------------------------

    def create_job(self, body: Json) -> JobView:
        return self.create(JobView, "/v1/jobs", json=body)

    def plan_job(self, body: Json) -> JobPlan:
        return self.request_parsed(
            JobPlan, "POST", "/v1/jobs", json=body, params={"dry_run": "true"}
        )

    def get_job(self, job_id: str) -> JobView:
        return self.request_parsed(JobView, "GET", resource_url_path("jobs", job_id))

    def list_jobs(self, limit: int, **filters: str | None) -> list[JobListItem]:
        return self.list_items(JobListItem, "/v1/jobs", limit, **filters)

    def update_job(self, job_id: str, changes: Json) -> JobView:
        return self.request_parsed(
            JobView, "PATCH", resource_url_path("jobs", job_id), json=changes
        )

    def list_misclassified(self, job_id: str, limit: int, split: str) -> list[MisclassifiedText]:
        """Return misclassified texts, the most confident first."""
        path = f"{resource_url_path('jobs', job_id)}/misclassified"
        return self.request_parsed(
            list[MisclassifiedText], "GET", path, params={"split": split, "limit": limit}
        )

    def download_misclassified(self, job_id: str, split: str, format: str) -> ByteStream:
        """Stream all misclassified texts as a file."""
        path = f"{resource_url_path('jobs', job_id)}/misclassified/download"
        return self.stream_bytes(path, split=split, format=format)

    def cancel_job(self, job_id: str) -> JobView:
        return self.request_parsed(JobView, "POST", f"{resource_url_path('jobs', job_id)}/cancel")

    def pause_job(self, job_id: str) -> JobView:
        return self.request_parsed(JobView, "POST", f"{resource_url_path('jobs', job_id)}/pause")

    def resume_job(self, job_id: str) -> JobView:
        return self.request_parsed(JobView, "POST", f"{resource_url_path('jobs', job_id)}/resume")

    def retry_job(self, job_id: str) -> JobView:
        return self.create(JobView, f"{resource_url_path('jobs', job_id)}/retry")

    def delete_job(self, job_id: str) -> None:
        self.request("DELETE", resource_url_path("jobs", job_id))

    def compare_jobs(self, job_ids: list[str]) -> JobComparison:
        return self.request_parsed(
            JobComparison, "GET", "/v1/jobs/compare", params={"job": job_ids}
        )

    def list_metric_points(
        self, job_id: str, limit: int, **filters: str | None
    ) -> list[MetricPointView]:
        return self.list_items(
            MetricPointView, f"{resource_url_path('jobs', job_id)}/metrics", limit, **filters
        )

    def list_job_events(self, job_id: str, limit: int) -> list[JobEventView]:
        return self.list_items(JobEventView, f"{resource_url_path('jobs', job_id)}/events", limit)

    def stream_job(
        self, job_id: str | UUID, after: str | None = None
    ) -> Iterator[JobStreamMessage]:
        """Yield messages after the id `after`, until the job or the connection ends."""
        headers = {"Last-Event-ID": after} if after else None
        timeout = httpx2.Timeout(STREAM_TIMEOUT, connect=5)
        path = f"{resource_url_path('jobs', job_id)}/stream"
        with (
            convert_http_errors(self.url),
            self.http.sse(path, headers=headers, timeout=timeout) as source,
        ):
            raise_for_status(source.response)
            for message in source:
                if body_type := STREAM_BODIES.get(message.event):
                    body = validate_response_body(body_type, message.json())
                    yield JobStreamMessage(message.event, message.id, body)

    def download_artifact(self, artifact_id: UUID) -> ByteStream:
        """Stream the artifact as a tar file."""
        return self.stream_bytes(f"{resource_url_path('artifacts', artifact_id)}/archive")

    # -- datasets ----------------------------------------------------------------------------

    def upload_dataset(self, file: Path, **fields: str | None) -> DatasetView:
        with file.open("rb") as content:
            return self.create(
                DatasetView,
                "/v1/datasets",
                data=drop_none(fields),
                files={"file": (file.name, content)},
            )

    def download_dataset(self, ref: str) -> ByteStream:
        """Stream the file of a dataset."""
        return self.stream_bytes(f"{resource_url_path('datasets', ref)}/content")

    def list_datasets(self, limit: int) -> list[DatasetListItem]:
        return self.list_items(DatasetListItem, "/v1/datasets", limit)

    def get_dataset(self, ref: str) -> DatasetView:
        return self.request_parsed(DatasetView, "GET", resource_url_path("datasets", ref))

    def rediagnose_dataset(self, dataset_id: UUID) -> DataReport:
        """Run the data checks of a dataset again."""
        path = f"{resource_url_path('datasets', dataset_id)}/check"
        return self.request_parsed(_CheckedDataset, "POST", path, timeout=CHECK_TIMEOUT).diagnosis

    def list_suspects(self, ref: str, limit: int, target: str | None) -> SuspectLabels:
        """List labels that are probably wrong. The first call computes them."""
        path = f"{resource_url_path('datasets', ref)}/suspects"
        params = drop_none({"limit": str(limit), "target": target})
        return self.request_parsed(SuspectLabels, "GET", path, params=params, timeout=CHECK_TIMEOUT)

    def create_correction(self, ref: str, body: Json) -> CorrectionDiff:
        """Change labels in a new version of a dataset."""
        path = f"{resource_url_path('datasets', ref)}/corrections"
        return self.create(CorrectionDiff, path, json=body, timeout=CHECK_TIMEOUT)

    def get_correction_diff(self, ref: str) -> CorrectionDiff:
        return self.request_parsed(
            CorrectionDiff, "GET", f"{resource_url_path('datasets', ref)}/diff"
        )

    def delete_dataset(self, dataset_id: UUID) -> None:
        self.request("DELETE", resource_url_path("datasets", dataset_id))

    # -- models -------------------------------------------------------------------------------

    def list_models(self, limit: int) -> list[ModelListItem]:
        return self.list_items(ModelListItem, "/v1/models", limit)

    def get_model(self, name: str) -> ModelView:
        return self.request_parsed(ModelView, "GET", resource_url_path("models", name))

    def register_version(self, name: str, job_id: str) -> VersionView:
        return self.create(
            VersionView, f"{resource_url_path('models', name)}/versions", json={"job_id": job_id}
        )

    def import_version(self, name: str, archive: Path) -> VersionView:
        """Upload an exported model. The service loads it before it responds."""
        with archive.open("rb") as content:
            return self.create(
                VersionView,
                f"{resource_url_path('models', name)}/versions/import",
                files={"file": (archive.name, content, "application/x-tar")},
                timeout=httpx2.Timeout(IMPORT_TIMEOUT, connect=5),
            )

    def move_alias(self, name: str, version: int, alias: str) -> ModelView:
        path = f"{resource_url_path('models', name)}/aliases/{quote(alias, safe='')}"
        return self.request_parsed(
            ModelView, "PUT", path, json={"version": version}, timeout=PROMOTE_TIMEOUT
        )

    def delete_alias(self, name: str, alias: str) -> None:
        self.request(
            "DELETE", f"{resource_url_path('models', name)}/aliases/{quote(alias, safe='')}"
        )

    def list_shadow_comparisons(self, name: str) -> list[ShadowComparisonView]:
        """Compare shadow versions with the versions that serve."""
        return self.request_parsed(
            list[ShadowComparisonView], "GET", f"{resource_url_path('models', name)}/shadow"
        )

    def roll_back_alias(self, name: str, alias: str) -> ModelView:
        """Move an alias back to its previous version."""
        path = f"{resource_url_path('models', name)}/aliases/{quote(alias, safe='')}/rollback"
        return self.request_parsed(ModelView, "POST", path, timeout=PROMOTE_TIMEOUT)

    def delete_model_or_version(self, name: str, version: int | None = None) -> None:
        versions = "" if version is None else f"/versions/{version}"
        self.request("DELETE", f"{resource_url_path('models', name)}{versions}")

    def predict(
        self,
        texts: Sequence[TextInput],
        model: str | None,
        *,
        truncate: bool,
        target: str | None = None,
    ) -> PredictResponse:
        """Predict texts or pairs, sent as objects: two strings may be taken for a pair.

        `target`: the one of several targets to predict.
        """
        body: Json = {"inputs": list(map(text_to_dict, texts)), "truncate": truncate}
        body |= {"model": model} if model else {}
        params = {"target": target} if target else {}
        response = self.request("POST", "/predict", params=params, json=body)
        rows = decode_json(response)
        several = isinstance(rows, list) and any(isinstance(row, dict) for row in rows)
        return PredictResponse(
            labels=[] if several else validate_response_body(list[list[LabelScore]], rows),
            targets=validate_response_body(list[dict[str, list[LabelScore]]], rows)
            if several
            else [],
            version=response.headers.get("X-Model-Version"),
            truncated=int(response.headers.get("X-Truncated", "0")),
            task=response.headers.get("X-Task", "single_label"),
        )

    def get_model_info(self, model: str | None) -> ModelInfo:
        """Return a model, or by default the only one in production."""
        prefix = "" if model is None else f"/models/{quote(model, safe='')}"
        return self.request_parsed(ModelInfo, "GET", f"{prefix}/info")

    def explain(self, text: TextInput, model: str, target: str | None = None) -> ExplanationView:
        """Return the words that drove the prediction for a text, of one target if several."""
        return self.request_parsed(
            ExplanationView,
            "POST",
            f"{resource_url_path('models', model)}/explain",
            params={"target": target} if target else {},
            json={"inputs": text_to_dict(text)},
        )

    # -- drift --------------------------------------------------------------------------------

    def get_drift(self, model: str, days: float) -> DriftView:
        path = f"{resource_url_path('models', model)}/drift"
        return self.request_parsed(DriftView, "GET", path, params={"days": days})

    def create_drift_check(self, model: str) -> DriftCheckView:
        """Compare the texts of a version now, which takes seconds."""
        path = f"{resource_url_path('models', model)}/drift/checks"
        return self.request_parsed(DriftCheckView, "POST", path, timeout=CHECK_TIMEOUT)

    def get_drift_check(self, model: str, check_id: UUID) -> DriftCheckDetail:
        """Return a check with the texts that differ most."""
        path = f"{resource_url_path('models', model)}/drift/checks/{check_id}"
        return self.request_parsed(DriftCheckDetail, "GET", path)

    # -- feedback -----------------------------------------------------------------------------

    def add_feedback(self, body: Json) -> FeedbackItemResults:
        return self.request_parsed(FeedbackItemResults, "POST", "/v1/feedback", json=body)

    def list_feedback(self, name: str, limit: int) -> list[FeedbackView]:
        return self.list_items(FeedbackView, f"{resource_url_path('models', name)}/feedback", limit)

    def delete_feedback(self, feedback_id: str) -> None:
        self.request("DELETE", resource_url_path("feedback", feedback_id))

    def create_review_sample(self, model: str, count: int) -> ReviewSample:
        """Return a random sample of kept predictions to label."""
        path = f"{resource_url_path('models', model)}/review"
        return self.request_parsed(ReviewSample, "POST", path, json={"count": count})

    def list_live_accuracy(self, name: str, days: float) -> list[LiveAccuracy]:
        path = f"{resource_url_path('models', name)}/live-accuracy"
        return self.request_parsed(list[LiveAccuracy], "GET", path, params={"days": days})

    def create_feedback_dataset(self, name: str, body: Json) -> DatasetView:
        """Make a dataset of the texts with feedback on a model."""
        path = f"{resource_url_path('models', name)}/feedback/dataset"
        return self.create(DatasetView, path, json=body, timeout=CHECK_TIMEOUT)

    def forget(self, body: Json) -> TextErasureResult:
        """Forget a text; searching the datasets takes a while."""
        return self.request_parsed(
            TextErasureResult, "POST", "/v1/forget", json=body, timeout=CHECK_TIMEOUT
        )

    # -- retraining ---------------------------------------------------------------------------

    def set_retraining_rule(self, name: str, body: Json) -> RetrainingRuleView:
        return self.request_parsed(RetrainingRuleView, "PUT", _retraining_path(name), json=body)

    def get_retraining_rule(self, name: str) -> RetrainingRuleView:
        return self.request_parsed(RetrainingRuleView, "GET", _retraining_path(name))

    def delete_retraining_rule(self, name: str) -> None:
        self.request("DELETE", _retraining_path(name))

    def start_retraining(self, name: str) -> RetrainingRunView:
        return self.create(RetrainingRunView, f"{_retraining_path(name)}/runs")

    def list_retraining_runs(self, name: str, limit: int) -> list[RetrainingRunView]:
        return self.list_items(RetrainingRunView, f"{_retraining_path(name)}/runs", limit)

    def get_retraining_run(self, name: str, run_id: str) -> RetrainingRunView:
        path = f"{_retraining_path(name)}/runs/{quote(run_id, safe='')}"
        return self.request_parsed(RetrainingRunView, "GET", path)

    def cancel_retraining(self, name: str, run_id: str) -> RetrainingRunView:
        path = f"{_retraining_path(name)}/runs/{quote(run_id, safe='')}/cancel"
        return self.request_parsed(RetrainingRunView, "POST", path)

    # -- prediction runs ----------------------------------------------------------------------

    def create_prediction_run(self, body: Json) -> PredictionRunView:
        return self.create(PredictionRunView, "/v1/predictions", json=body)

    def get_prediction_run(self, run_id: str | UUID) -> PredictionRunView:
        return self.request_parsed(
            PredictionRunView, "GET", resource_url_path("predictions", run_id)
        )

    def list_prediction_runs(
        self, limit: int, **filters: str | None
    ) -> list[PredictionRunListItem]:
        return self.list_items(PredictionRunListItem, "/v1/predictions", limit, **filters)

    def cancel_prediction_run(self, run_id: str | UUID) -> PredictionRunView:
        return self.request_parsed(
            PredictionRunView, "POST", f"{resource_url_path('predictions', run_id)}/cancel"
        )

    def delete_prediction_run(self, run_id: str | UUID) -> None:
        self.request("DELETE", resource_url_path("predictions", run_id))

    def download_predictions(self, run_id: str | UUID, format: str) -> ByteStream:
        """Stream the rows with their predictions as a file."""
        return self.stream_bytes(
            f"{resource_url_path('predictions', run_id)}/results", format=format
        )

    def download_labeling_config(self, run_id: str | UUID) -> ByteStream:
        """Stream the labeling configuration of a Label Studio project for the results."""
        return self.stream_bytes(f"{resource_url_path('predictions', run_id)}/labeling-config")

    # -- sweeps -------------------------------------------------------------------------------

    def create_sweep(self, body: Json) -> SweepView:
        return self.create(SweepView, "/v1/sweeps", json=body)

    def preview_sweep(self, body: Json) -> SweepPlan:
        return self.request_parsed(
            SweepPlan, "POST", "/v1/sweeps", json=body, params={"dry_run": "true"}
        )

    def get_sweep(self, sweep_id: str | UUID) -> SweepView:
        return self.request_parsed(SweepView, "GET", resource_url_path("sweeps", sweep_id))

    def list_sweeps(self, limit: int, **filters: str | None) -> list[SweepListItem]:
        return self.list_items(SweepListItem, "/v1/sweeps", limit, **filters)

    def list_trials(self, sweep_id: str) -> list[TrialView]:
        return self.request_parsed(
            list[TrialView], "GET", f"{resource_url_path('sweeps', sweep_id)}/trials"
        )

    def send_sweep_action(self, sweep_id: str, action: SweepAction) -> SweepView:
        return self.request_parsed(
            SweepView, "POST", f"{resource_url_path('sweeps', sweep_id)}/{action}"
        )

    def extend_sweep(self, sweep_id: str, body: Json) -> SweepView:
        return self.request_parsed(
            SweepView, "POST", f"{resource_url_path('sweeps', sweep_id)}/extend", json=body
        )

    def start_trial_promotion(self, sweep_id: str, body: Json) -> JobView:
        """Start the job that creates the model of a trial."""
        return self.create(JobView, f"{resource_url_path('sweeps', sweep_id)}/promote", json=body)

    def delete_sweep(self, sweep_id: str) -> None:
        self.request("DELETE", resource_url_path("sweeps", sweep_id))

    def download_sweep_results(self, sweep_id: str, format: str) -> ByteStream:
        """Stream the trials as a file."""
        return self.stream_bytes(f"{resource_url_path('sweeps', sweep_id)}/results", format=format)

    def download_sweep_report(self, sweep_id: str) -> ByteStream:
        """Stream the HTML report."""
        return self.stream_bytes(f"{resource_url_path('sweeps', sweep_id)}/report")

    # -- labeling -----------------------------------------------------------------------------

    def create_labeling_project(self, body: Json) -> LabelingView:
        return self.create(LabelingView, "/v1/labeling", json=body)

    def list_labeling_projects(self, limit: int) -> list[LabelingListItem]:
        return self.list_items(LabelingListItem, "/v1/labeling", limit)

    def get_labeling_project(self, name: str) -> LabelingView:
        return self.request_parsed(LabelingView, "GET", resource_url_path("labeling", name))

    def add_project_labels(self, name: str, labels: Sequence[str]) -> LabelingView:
        body = {"add_labels": list(labels)}
        return self.request_parsed(
            LabelingView, "PATCH", resource_url_path("labeling", name), json=body
        )

    def delete_labeling_project(self, name: str) -> None:
        self.request("DELETE", resource_url_path("labeling", name))

    def lease_texts(self, name: str, count: int, annotator: str | None) -> LeasedTexts:
        """Lease texts to label."""
        body = {"count": count, "annotator": annotator}
        path = f"{resource_url_path('labeling', name)}/next"
        return self.request_parsed(LeasedTexts, "POST", path, json=body)

    def update_annotation(self, name: str, row: int, body: Json) -> AnnotationView:
        """Label or skip a text. May be repeated."""
        path = f"{resource_url_path('labeling', name)}/texts/{row}"
        return self.request_parsed(AnnotationView, "PUT", path, json=body)

    def delete_annotation(self, name: str, row: int, annotator: str | None) -> None:
        """Undo one's own label."""
        path = f"{resource_url_path('labeling', name)}/texts/{row}"
        self.request("DELETE", path, params=drop_none({"annotator": annotator}))

    def create_labeled_dataset(self, name: str, dataset_name: str | None) -> DatasetView:
        """Make a dataset of the labels so far."""
        path = f"{resource_url_path('labeling', name)}/dataset"
        return self.create(DatasetView, path, json={"name": dataset_name})

    # -- webhooks -----------------------------------------------------------------------------

    def create_webhook(self, body: Json) -> WebhookView:
        return self.create(WebhookView, "/v1/webhooks", json=body)

    def get_webhook(self, webhook_id: str) -> WebhookView:
        return self.request_parsed(WebhookView, "GET", resource_url_path("webhooks", webhook_id))

    def list_webhooks(self, limit: int) -> list[WebhookView]:
        return self.list_items(WebhookView, "/v1/webhooks", limit)

    def delete_webhook(self, webhook_id: str) -> None:
        self.request("DELETE", resource_url_path("webhooks", webhook_id))

    def rotate_webhook_secret(self, webhook_id: str) -> WebhookView:
        return self.request_parsed(
            WebhookView, "POST", f"{resource_url_path('webhooks', webhook_id)}/rotate"
        )

    def send_test_event(self, webhook_id: str) -> DeliveryView:
        return self.request_parsed(
            DeliveryView, "POST", f"{resource_url_path('webhooks', webhook_id)}/test"
        )

    def list_deliveries(
        self, webhook_id: str, limit: int, **filters: str | None
    ) -> list[DeliveryView]:
        path = f"{resource_url_path('webhooks', webhook_id)}/deliveries"
        return self.list_items(DeliveryView, path, limit, **filters)

    def replay_delivery(self, webhook_id: str, delivery_id: str) -> DeliveryView:
        path = (
            f"{resource_url_path('webhooks', webhook_id)}/deliveries/{quote(delivery_id, safe='')}"
        )
        return self.request_parsed(DeliveryView, "POST", f"{path}/replay")

    # -- MLflow -------------------------------------------------------------------------------

    def get_mlflow_status(self) -> MlflowStatus:
        return self.request_parsed(MlflowStatus, "GET", "/v1/mlflow")

    # -- health -------------------------------------------------------------------------------

    def is_ready(self) -> bool:
        """Return whether the service is reachable and ready."""
        try:
            return self.http.get("/readyz", timeout=2).is_success
        except httpx2.HTTPError:
            return False
