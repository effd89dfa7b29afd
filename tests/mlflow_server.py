"""A stand-in for an MLflow server: the calls that are needed, with the checks of MLflow 3.17."""

import json
import posixpath
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.waiting import wait_until

PREFIX = "/api/2.0/mlflow/"
KEY = re.compile(r"[/\w.\- ]{1,250}")
SOURCE = re.compile(r"(?!https?:|s?ftp:|file:)[a-z]+:/[^\s]+")
RESERVED_ALIAS = re.compile(r"latest|v\d+", re.IGNORECASE)
BY_TAG = re.compile(
    r"(?:name = '(?P<name>[\w-]+)' and )?tags\.`(?P<tag>[^`]+)` = '(?P<value>[^']*)'"
)
Json = dict[str, Any]


class Refusal(Exception):
    """An error response in MLflow's form."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


def invalid(message: str) -> Refusal:
    return Refusal(400, "INVALID_PARAMETER_VALUE", message)


def missing(what: str) -> Refusal:
    return Refusal(404, "RESOURCE_DOES_NOT_EXIST", f"{what} does not exist")


@dataclass
class Run:
    """A run as MLflow stores it."""

    run_id: str
    experiment_id: str
    name: str
    start_time: int
    status: str = "RUNNING"
    end_time: int | None = None
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: list[tuple[str, float | str, int, int]] = field(default_factory=list)

    def curve(self, key: str) -> list[tuple[int, float | str]]:
        """Steps and values of a metric, in the order in which they arrived."""
        return [(step, value) for name, value, _, step in self.metrics if name == key]


@dataclass
class Version:
    """A version of a registered model."""

    source: str
    run_id: str | None
    description: str
    tags: dict[str, str]


@dataclass
class Model:
    """A registered model. Versions count from 1."""

    versions: dict[str, Version] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)


@dataclass
class MlflowStandIn:
    """What arrived, and how the next requests are answered."""

    port: int = 0
    experiments: dict[str, str] = field(default_factory=dict)  # id by name
    deleted_experiments: set[str] = field(default_factory=set)
    runs: dict[str, Run] = field(default_factory=dict)
    models: dict[str, Model] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    # Of the next requests that match a path: (path, status, content), before anything is done.
    failures: list[tuple[str, int, bytes]] = field(default_factory=list)
    # Paths of requests that are carried out, and whose response is lost.
    lost: list[str] = field(default_factory=list)
    respond: threading.Event = field(default_factory=threading.Event)  # clear it to be slow

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def run_of(self, job_id: object) -> Run:
        """The only run of a job."""
        (run,) = (each for each in self.runs.values() if each.tags["loraworks.id"] == str(job_id))
        return run

    def wait_for_call(self, path: str, seconds: float = 20.0) -> None:
        wait_until(lambda: path in self.calls, seconds=seconds, what=path)

    def forget(self) -> None:
        """Lose everything, as with a new database."""
        for stored in (self.experiments, self.runs, self.models):
            stored.clear()

    # The calls

    def handle(self, method: str, path: str, body: Json) -> Json:
        call = getattr(self, f"{method}_{re.sub('[/-]', '_', path)}".lower(), None)
        if call is None:
            raise Refusal(404, "ENDPOINT_NOT_FOUND", path)
        try:
            answer: Json = call(**body)
        except TypeError as error:  # an unknown or a missing field
            raise invalid(str(error)) from error
        return answer

    def get_experiments_get_by_name(self, *, experiment_name: str) -> Json:
        if experiment_name not in self.experiments:
            raise missing(f"Experiment {experiment_name}")
        deleted = experiment_name in self.deleted_experiments
        return {
            "experiment": {
                "experiment_id": self.experiments[experiment_name],
                "name": experiment_name,
                "lifecycle_stage": "deleted" if deleted else "active",
            }
        }

    def post_experiments_create(self, *, name: str) -> Json:
        if not name or name in self.experiments:
            raise Refusal(400, "RESOURCE_ALREADY_EXISTS", name)
        self.experiments[name] = str(len(self.experiments) + 1)
        return {"experiment_id": self.experiments[name]}

    def post_runs_search(
        self, *, experiment_ids: list[str], filter: str, order_by: list[str], max_results: int
    ) -> Json:
        assert order_by == ["attributes.start_time ASC"]
        wanted = BY_TAG.fullmatch(filter)
        assert wanted
        found = [
            {"info": {"run_id": run.run_id}}
            for run in sorted(self.runs.values(), key=lambda each: each.start_time)
            if run.experiment_id in experiment_ids
            and run.tags.get(wanted["tag"]) == wanted["value"]
        ]
        return {"runs": found[:max_results]} if found else {}

    def post_runs_create(
        self, *, experiment_id: str, run_name: str, start_time: int, tags: list[Json]
    ) -> Json:
        if experiment_id not in self.experiments.values():
            raise missing(f"Experiment {experiment_id}")
        run = Run(f"{len(self.runs):032x}", experiment_id, run_name, start_time)
        run.tags = checked(tags, 5000)
        self.runs[run.run_id] = run
        return {"run": {"info": {"run_id": run.run_id}}}

    def post_runs_log_batch(
        self,
        *,
        run_id: str,
        metrics: list[Json] | None = None,
        params: list[Json] | None = None,
        tags: list[Json] | None = None,
    ) -> Json:
        run = self._run(run_id)
        if len(metrics or ()) > 1000 or len(params or ()) > 100 or len(tags or ()) > 100:
            raise invalid("too many in one batch")
        new = checked(params or [], 500)
        for key, value in new.items():
            if run.params.get(key, value) != value:
                raise invalid(f"Changing param values is not allowed: {key}")
        for each in metrics or ():
            check_key(each["key"])
            if not isinstance(each["value"], int | float) and each["value"] != "NaN":
                raise invalid(f"Got invalid value {each['value']}")
            if not (isinstance(each["timestamp"], int) and isinstance(each["step"], int)):
                raise invalid("timestamp and step are integers")
            row = (each["key"], each["value"], each["timestamp"], each["step"])
            if row not in run.metrics:  # MLflow ignores duplicates
                run.metrics.append(row)
        run.params |= new
        run.tags |= checked(tags or [], 5000)
        return {}

    def post_runs_update(self, *, run_id: str, status: str, end_time: int | None = None) -> Json:
        run = self._run(run_id)
        if status not in ("RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"):
            raise invalid(status)
        run.status, run.end_time = status, end_time or run.end_time
        return {"run_info": {"run_id": run_id}}

    def post_registered_models_create(self, *, name: str) -> Json:
        if name in self.models:
            raise Refusal(400, "RESOURCE_ALREADY_EXISTS", name)
        self.models[name] = Model()
        return {"registered_model": {"name": name}}

    def get_model_versions_search(self, *, filter: str, max_results: str) -> Json:
        wanted = BY_TAG.fullmatch(filter)
        assert wanted
        model = self.models.get(wanted["name"], Model())
        found = [
            {"version": number}
            for number, version in model.versions.items()
            if version.tags.get(wanted["tag"]) == wanted["value"]
        ]
        return {"model_versions": found[: int(max_results)]} if found else {}

    def post_model_versions_create(
        self,
        *,
        name: str,
        source: str,
        description: str,
        tags: list[Json],
        run_id: str | None = None,
    ) -> Json:
        if not SOURCE.fullmatch(source):
            raise invalid(f"Invalid model version source: '{source}'")
        if run_id is not None:
            self._run(run_id)
        model = self._model(name)
        number = str(len(model.versions) + 1)
        model.versions[number] = Version(source, run_id, description, checked(tags, 5000))
        return {"model_version": {"name": name, "version": number}}

    def post_model_versions_set_tag(self, *, name: str, version: str, key: str, value: str) -> Json:
        self._version(name, version).tags |= checked([{"key": key, "value": value}], 5000)
        return {}

    def post_registered_models_alias(self, *, name: str, alias: str, version: str) -> Json:
        if RESERVED_ALIAS.fullmatch(alias) or not re.fullmatch(r"[\w-]{1,255}", alias):
            raise invalid(f"{alias!r} alias name is reserved")
        self._version(name, version)
        self._model(name).aliases[alias] = version
        return {}

    def delete_registered_models_alias(self, *, name: str, alias: str) -> Json:
        self._model(name).aliases.pop(alias, None)
        return {}

    def _run(self, run_id: str) -> Run:
        if run_id not in self.runs:
            raise missing(f"Run {run_id}")
        return self.runs[run_id]

    def _model(self, name: str) -> Model:
        if name not in self.models:
            raise missing(f"Registered Model with name={name}")
        return self.models[name]

    def _version(self, name: str, version: str) -> Version:
        versions = self._model(name).versions
        if version not in versions:
            raise missing(f"Model Version (name={name}, version={version})")
        return versions[version]


def checked(pairs: list[Json], limit: int) -> dict[str, str]:
    """The pairs as a dictionary, if keys and values are valid and no key is there twice."""
    for pair in pairs:
        check_key(pair["key"])
        if not isinstance(pair["value"], str) or len(pair["value"]) > limit:
            raise invalid(f"{pair['key']} had a value that exceeded the length limit of {limit}")
    found = {pair["key"]: pair["value"] for pair in pairs}
    if len(found) != len(pairs):
        raise invalid("Duplicate parameter keys have been submitted")
    return found


def check_key(key: str) -> None:
    normal = posixpath.normpath(key)
    if not KEY.fullmatch(key) or normal != key or key == "." or key.startswith(("..", "/")):
        raise invalid(f"Invalid name: {key!r}")


class Handler(BaseHTTPRequestHandler):
    """Hands requests to the stand-in of its server."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "Server"

    def do_POST(self) -> None:
        stand_in = self.server.stand_in
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = urlsplit(self.path)
        path = parts.path.removeprefix(PREFIX)
        stand_in.authorizations.append(self.headers.get("Authorization"))
        stand_in.calls.append(path)
        stand_in.respond.wait()
        failure = next((each for each in stand_in.failures if each[0] in (path, "")), None)
        if failure is not None:
            stand_in.failures.remove(failure)
            self.answer(failure[1], failure[2])
            return
        body = json.loads(content) if content else dict(parse_qsl(parts.query))
        try:
            status, answer = 200, stand_in.handle(self.command, path, body)
        except Refusal as error:
            status, answer = error.status, {"error_code": error.code, "message": str(error)}
        if path in stand_in.lost:
            stand_in.lost.remove(path)
            self.close_connection = True
            return
        self.answer(status, json.dumps(answer).encode())

    def do_GET(self) -> None:
        self.do_POST()

    def do_DELETE(self) -> None:
        self.do_POST()

    def answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Write nothing to standard error."""

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:  # the client did not wait for the response
            self.close_connection = True


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, stand_in: MlflowStandIn) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.stand_in = stand_in


@contextmanager
def mlflow_stand_in() -> Iterator[MlflowStandIn]:
    """Run a server in a thread."""
    stand_in = MlflowStandIn()
    stand_in.respond.set()
    server = Server(stand_in)
    stand_in.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield stand_in
    finally:
        stand_in.respond.set()
        server.shutdown()
        server.server_close()
        thread.join()
