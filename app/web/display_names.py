"""A job in a few words, as lists and titles write it."""

import time
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from app.jobs.schemas import JobListItem
from app.queue.tables import Job
from app.web.formats import short
from lora_core.specs.method import AutoSpec, LinearSpec, MethodSpec, named

LINEAR = LinearSpec().type
_METHOD: TypeAdapter[MethodSpec] = TypeAdapter(MethodSpec)


def name(job: JobListItem | Job) -> str:
    """As its maker named it, or the end of its id."""
    return job.name or f"job {short(job.id)}"


def data(spec: Mapping[str, Any]) -> str:
    """`rotten-tomatoes`; of data given part by part `reviews:2, more:1`."""
    source = spec["data"]["source"]
    return source if isinstance(source, str) else ", ".join(dict.fromkeys(source.values()))


def method(spec: Mapping[str, Any]) -> str:
    """The variant with r and alpha, as they are written in papers."""
    method: MethodSpec = _METHOD.validate_python(spec["method"])
    return method.type if isinstance(method, AutoSpec) else named(method)


def seconds(job: JobListItem) -> float | None:
    """From its start to its end, or until now."""
    if job.started_at is None:
        return None
    return (job.finished_at or time.time()) - job.started_at
