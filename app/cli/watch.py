"""Follows a job until it ends: `loraworks watch JOB`."""

import time
from collections.abc import Iterator
from datetime import datetime
from typing import cast

from app.cli.answers import Job, Json, Point
from app.cli.client import Client, Message
from app.cli.display import Display, open_display
from app.cli.errors import RunFailed, Unreachable
from app.cli.options import AsJson, JobId, connected
from app.cli.output import as_json as print_json
from app.cli.output import duration, facts, json_line, say, warn
from app.cli.polling import PATIENCE_SECONDS
from app.cli.progress import Progress
from app.cli.results import print_results

RETRY_SECONDS = 1.0


def follow(client: Client, job_id: str) -> Iterator[Message]:
    """The job's messages to the last, over as many connections as it takes."""
    after: str | None = None
    heard = time.monotonic()
    while True:
        try:
            for message in client.stream(job_id, after):
                heard = time.monotonic()
                after = message.id or after
                yield message
                if message.event == "end":
                    return
        except Unreachable:
            if time.monotonic() - heard > PATIENCE_SECONDS:
                raise
        time.sleep(RETRY_SECONDS)


def observe(client: Client, job: Job, display: Display) -> Job:
    """Show the job's progress on `display` until it ends, and return it as it ended."""
    progress = Progress(title=f"{job['name'] or job['id']} ({job['method']})")
    _take_job(progress, cast(Json, job))
    with display:
        display.update(progress)
        for message in follow(client, job["id"]):
            display.update(progress, _take(progress, message))
            if message.event == "end":
                return cast(Job, message.data)
    raise Unreachable("the stream ended before the job did", "stream_ended")


def conclude(job: Job) -> None:
    """Print how the job ended. Raises `RunFailed` unless it succeeded."""
    if job["state"] == "succeeded":
        print_results(job["method"], job["summary"] or {})
    else:
        raise ended(job)


def ended(job: Job) -> RunFailed:
    """The error of a job that did not succeed."""
    if error := job["error"]:
        return RunFailed(f"job {job['id']} {job['state']}: {error['message']}", error["code"])
    return RunFailed(f"job {job['id']} was {job['state']}", f"job_{job['state']}")


@connected
def watch(client: Client, job: JobId, as_json: AsJson = False) -> None:
    """Follow a job live: state, speed, loss and accuracy, events, and the result at the end.

    Ctrl-C stops watching; the job goes on. With --json every message is one line.
    """
    if as_json:
        last: Json = {}
        for message in follow(client, job):
            json_line({"event": message.event, "id": message.id, "data": message.data})
            last = message.data
        if last["state"] != "succeeded":
            raise ended(cast(Job, last))
        return
    conclude(interruptible(client, client.job(job)))


def interruptible(client: Client, job: Job, *, quiet: bool = False) -> Job:
    """Observe a job; Ctrl-C, or a service that is gone, says how to come back to it."""
    try:
        return observe(client, job, open_display(quiet=quiet))
    except (KeyboardInterrupt, Unreachable):
        job_id = job["id"]
        warn(f"The job goes on: `loraworks watch {job_id}`, `loraworks jobs cancel {job_id}`.")
        raise


def submitted(client: Client, job: Job, *, live: bool, wait: bool, as_json: bool) -> None:
    """Say what was submitted, or follow it to the end. Raises `RunFailed` unless it succeeds."""
    if not (live or wait):
        print_json(job) if as_json else _print_submitted(job)
        return
    job = interruptible(client, job, quiet=not live)
    if not as_json:
        conclude(job)
        return
    print_json(job)
    if job["state"] != "succeeded":
        raise ended(job)


def _print_submitted(job: Job) -> None:
    parameters = job["parameters"]
    facts(
        [
            ("job", job["id"]),
            ("state", job["state"]),
            ("trainable parameters", parameters and parameters["trainable"]),
            ("estimated time", duration(job["estimated_seconds"])),
            ("place in the queue", job["queue_position"]),
        ]
    )
    say(f"Follow it with `loraworks watch {job['id']}`.")


def _take(progress: Progress, message: Message) -> str | None:
    """Put a message into the progress; return its news, if it has some."""
    data = message.data
    match message.event:
        case "event":
            news = str(data["message"])
            progress.note(news)
            return news
        case "metric":
            _take_point(progress, cast(Point, data))
        case "state":
            _take_job(progress, data)
        case "end":
            _take_job(progress, data)
            return f"{progress.title}: {progress.state}"
    return None


def _take_point(progress: Progress, point: Point) -> None:
    if point["value"] is not None:
        at = datetime.fromisoformat(point["at"]).timestamp()
        series = (point["split"], point["name"])
        progress.point(series, point["step"], point["value"], at=at, attempt=point["attempt"])


def _take_job(progress: Progress, data: Json) -> None:
    """A job, or the part of it that a state message holds."""
    progress.state = data["state"]
    progress.queue_position = data["queue_position"]
    progress.step = data["step"]
    progress.total = data["total_steps"]
