"""A client of MLflow's REST API: the calls that are needed (mlflow.org/docs/latest/rest-api.html).

Requests have limits on their time and on the size of the response. Redirects are not followed, and
no error repeats the credentials.
"""

import json
import re
import ssl
import time
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal, NamedTuple, Self

import httpx2

import lora_core
from app.mlflow.connection import MlflowConnection
from app.mlflow.errors import (
    MlflowExperimentDeleted,
    MlflowHostHeaderRejected,
    MlflowRejected,
    MlflowUnauthorized,
    MlflowUnexpectedResponse,
    MlflowUnreachable,
)

REQUEST_SECONDS = 30.0  # to connect, to send, and between two parts of the response
RESPONSE_SECONDS = 60.0  # for the whole response
MAX_RESPONSE_BYTES = 10_000_000
MAX_REASON_LENGTH = 500  # characters of MLflow's message that are kept

# MLflow's limits on one request (mlflow/utils/validation.py).
METRICS_PER_BATCH = 1000
PARAMS_PER_BATCH = 100

ALREADY_EXISTS = "RESOURCE_ALREADY_EXISTS"
DOES_NOT_EXIST = "RESOURCE_DOES_NOT_EXIST"
_ID = re.compile(r"[A-Za-z0-9][\w-]{0,63}", re.ASCII)  # of an experiment, run or version

RunStatus = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
Method = Literal["GET", "POST", "DELETE"]


class Metric(NamedTuple):
    """A value of a metric. MLflow ignores one that is sent again with the same fields."""

    key: str
    value: float | str  # or "NaN"
    timestamp: int  # milliseconds since 1970
    step: int


class MlflowClient:
    """Calls of one server. Each raises the errors of `_call`."""

    def __init__(self, connection: MlflowConnection) -> None:
        headers = {"User-Agent": f"loraworks/{lora_core.__version__}"}
        if connection.authorization is not None:
            headers["Authorization"] = connection.authorization
        self._connection = connection
        self._http = httpx2.Client(
            headers=headers, timeout=REQUEST_SECONDS, trust_env=False, verify=_ssl_context()
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    # Experiments and runs

    def get_or_create_experiment(self, name: str) -> str:
        """Return the id of an experiment. Raises `MlflowExperimentDeleted`."""
        path = "experiments/get-by-name"
        try:
            found = self._call("GET", path, {"experiment_name": name})
        except MlflowRejected as error:
            if error.error_code != DOES_NOT_EXIST:
                raise
            path = "experiments/create"
            return self._id(path, self._call("POST", path, {"name": name}), "experiment_id")
        experiment_id = self._id(path, found, "experiment", "experiment_id")
        if found["experiment"].get("lifecycle_stage") == "deleted":
            raise MlflowExperimentDeleted(experiment=name)
        return experiment_id

    def find_run_id_by_tag(self, experiment_id: str, tag: str, value: str) -> str | None:
        """Return the oldest run that has a tag with this value."""
        path = "runs/search"
        fields = {
            "experiment_ids": [experiment_id],
            "filter": f"tags.`{tag}` = '{value}'",
            "order_by": ["attributes.start_time ASC"],
            "max_results": 1,
        }
        found = self._call("POST", path, fields)
        return self._id(path, found, "runs", 0, "info", "run_id") if found.get("runs") else None

    def create_run(
        self, experiment_id: str, *, name: str, start_time: int, tags: Mapping[str, str]
    ) -> str:
        """Create a run with the status RUNNING and return its id. Times are in milliseconds."""
        path = "runs/create"
        fields = {
            "experiment_id": experiment_id,
            "run_name": name,
            "start_time": start_time,
            "tags": _pairs(tags),
        }
        return self._id(path, self._call("POST", path, fields), "run", "info", "run_id")

    def log_params(self, run_id: str, params: Mapping[str, str]) -> None:
        """Log parameters, which never change: the same value may be sent again, no other."""
        pairs = _pairs(params)
        for start in range(0, len(pairs), PARAMS_PER_BATCH):
            self._log_batch(run_id, params=pairs[start : start + PARAMS_PER_BATCH])

    def log_metrics(self, run_id: str, metrics: Sequence[Metric]) -> None:
        """Log at most `METRICS_PER_BATCH` metrics."""
        if metrics:
            self._log_batch(run_id, metrics=[each._asdict() for each in metrics])

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set at most 100 tags of a run."""
        self._log_batch(run_id, tags=_pairs(tags))

    def update_run(self, run_id: str, *, status: RunStatus, end_time: int | None) -> None:
        """Set the status of a run, and when it ended, in milliseconds."""
        fields = {"run_id": run_id, "status": status, "end_time": end_time}
        self._call("POST", "runs/update", {k: v for k, v in fields.items() if v is not None})

    def _log_batch(self, run_id: str, **entities: list[dict[str, Any]]) -> None:
        self._call("POST", "runs/log-batch", {"run_id": run_id, **entities})

    # Registered models, their versions and aliases

    def ensure_model(self, name: str) -> None:
        """Create a registered model if it does not exist."""
        try:
            self._call("POST", "registered-models/create", {"name": name})
        except MlflowRejected as error:
            if error.error_code != ALREADY_EXISTS:
                raise

    def find_version(self, name: str, tag: str, value: str) -> str | None:
        """Return the version of a model that has a tag with this value."""
        path = "model-versions/search"
        fields = {"filter": f"name = '{name}' and tags.`{tag}` = '{value}'", "max_results": 1}
        found = self._call("GET", path, fields)
        if not found.get("model_versions"):
            return None
        return self._id(path, found, "model_versions", 0, "version")

    def create_version(
        self,
        name: str,
        *,
        source: str,
        run_id: str | None,
        description: str,
        tags: Mapping[str, str],
    ) -> str:
        """Create the next version of a model, and return its number, which MLflow chooses."""
        path = "model-versions/create"
        fields = {
            "name": name,
            "source": source,
            "description": description,
            "tags": _pairs(tags),
            **({"run_id": run_id} if run_id else {}),
        }
        return self._id(path, self._call("POST", path, fields), "model_version", "version")

    def set_version_tag(self, name: str, version: str, key: str, value: str) -> None:
        fields = {"name": name, "version": version, "key": key, "value": value}
        self._call("POST", "model-versions/set-tag", fields)

    def set_alias(self, name: str, alias: str, version: str) -> None:
        fields = {"name": name, "alias": alias, "version": version}
        self._call("POST", "registered-models/alias", fields)

    def delete_alias(self, name: str, alias: str) -> None:
        self._call("DELETE", "registered-models/alias", {"name": name, "alias": alias})

    # Requests

    def _call(self, method: Method, path: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request and return the object in the response.

        Raises `MlflowUnreachable`, `MlflowUnauthorized`, `MlflowHostHeaderRejected`,
        `MlflowUnexpectedResponse`, `MlflowRejected`.
        """
        url = f"{self._connection.tracking_uri}/api/2.0/mlflow/{path}"
        sent: dict[str, Any] = {"params": fields} if method == "GET" else {"json": fields}
        try:
            with self._http.stream(method, url, **sent) as response:
                status, content = response.status_code, _read(response)
        except (httpx2.TimeoutException, TimeoutError) as error:
            raise self._unreachable("it timed out") from error
        except (httpx2.ProtocolError, httpx2.DecodingError) as error:  # its text quotes headers
            raise self._unreachable("request or response is not valid HTTP") from error
        except (httpx2.HTTPError, OSError) as error:
            raise self._unreachable(str(error) or "the connection broke") from error
        if status == 403 and b"Invalid Host header" in content:  # of its security middleware
            raise MlflowHostHeaderRejected(tracking_uri=self._connection.tracking_uri)
        if status in (401, 403):
            raise MlflowUnauthorized(tracking_uri=self._connection.tracking_uri, http_status=status)
        try:
            body = json.loads(content)
        except (ValueError, RecursionError):
            body = None
        if status == 200 and isinstance(body, dict):
            return body
        if status in (429, 502, 503, 504):
            raise self._unreachable(f"it answered with status {status}")
        if isinstance(body, dict) and isinstance(body.get("error_code"), str):
            raise MlflowRejected(
                call=path,
                error_code=self._without_credentials(_printable(body["error_code"]))[:64],
                http_status=status,
                reason=self._without_credentials(_printable(str(body.get("message", "")))).rstrip(
                    ". "
                ),
            )
        raise self._unexpected(path, status)

    def _id(self, call: str, body: Any, *path: str | int) -> str:
        """Return the id at a path in a response. Raises `MlflowUnexpectedResponse`."""
        try:
            for step in path:
                body = body[step]
        except (LookupError, TypeError) as error:
            raise self._unexpected(call, 200) from error
        if not isinstance(body, str | int) or not _ID.fullmatch(str(body)):
            raise self._unexpected(call, 200)
        return str(body)

    def _unreachable(self, reason: str) -> MlflowUnreachable:
        return MlflowUnreachable(tracking_uri=self._connection.tracking_uri, reason=reason)

    def _unexpected(self, call: str, status: int) -> MlflowUnexpectedResponse:
        return MlflowUnexpectedResponse(
            tracking_uri=self._connection.tracking_uri, call=call, http_status=status
        )

    def _without_credentials(self, text: str) -> str:
        """Return the start of a message, without credentials that it repeats."""
        _, _, credentials = (self._connection.authorization or "").partition(" ")
        shown = text.replace(credentials, "***") if credentials else text
        return shown[:MAX_REASON_LENGTH]


def _read(response: httpx2.Response) -> bytes:
    """Return the body. Raises `TimeoutError` if it takes too long or is too large."""
    deadline = time.monotonic() + RESPONSE_SECONDS
    content = bytearray()
    for chunk in response.iter_bytes():
        content += chunk
        if time.monotonic() > deadline or len(content) > MAX_RESPONSE_BYTES:
            raise TimeoutError
    return bytes(content)


def _printable(text: str) -> str:
    """Return the text without control characters and lone surrogates, to be stored and shown."""
    return "".join(character if character.isprintable() else " " for character in text)


def _pairs(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in values.items()]


@cache
def _ssl_context() -> ssl.SSLContext:
    """Create it once: reading the certificates takes longer than a request."""
    return httpx2.create_ssl_context()
