"""Short descriptions of a job, for lists and titles."""

import time
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from app.jobs.schemas import JobListItem
from app.queue.tables import Job
from app.web.formats import short_id
from lora_core.specs.method import AutoSpec, LinearSpec, MethodSpec, describe_method

LINEAR = LinearSpec().type
_METHOD: TypeAdapter[MethodSpec] = TypeAdapter(MethodSpec)


def name(job: JobListItem | Job) -> str:
    """Return the job's name, or a name made from the end of its id."""
    return job.name or f"job {short_id(job.id)}"


def data(spec: Mapping[str, Any]) -> str:
    """Return `rotten-tomatoes`, or `reviews:2, more:1` for data given split by split."""
    source = spec["data"]["source"]
    return source if isinstance(source, str) else ", ".join(dict.fromkeys(source.values()))


def method(spec: Mapping[str, Any]) -> str:
    """Return the method with its variant, r and alpha, as papers write it."""
    method: MethodSpec = _METHOD.validate_python(spec["method"])
    return method.type if isinstance(method, AutoSpec) else describe_method(method)


def seconds(job: JobListItem) -> float | None:
    """Return the seconds from the job's start to its end, or to now while it runs."""
    if job.started_at is None:
        return None
    return (job.finished_at or time.time()) - job.started_at
