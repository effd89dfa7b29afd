"""A service for the length of a `with` block, in a folder of its own."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Annotated, Literal, NoReturn

import typer

from app.cli.client import Client
from app.cli.errors import Unreachable
from app.cli.local import tail
from app.cli.models import split_ref
from app.cli.output import json_line, percent, say, table, warn
from app.cli.responses import Job, Json
from app.cli.results import COLUMNS, print_verdict, result_rows
from app.cli.watch import ended, observe, open_display

STOP_SECONDS = 90
PR_SET_PDEATHSIG = 1
COMMAND = (sys.executable, "-P", "-m", "app.cli.main", "up", "--port", "0", "--json")


@contextmanager
def own_service(directory: Path, *, slots: int = 1) -> Iterator[str]:
    """Its URL: on a free port, with a fresh database, under no setting of the environment.

    `slots`: trainings on the CPU at a time, which share the cores. The service is stopped on the
    way out, whatever happened, and also when this process is killed. Raises `Unreachable`.
    """
    log = directory / "service.log"
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            [*COMMAND, "--data-dir", str(directory / "data")],
            stdout=subprocess.PIPE,
            stderr=errors,
            env=plain_environment() | {"LORAWORKS_SLOTS": str(slots)},
            start_new_session=True,  # Ctrl-C reaches this program alone, which stops the service
            preexec_fn=_stop_with_parent,
        ) as service,
    ):
        try:
            line = service.stdout.readline() if service.stdout else b""
            if not line:
                why = tail(log.read_text("utf-8", "replace"))
                raise Unreachable(f"the service did not start: {why}", "not_started")
            yield str(json.loads(line)["url"])
        finally:
            _stop(service)


def plain_environment() -> dict[str, str]:
    """Without the settings of a service, which then has its defaults."""
    ours = {name for name in os.environ if name.startswith("LORAWORKS_")} - {"LORAWORKS_CACHE"}
    return {name: value for name, value in os.environ.items() if name not in ours}


def _stop_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _stop(service: subprocess.Popen[bytes]) -> None:
    service.terminate()
    try:
        service.wait(timeout=STOP_SECONDS)
    except BaseException:  # too slow, or a second Ctrl-C: its children notice that it is gone
        service.kill()
        raise


# MERGED app.cli.demo
# `loraworks demo`: the whole product in one run.

MODEL = "sentiment"
REVIEWS = [
    "A warm, funny and quietly brilliant film that I did not want to end.",
    "Two hours of clumsy jokes and wooden acting; I nearly fell asleep.",
]
SIZES: dict[str, Json] = {
    "rotten-tomatoes": {"train_size": 2000, "validation_size": 500, "test_size": 1000},
    "imdb": {
        "train_size": 2000,
        "validation_size": 500,
        "test_size": 1000,
        "max_length": 256,
    },
}
# Each learns with what suits it. An epoch of LoRA takes a minute on two cores, one of the last
# layers milliseconds once the frozen encoder has read the texts.
METHODS: dict[str, Json] = {
    "linear": {},
    "probe": {},
    "baseline": {"epochs": 5, "learning_rate": 1e-3},
    "lora": {"epochs": 1, "batch_size": 16, "learning_rate": 1e-3},
    "full": {"epochs": 1, "batch_size": 16, "learning_rate": 1e-4},
}

Data = Annotated[
    Literal["rotten-tomatoes", "imdb"],
    typer.Option("--data", help="2,000 sentences about films, or as many long reviews."),
]
Review = Annotated[str, typer.Option("--review", help="A review of your own for the model.")]


def demo(data: Data = "rotten-tomatoes", review: Review = "") -> None:
    """Start a service, train with each method on real reviews, and ask the best one.

    The last line of output is one JSON object. Nothing is left running.
    """
    signal.signal(signal.SIGTERM, _terminated)
    began = time.monotonic()
    reviews = [review, REVIEWS[0]] if review.strip() else REVIEWS
    with tempfile.TemporaryDirectory(prefix="loraworks-", ignore_cleanup_errors=True) as directory:
        say("Starting the service …")
        with own_service(Path(directory)) as url, Client(url) as client:
            up_after = time.monotonic() - began
            say(f"Ready: {url}, API docs at {url}/docs")
            jobs = train_all(client, data)
            promote_best(client, jobs)
            answer = client.predict(reviews, None, truncate=True)
    predictions = [
        {"text": text, **scores[0]} for text, scores in zip(reviews, answer.labels, strict=True)
    ]
    print_comparison(jobs, predictions, answer.version or MODEL)
    json_line(
        result(jobs, predictions)
        | {
            "seconds": {
                "service": round(up_after, 1),
                **{method: _seconds(job) for method, job in jobs.items()},
                "total": round(time.monotonic() - began, 1),
            }
        }
    )


def train_all(client: Client, data: str) -> dict[str, Job]:
    """Submit a job for each method on one split, and show each to its end.

    Raises `RunFailed` for one that does not succeed.
    """
    submitted = {
        method: client.submit(
            {
                "name": f"{method} on {data}",
                "method": {"type": method},
                "data": {"source": data, **SIZES[data]},
                "optim": optim,
                "register_as": MODEL,
            }
        )
        for method, optim in METHODS.items()
    }
    done = {}
    for method, job in submitted.items():
        done[method] = observe(client, job, open_display())
        if done[method]["state"] != "succeeded":
            raise ended(done[method])
    return done


def promote_best(client: Client, jobs: dict[str, Job]) -> None:
    """The test part has no say in it."""
    scores, best = validated(jobs), best_of(jobs)
    ref = str(_summary(jobs[best])["model_version"])
    name, number = split_ref(ref)
    client.promote(name, number or 1, "production")
    told = ", ".join(f"{method} {percent(score)}" for method, score in scores.items())
    say(f"Promoted {ref} ({best}). Macro F1 on validation: {told}.")


def validated(jobs: dict[str, Job]) -> dict[str, float]:
    """Macro F1 of each on validation."""
    return {method: _summary(job)["validation"]["macro_f1"] for method, job in jobs.items()}


def best_of(jobs: dict[str, Job]) -> str:
    """The method that is best on validation."""
    scores = validated(jobs)
    return max(scores, key=lambda method: scores[method])


def print_comparison(jobs: dict[str, Job], predictions: list[Json], version: str) -> None:
    """A row for each method, what the best one is worth, and what it thinks."""
    rows = [result_rows(method, _summary(job))[0] for method, job in jobs.items()]
    say("")
    table(
        [*COLUMNS, ">seconds"],
        [[*row, _seconds(job)] for row, job in zip(rows, jobs.values(), strict=True)],
        empty="",
    )
    say("")
    print_verdict(_summary(jobs[best_of(jobs)])["verdict"])
    say("")
    table(
        ["label", ">score", f"review ({version})"],
        [(each["label"], percent(each["score"]), each["text"]) for each in predictions],
        empty="",
    )


def result(jobs: dict[str, Job], predictions: list[Json]) -> Json:
    """What a script wants to know. Accuracies are shares."""
    return {
        "jobs": [job["id"] for job in jobs.values()],
        **{
            f"{name}_test_accuracy": _summary(job)["test"]["accuracy"] for name, job in jobs.items()
        },
        "promoted": best_of(jobs),
        "predictions": predictions,
    }


def _summary(job: Job) -> Json:
    return job["summary"] or {}


def _seconds(job: Job) -> float:
    began, finished = (
        datetime.fromisoformat(at) for at in (job["started_at"] or "", job["finished_at"] or "")
    )
    return round((finished - began).total_seconds(), 1)


def _terminated(_number: int, _frame: FrameType | None) -> NoReturn:
    warn("Stopping the service …")
    raise SystemExit(128 + signal.SIGTERM)
