"""What the service does while it is killed: one short scenario for each of its features.

Each continues where its client was when the process died, and returns what a run without a fault
must reproduce bit by bit. They share steps, such as an upload: a class of crash points belongs to
the first scenario that passes it.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import func, select, update

from app.database.errors import OUTAGE_ERRORS
from app.datasets.files import INCOMING_DIR
from app.errors import AppError
from app.queue.tables import Checkpoint, Job
from app.retention.service import collect_garbage
from app.storage.tables import Artifact
from tests.app.retraining.conftest import LABELS, NEW_WORDS, make_texts
from tests.crash_points.service import Service
from tests.servers import free_port
from tests.webhook_receiver import ALLOWED, receiving

MODEL = "mood"
PRODUCTION = f"/v1/models/{MODEL}/aliases/production"
LORA = {"type": "lora", "r": 2, "targets": ["query", "value"]}
OPTIM = {"epochs": 1, "batch_size": 16, "encoder_dropout": 0.1, "head_dropout": 0.1}
RUNTIME = {"device": "cpu", "threads": 1}
TEXTS = ["an awful film", "great, it made me laugh"]
DAY = 86_400.0


@dataclass(frozen=True)
class Inputs:
    """Files that all runs share."""

    base: Path
    reviews: bytes  # CSV with labels
    texts: bytes  # CSV without


Outcome = dict[str, Any]
Steps = Callable[[Service, Inputs], Outcome]


@dataclass(frozen=True)
class Scenario:
    """The steps of a client, and the settings that they need."""

    run: Steps
    settings: dict[str, Any] = field(default_factory=dict)


def _upload(service: Service, content: bytes, file: str = "reviews", **fields: str) -> str:
    files = {"file": (f"{file}.csv", content, "text/csv")}
    key = f"{file} {sha256(content).hexdigest()}"
    dataset = service.send("POST", "/v1/datasets", files=files, data=fields, key=key)
    return str(dataset["ref"])


def _submit(service: Service, key: str, **body: Any) -> Any:
    values = {"method": {"type": "linear"}, "runtime": RUNTIME, **body}
    return service.send("POST", "/v1/jobs", json=values, key=key)


def upload(service: Service, inputs: Inputs) -> Outcome:
    """Two versions of a dataset, one file twice, and a deletion."""
    first = _upload(service, inputs.reviews)
    again = service.send(
        "POST",
        "/v1/datasets",
        files={"file": ("reviews.csv", inputs.reviews, "text/csv")},
        key="again",
    )
    second = _upload(service, inputs.reviews + b"another good one,good\n")
    service.send("DELETE", f"/v1/datasets/{second}")
    content = service.get(f"/v1/datasets/{first}/content")
    names = [each["ref"] for each in service.get("/v1/datasets")["data"]]
    return {
        "again": again["ref"],
        "content": sha256(content.encode()).hexdigest(),
        "names": names,
    }


def job(service: Service, inputs: Inputs) -> Outcome:
    """A training, from the upload to the prediction of a version in production."""
    data = {"source": _upload(service, inputs.reviews)}
    first = service.finish_job(_submit(service, "first", data=data, register_as=MODEL))
    service.send("PUT", PRODUCTION, json={"version": 1})
    return {
        "state": first["state"],
        "metrics": first["summary"].get("test", None),
        "result": service.result(first["id"]),
        "predictions": service.send("POST", f"/models/{MODEL}/predict", json={"inputs": TEXTS}),
    }


def checkpoints(service: Service, inputs: Inputs) -> Outcome:
    """A training that saves a checkpoint after each step."""
    data = {"source": _upload(service, inputs.reviews)}
    body = {"method": LORA, "optim": OPTIM, "base": str(inputs.base)}
    made = service.finish_job(_submit(service, "lora", data=data, **body))
    return {"state": made["state"], "result": service.result(made["id"])}


def retry(service: Service, inputs: Inputs) -> Outcome:
    """A job that fails for good after some steps, and the retry that continues it."""
    data = {"source": _upload(service, inputs.reviews)}
    body = {"method": LORA, "optim": OPTIM, "base": str(inputs.base)}
    failing = _submit(service, "failing", data=data, **body)
    os.environ["LORAWORKS_FAULT"] = "step@3:exit139"
    made = service.finish_job(failing)
    del os.environ["LORAWORKS_FAULT"]
    for number in range(5):
        if made["state"] == "succeeded":
            break
        again = service.send("POST", f"/v1/jobs/{made['id']}/retry", key=str(number))
        if again.get("code") == "no_checkpoint":
            again = _submit(service, f"anew {number}", data=data, **body)
        made = service.finish_job(again)
    return {"state": made["state"], "result": service.result(made["id"])}


def promote(service: Service, inputs: Inputs) -> Outcome:
    """Versions that are registered by hand, aliases that move, and what is deleted again."""
    data = {"source": _upload(service, inputs.reviews)}
    for number, strength in enumerate((1.0, 8.0), 1):
        method = {"type": "linear", "C": strength}
        made = service.finish_job(_submit(service, f"number {number}", data=data, method=method))
        version = {"job_id": made["id"]}
        service.send("POST", f"/v1/models/{MODEL}/versions", json=version, key=str(number))
        service.send("PUT", PRODUCTION, json={"version": number}, key=str(number))
    service.send("PUT", f"/v1/models/{MODEL}/aliases/shadow", json={"version": 1})
    service.send("DELETE", f"/v1/models/{MODEL}/aliases/shadow")
    model = f"{MODEL}@production"
    predictions = service.send("POST", "/predict", json={"inputs": TEXTS, "model": model})
    service.send("DELETE", f"/v1/models/{MODEL}/versions/1")
    found = service.get(f"/v1/models/{MODEL}")
    return {"aliases": found["aliases"], "predictions": predictions}


def sweep(service: Service, inputs: Inputs) -> Outcome:
    """Four trials, one after the other, and what is known at their end."""
    data = {"source": _upload(service, inputs.reviews)}
    body = {
        "job": {"method": {"type": "linear"}, "data": data, "runtime": RUNTIME},
        "space": {"method.C": [0.5, 1.0, 4.0]},
    }
    made = service.send("POST", "/v1/sweeps", json=body)
    path = f"/v1/sweeps/{made['id']}"
    service.work_until(lambda: service.get(path)["state"] == "finished")
    found = service.get(path)
    trials = service.get(f"{path}/trials")
    return {
        "counts": found["trial_counts"],
        "winner": found["result"]["winner"]["settings"],
        "trials": [
            (each["number"], each["settings"], service.result(each["job_id"])) for each in trials
        ],
    }


def label(service: Service, inputs: Inputs) -> Outcome:
    """A labeling project: vectors, labels, one undone, one changed, and a dataset of them."""
    _upload(service, inputs.texts, "texts", name="texts", purpose="predict")
    path = f"/v1/labeling/{MODEL}"
    body = {
        "name": MODEL,
        "dataset": "texts",
        "labels": ["bad", "good"],
        "base": str(inputs.base),
    }
    service.send("POST", "/v1/labeling", json=body)
    service.work_until(lambda: service.get(path)["vectors"]["state"] == "ready")
    for number in range(6):
        leased = service.send("POST", f"{path}/next", json={"count": 1}, key=str(number))
        row = leased["texts"][0]["row"]
        answer = {"label": ("bad", "good")[number % 2]}
        service.send("PUT", f"{path}/texts/{row}", json=answer, key=str(number))
        if number == 2:
            service.send("DELETE", f"{path}/texts/{row}")
        if number == 4:
            service.send("PUT", f"{path}/texts/{row}", json={"label": "good"}, key="changed")
    made = service.send("POST", f"{path}/dataset", json={"name": "labeled"})
    annotations = service.get(f"{path}/annotations?limit=100")["data"]
    labels = sorted((each["row"], each["label"], each["reason"]) for each in annotations)
    return {"labels": labels, "dataset": service.get(f"/v1/datasets/{made['ref']}/content")}


def retrain(service: Service, inputs: Inputs) -> Outcome:
    """Corrections, and a rule that trains a version from them and compares it."""
    rows = ["text,label", *(f"{text},{name}" for text, name in make_texts(LABELS, 60))]
    data = {"source": _upload(service, "\n".join(rows).encode())}
    service.finish_job(_submit(service, "first", data=data, register_as=MODEL))
    service.send("PUT", PRODUCTION, json={"version": 1})
    corrections = make_texts(NEW_WORDS, 40, seed=1)
    items = [{"text": text, "model": MODEL, "label": name} for text, name in corrections]
    service.send("POST", "/v1/feedback", json={"items": items})
    path = f"/v1/models/{MODEL}/retraining"
    service.send("PUT", path, json={"new_labels": 10})

    def is_over() -> bool:
        runs = service.get(f"{path}/runs")["data"]
        return bool(runs) and runs[0]["finished_at"] is not None

    service.work_until(is_over)
    runs = service.get(f"{path}/runs")["data"]
    known = ("state", "reasons", "trigger", "new_labels", "data", "result")
    feedback = service.get(f"/v1/models/{MODEL}/feedback?limit=100")["data"]
    return {
        "runs": [{name: each[name] for name in known} for each in runs],
        "aliases": service.get(f"/v1/models/{MODEL}")["aliases"],
        "feedback": sorted((each["text"], each["label"]) for each in feedback),
    }


def gc(service: Service, inputs: Inputs) -> Outcome:
    """What garbage collection removes once nothing is kept."""
    data = {"source": _upload(service, inputs.reviews)}
    body = {"method": LORA, "optim": OPTIM, "base": str(inputs.base)}
    service.once("job", lambda: service.finish_job(_submit(service, "lora", data=data, **body)))
    service.once("aged", lambda: _end_earlier(service))
    service.once("orphans", lambda: _leave_orphans(service))
    service.once("gc", lambda: _collect(service))
    with service.resources.database.read() as session:
        count = select(func.count())
        jobs = session.scalar(count.select_from(Job))
        artifacts = session.scalar(count.select_from(Artifact))
    files = [each.name.split("/")[0] for each in service.resources.store.list_files()]
    return {"jobs": jobs, "artifacts": artifacts, "files": files}


def fork_server(service: Service, inputs: Inputs) -> Outcome:
    """A training that a fork server starts, as is the default."""
    data = {"source": _upload(service, inputs.reviews)}
    made = service.finish_job(_submit(service, "forked", data=data))
    return {"state": made["state"], "result": service.result(made["id"])}


def recover(service: Service, inputs: Inputs) -> Outcome:
    """A worker that dies, a training that crashes, and a checkpoint that is damaged meanwhile."""
    data = {"source": _upload(service, inputs.reviews)}
    body = {"method": LORA, "optim": OPTIM, "base": str(inputs.base)}
    made = _submit(service, "lora", data=data, **body)
    armed = service.settings.data_dir / "armed"
    service.once("armed", armed.touch)
    os.environ["LORAWORKS_FAULT"] = f"step@4:exit139:{armed}"
    service.before_training = service.die_once
    service.work_until(lambda: not armed.exists())
    service.once("damaged", lambda: _damage_newest_checkpoint(service))
    made = service.finish_job(made)
    return {"state": made["state"], "result": service.result(made["id"])}


def _damage_newest_checkpoint(service: Service) -> None:
    newest = select(Checkpoint.key).where(~Checkpoint.bad).order_by(Checkpoint.seq.desc()).limit(1)
    with service.resources.database.read() as session:
        key = session.scalar(newest)
    if key is None:  # the worker was killed before it had stored one
        return
    folder = service.settings.artifacts_dir / key
    largest = max(folder.iterdir(), key=lambda file: file.stat().st_size)
    largest.chmod(0o600)
    largest.write_bytes(b"")


def control(service: Service, inputs: Inputs) -> Outcome:
    """Jobs that are paused, resumed, cancelled and deleted: those that wait, and running ones."""
    data = {"source": _upload(service, inputs.reviews)}
    waiting = _submit(service, "waiting", data=data)
    path = f"/v1/jobs/{waiting['id']}"
    service.send("POST", f"{path}/pause")
    service.send("POST", f"{path}/resume")
    service.send("POST", f"{path}/cancel")
    service.send("DELETE", path)
    body = {"method": LORA, "optim": OPTIM, "base": str(inputs.base)}
    running = _submit(service, "running", data=data, **body)
    path = f"/v1/jobs/{running['id']}"
    service.before_training = lambda: service.send("POST", f"{path}/pause")
    service.once("paused", lambda: service.work_until(lambda: service.get(path)["paused"]))
    service.send("POST", f"{path}/resume")
    service.before_training = lambda: service.send("POST", f"{path}/cancel")
    cancelled = service.finish_job(running)
    return {"state": cancelled["state"]}


def sweep_control(service: Service, inputs: Inputs) -> Outcome:
    """A sweep that is paused, stopped, resumed, extended, retried, promoted and deleted."""
    data = {"source": _upload(service, inputs.reviews)}
    body = {
        "job": {"method": {"type": "linear"}, "data": data, "runtime": RUNTIME},
        "space": {"method.C": [0.5]},
    }
    path = f"/v1/sweeps/{service.send('POST', '/v1/sweeps', json=body)['id']}"
    for number, action in enumerate(("pause", "resume", "stop", "resume")):
        service.send("POST", f"{path}/{action}", key=str(number))
    service.send("POST", f"{path}/extend", json={"space": {"method.C": [4.0]}})
    outcome = service.remember("outcome", lambda: _end_of_sweep(service, path))
    service.send("DELETE", path)
    return {**outcome, "aliases": service.get(f"/v1/models/{MODEL}")["aliases"]}


def _end_of_sweep(service: Service, path: str) -> Outcome:
    service.work_until(lambda: service.get(path)["state"] == "finished")
    service.send("POST", f"{path}/retry")
    service.finish_job(service.send("POST", f"{path}/promote", json={"model": MODEL}))
    trials = service.get(f"{path}/trials")
    return {
        "counts": service.get(path)["trial_counts"],
        "trials": [(each["settings"], service.result(each["job_id"])) for each in trials],
    }


def search(service: Service, inputs: Inputs) -> Outcome:
    """Retrainings by search: one that is cancelled, one that promotes, and one that fails."""
    rows = ["text,label", *(f"{text},{name}" for text, name in make_texts(LABELS, 60))]
    source = _upload(service, "\n".join(rows).encode())
    service.finish_job(_submit(service, "first", data={"source": source}, register_as=MODEL))
    service.send("PUT", PRODUCTION, json={"version": 1})
    corrections = make_texts(NEW_WORDS, 40, seed=1)
    items = [{"text": text, "model": MODEL, "label": name} for text, name in corrections]
    service.send("POST", "/v1/feedback", json={"items": items})
    path = f"/v1/models/{MODEL}/retraining"
    rule = {"enabled": False, "search": {"space": {"method.C": [1.0, 4.0]}}}
    service.send("PUT", path, json=rule)
    cancelled = _start_retraining(service, "cancelled")
    service.work_until(lambda: service.get(cancelled)["state"] != "collecting")
    service.send("POST", f"{cancelled}/cancel")
    promoted = _start_retraining(service, "promoted")
    service.work_until(lambda: service.get(promoted)["finished_at"] is not None)
    failed = _start_retraining(service, "failed")
    service.send("DELETE", f"/v1/datasets/{source}")
    service.work_until(lambda: service.get(failed)["finished_at"] is not None)
    runs = service.get(f"{path}/runs")["data"]
    return {
        "runs": [(each["state"], each["reasons"], each["result"]) for each in runs],
        "aliases": service.get(f"/v1/models/{MODEL}")["aliases"],
        "datasets": [each["ref"] for each in service.get("/v1/datasets")["data"]],
    }


def _start_retraining(service: Service, key: str) -> str:
    path = f"/v1/models/{MODEL}/retraining/runs"
    return f"{path}/{service.send('POST', path, key=key)['id']}"


def model_import(service: Service, inputs: Inputs) -> Outcome:
    """A version that is imported from its own archive."""
    data = {"source": _upload(service, inputs.reviews)}
    made = service.finish_job(_submit(service, "first", data=data, register_as=MODEL))
    archive = service.get_bytes(f"/v1/artifacts/{made['artifact_id']}/archive")
    files = {"file": ("model.tar", archive, "application/x-tar")}
    made = service.send("POST", f"/v1/models/{MODEL}/versions/import", files=files)
    body = {"inputs": TEXTS, "model": made["ref"]}
    return {"predictions": service.send("POST", "/predict", json=body)}


def webhook(service: Service, inputs: Inputs) -> Outcome:
    """Events of a job and an alias that a receiver gets."""
    port = service.remember("port", free_port)
    with receiving(port=port) as receiver:
        path = "/v1/webhooks"
        made = service.send("POST", path, json={"url": receiver.url})
        path = f"{path}/{made['id']}"
        data = {"source": _upload(service, inputs.reviews)}
        service.finish_job(_submit(service, "first", data=data, register_as=MODEL))
        service.send("PUT", PRODUCTION, json={"version": 1})
        service.work_until(lambda: not service.get(f"{path}/deliveries?state=pending")["data"])
        sent = service.get(f"{path}/deliveries")["data"]
    return {"sent": sorted((each["type"], each["state"]) for each in sent)}


def _collect(service: Service) -> None:
    """Collect garbage until none is left. A worker logs these errors, and each hour goes on."""
    is_left = True
    while is_left:
        with suppress(*OUTAGE_ERRORS, AppError, OSError):
            is_left = bool(collect_garbage(service.resources, any_age=True).removals)


def _end_earlier(service: Service) -> None:
    """Let jobs have ended a minute ago: curves are thinned when their streams have ended."""
    with service.resources.database.write() as session:
        session.execute(update(Job).values(finished_at=Job.finished_at - 60.0))


def _leave_orphans(service: Service) -> None:
    """Leave what a process leaves that is killed between its files and its row."""
    settings, id_ = service.settings, UUID(int=1)
    orphan = settings.artifacts_dir / f"uploads/{id_}/{id_}.csv"
    incoming = settings.uploads_dir / INCOMING_DIR / uuid4().hex / "file"
    for file in (orphan, incoming):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("text")
    yesterday = time.time() - 2 * DAY
    for path in (incoming, incoming.parent):
        os.utime(path, (yesterday, yesterday))


_NOTHING_KEPT = {
    "keep_checkpoint_days": 0.0,
    "keep_artifact_days": 0.0,
    "keep_job_days": 0.0,
    "keep_curve_points": 10,
}
SCENARIOS = {
    "upload": Scenario(upload),
    "job": Scenario(job),
    "promote": Scenario(promote),
    "sweep": Scenario(sweep),
    "checkpoints": Scenario(checkpoints),
    "retry": Scenario(retry, {"max_failures": 1}),
    "label": Scenario(label),
    "retrain": Scenario(retrain),
    "gc": Scenario(gc, _NOTHING_KEPT),
    "fork_server": Scenario(fork_server, {"fork_server": True}),
    "recover": Scenario(recover, {"max_failures": 4}),
    "control": Scenario(control, {"heartbeat_seconds": 0.05}),
    "sweep_control": Scenario(sweep_control),
    "search": Scenario(search),
    "model_import": Scenario(model_import),
    "webhook": Scenario(webhook, {"webhook_allowed_hosts": ALLOWED}),
}
