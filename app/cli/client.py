"""The calls of the API about sweeps."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import httpx2

from app.cli.connection import Connection, Pieces, check, decoded, given, path_of, reaching
from app.cli.responses import (
    Cell,
    Dataset,
    DatasetListItem,
    Diagnosis,
    Job,
    JobListItem,
    Json,
    Label,
    Model,
    ModelListItem,
    Note,
    Plan,
    Point,
    Prediction,
    Sweep,
    SweepListItem,
    SweepPlan,
    Version,
)

Order = Literal["pause", "stop", "resume", "retry"]


class SweepCalls(Connection):
    """By name."""

    def start_sweep(self, body: Json) -> Sweep:
        sweep: Sweep = self.create("/v1/sweeps", json=body)
        return sweep

    def plan_sweep(self, body: Json) -> SweepPlan:
        plan: SweepPlan = self.json("POST", "/v1/sweeps", json=body, params={"dry_run": "true"})
        return plan

    def sweep(self, sweep_id: str) -> Sweep:
        sweep: Sweep = self.json("GET", path_of("sweeps", sweep_id))
        return sweep

    def sweeps(self, limit: int, **filters: str | None) -> list[SweepListItem]:
        return list(self.pages("/v1/sweeps", limit, **filters))

    def cells(self, sweep_id: str) -> list[Cell]:
        cells: list[Cell] = self.json("GET", f"{path_of('sweeps', sweep_id)}/cells")
        return cells

    def order_sweep(self, sweep_id: str, order: Order) -> Sweep:
        sweep: Sweep = self.json("POST", f"{path_of('sweeps', sweep_id)}/{order}")
        return sweep

    def extend_sweep(self, sweep_id: str, body: Json) -> Sweep:
        sweep: Sweep = self.json("POST", f"{path_of('sweeps', sweep_id)}/extend", json=body)
        return sweep

    def promote_cell(self, sweep_id: str, body: Json) -> Job:
        """The job that makes the model of a cell."""
        job: Job = self.create(f"{path_of('sweeps', sweep_id)}/promote", json=body)
        return job

    def delete_sweep(self, sweep_id: str) -> None:
        self.request("DELETE", path_of("sweeps", sweep_id))

    def sweep_results(self, sweep_id: str, format: str) -> Pieces:
        """The cells as the bytes of a file."""
        return self.pieces(f"{path_of('sweeps', sweep_id)}/results", format=format)

    def sweep_report(self, sweep_id: str) -> Pieces:
        """The page, as bytes."""
        return self.pieces(f"{path_of('sweeps', sweep_id)}/report")


# MERGED app.cli.client
# A typed client of the service's API.

LOADING_SECONDS = 120  # the service loads and tries a model before it moves an alias there
IMPORT_SECONDS = 900  # an imported model may wait for its turn, and is loaded
CHECK_SECONDS = 300  # a check may wait for its turn
SILENCE_SECONDS = 45  # the stream pings every 15 s; three missed ones mean that nobody is there


@dataclass(frozen=True)
class Message:
    """One message of a job's stream: `metric`, `event`, `state` or `end`."""

    event: str
    id: str
    data: Json


@dataclass(frozen=True)
class Predictions:
    """Labels with scores for each text, and the version that gave them."""

    labels: list[list[Label]]
    version: str | None
    truncated: int


class Client(SweepCalls):
    """The calls of the API, by name."""

    # -- jobs ---------------------------------------------------------------------------------

    def submit(self, body: Json) -> Job:
        job: Job = self.create("/v1/jobs", json=body)
        return job

    def plan(self, body: Json) -> Plan:
        plan: Plan = self.json("POST", "/v1/jobs", json=body, params={"dry_run": "true"})
        return plan

    def job(self, job_id: str) -> Job:
        job: Job = self.json("GET", path_of("jobs", job_id))
        return job

    def jobs(self, limit: int, **filters: str | None) -> list[JobListItem]:
        return list(self.pages("/v1/jobs", limit, **filters))

    def update_job(self, job_id: str, changes: Json) -> Job:
        job: Job = self.json("PATCH", path_of("jobs", job_id), json=changes)
        return job

    def mistakes(self, job_id: str, limit: int, split: str) -> list[Json]:
        """The surest first."""
        path = f"{path_of('jobs', job_id)}/mistakes"
        found: list[Json] = self.json("GET", path, params={"split": split, "limit": limit})
        return found

    def mistakes_file(self, job_id: str, split: str, format: str) -> Pieces:
        """All of them, as the bytes of a file."""
        path = f"{path_of('jobs', job_id)}/mistakes/download"
        return self.pieces(path, split=split, format=format)

    def cancel(self, job_id: str) -> Job:
        job: Job = self.json("POST", f"{path_of('jobs', job_id)}/cancel")
        return job

    def retry_job(self, job_id: str) -> Job:
        job: Job = self.create(f"{path_of('jobs', job_id)}/retry")
        return job

    def delete_job(self, job_id: str) -> None:
        self.request("DELETE", path_of("jobs", job_id))

    def compare(self, job_ids: list[str]) -> Json:
        found: Json = self.json("GET", "/v1/jobs/compare", params={"job": job_ids})
        return found

    def points(self, job_id: str, limit: int, **filters: str | None) -> list[Point]:
        return list(self.pages(f"{path_of('jobs', job_id)}/metrics", limit, **filters))

    def notes(self, job_id: str, limit: int) -> list[Note]:
        return list(self.pages(f"{path_of('jobs', job_id)}/events", limit))

    def stream(self, job_id: str, after: str | None = None) -> Iterator[Message]:
        """Messages after the id `after`, until the job ends or the connection does."""
        headers = {"Last-Event-ID": after} if after else None
        timeout = httpx2.Timeout(SILENCE_SECONDS, connect=5)
        path = f"{path_of('jobs', job_id)}/stream"
        with (
            reaching(self.url),
            self.http.sse(path, headers=headers, timeout=timeout) as source,
        ):
            check(source.response)
            for message in source:
                data = message.json()
                yield Message(message.event, message.id, data if isinstance(data, dict) else {})

    def archive(self, artifact_id: str) -> Pieces:
        """The artifact as the bytes of a tar file."""
        return self.pieces(f"{path_of('artifacts', artifact_id)}/archive")

    # -- data sets ----------------------------------------------------------------------------

    def upload(self, file: Path, **fields: str | None) -> Dataset:
        with file.open("rb") as content:
            dataset: Dataset = self.create(
                "/v1/datasets", data=given(fields), files={"file": (file.name, content)}
            )
        return dataset

    def content(self, ref: str) -> Pieces:
        """The file of a data set."""
        return self.pieces(f"{path_of('datasets', ref)}/content")

    def datasets(self, limit: int) -> list[DatasetListItem]:
        return list(self.pages("/v1/datasets", limit))

    def dataset(self, ref: str) -> Dataset:
        dataset: Dataset = self.json("GET", path_of("datasets", ref))
        return dataset

    def check_dataset(self, dataset_id: str) -> Diagnosis:
        """Have it diagnosed anew."""
        path = f"{path_of('datasets', dataset_id)}/check"
        diagnosis: Diagnosis = self.json("POST", path, timeout=CHECK_SECONDS)["diagnosis"]
        return diagnosis

    def delete_dataset(self, dataset_id: str) -> None:
        self.request("DELETE", path_of("datasets", dataset_id))

    # -- models -------------------------------------------------------------------------------

    def models(self, limit: int) -> list[ModelListItem]:
        return list(self.pages("/v1/models", limit))

    def model(self, name: str) -> Model:
        model: Model = self.json("GET", path_of("models", name))
        return model

    def register(self, name: str, job_id: str) -> Json:
        answer: Json = self.create(f"{path_of('models', name)}/versions", json={"job_id": job_id})
        return answer

    def import_version(self, name: str, archive: Path) -> Version:
        """Send an exported model, which is loaded before the answer comes."""
        with archive.open("rb") as content:
            version: Version = self.create(
                f"{path_of('models', name)}/versions/import",
                files={"file": (archive.name, content, "application/x-tar")},
                timeout=httpx2.Timeout(IMPORT_SECONDS, connect=5),
            )
        return version

    def promote(self, name: str, version: int, alias: str) -> Json:
        path = f"{path_of('models', name)}/aliases/{quote(alias, safe='')}"
        answer: Json = self.json("PUT", path, json={"version": version}, timeout=LOADING_SECONDS)
        return answer

    def demote(self, name: str, alias: str) -> None:
        self.request("DELETE", f"{path_of('models', name)}/aliases/{quote(alias, safe='')}")

    def shadow(self, name: str) -> list[Json]:
        """How candidates compare with what answers."""
        pairs: list[Json] = self.json("GET", f"{path_of('models', name)}/shadow")
        return pairs

    def roll_back(self, name: str, alias: str) -> Json:
        """Point an alias at the version before."""
        path = f"{path_of('models', name)}/aliases/{quote(alias, safe='')}/rollback"
        answer: Json = self.json("POST", path, timeout=LOADING_SECONDS)
        return answer

    def delete_model(self, name: str, version: int | None = None) -> None:
        versions = "" if version is None else f"/versions/{version}"
        self.request("DELETE", f"{path_of('models', name)}{versions}")

    def predict(self, texts: list[str], model: str | None, *, truncate: bool) -> Predictions:
        body = {"inputs": texts, "truncate": truncate, **({"model": model} if model else {})}
        response = self.request("POST", "/predict", json=body)
        return Predictions(
            labels=decoded(response),
            version=response.headers.get("X-Model-Version"),
            truncated=int(response.headers.get("X-Truncated", "0")),
        )

    def explain(self, text: str, model: str) -> Json:
        """Which words drove the answer to a text."""
        answer: Json = self.json(
            "POST", f"{path_of('models', model)}/explain", json={"inputs": text}
        )
        return answer

    # -- prediction runs ----------------------------------------------------------------------

    def submit_prediction(self, body: Json) -> Prediction:
        run: Prediction = self.create("/v1/predictions", json=body)
        return run

    def prediction(self, run_id: str) -> Prediction:
        run: Prediction = self.json("GET", path_of("predictions", run_id))
        return run

    def predictions(self, limit: int, **filters: str | None) -> list[Prediction]:
        return list(self.pages("/v1/predictions", limit, **filters))

    def cancel_prediction(self, run_id: str) -> Prediction:
        run: Prediction = self.json("POST", f"{path_of('predictions', run_id)}/cancel")
        return run

    def delete_prediction(self, run_id: str) -> None:
        self.request("DELETE", path_of("predictions", run_id))

    def results(self, run_id: str, format: str) -> Pieces:
        """The rows with their answers, as the bytes of a file."""
        return self.pieces(f"{path_of('predictions', run_id)}/results", format=format)

    # -----------------------------------------------------------------------------------------

    def ready(self) -> bool:
        """Whether the service is there and well."""
        try:
            return self.http.get("/readyz", timeout=2).is_success
        except httpx2.HTTPError:
            return False
