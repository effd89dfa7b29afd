"""Jobs beside each other: what they reached, and where their settings differ."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal
from uuid import UUID

from pydantic import Field
from sqlalchemy.orm import Session

from app.fields import View
from app.jobs import comparison, grades, repository
from app.jobs.errors import JobNamedTwice
from app.jobs.graded import Graded
from app.jobs.schemas import JobView
from lora_core.specs.data import Split

Parts = Mapping[str, Graded]
Unpaired = Literal["other_texts", "first_has_none"]


class PairView(View):
    """A job beside the first one, on the texts that both answered."""

    difference: float = Field(description="Of the accuracies, this job less the first.")
    low: float = Field(description="Of its 95 % interval.")
    high: float
    p: float = Field(description="Of the exact McNemar test.")
    only_this: int = Field(description="Texts that this job alone answered rightly.")
    only_first: int


class PartView(View):
    """How a job answered one part."""

    accuracy: float
    low: float = Field(description="Of the 95 % interval of the accuracy (Wilson).")
    high: float
    texts: int
    against_first: PairView | None
    unpaired: Unpaired | None = Field(
        description="Why a job other than the first is not compared with it."
    )


class ComparedJob(View):
    """One of the jobs; a part of which no answers are kept is null."""

    job: JobView
    validation: PartView | None
    test: PartView | None


class SideBySide(View):
    """Jobs in the order in which they were asked for."""

    jobs: list[ComparedJob]
    settings: dict[str, list[Any]] = Field(
        description="Those that differ, `method.r`, with the value of each job; null: it has none."
    )


def read(session: Session, job_ids: Sequence[UUID]) -> SideBySide:
    """Raises `JobNamedTwice`, `JobNotFound`."""
    for i, job_id in enumerate(job_ids):
        if job_id in job_ids[:i]:
            raise JobNamedTwice(job_id=job_id)
    jobs = [repository.get(session, job_id) for job_id in job_ids]
    places = repository.positions(session, job_ids)
    graded = grades.of(session, job_ids)
    first = graded[job_ids[0]]
    return SideBySide(
        jobs=[
            ComparedJob(
                job=JobView.of(job, places.get(job.id)),
                validation=_part(graded[job.id], Split.VALIDATION, first),
                test=_part(graded[job.id], Split.TEST, first),
            )
            for job in jobs
        ],
        settings=differing([job.spec for job in jobs]),
    )


def differing(specs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The fields that are not the same in all, by dotted names, each with its values."""
    fields = [flat(spec) for spec in specs]
    names = dict.fromkeys(name for each in fields for name in each)  # in the order of the specs
    values = {name: [each.get(name) for each in fields] for name in names}
    return {name: each for name, each in values.items() if len(set(map(json.dumps, each))) > 1}


def flat(spec: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """`{"method": {"r": 8}}` as `{"method.r": 8}`."""
    found: dict[str, Any] = {}
    for name, value in spec.items():
        inside = isinstance(value, Mapping)
        found |= flat(value, f"{place}{name}.") if inside else {f"{place}{name}": value}
    return found


def _part(graded: Parts, part: Split, first: Parts) -> PartView | None:
    if part not in graded or graded[part].count == 0:
        return None
    ours = graded[part]
    low, high = comparison.interval(ours)
    pair: PairView | None = None
    unpaired: Unpaired | None = None
    if part not in first:
        unpaired = "first_has_none"
    elif not comparison.same_texts(ours, first[part]):
        unpaired = "other_texts"
    elif graded is not first:
        pair = _pair(ours, first[part])
    return PartView(
        accuracy=comparison.accuracy(ours),
        low=low,
        high=high,
        texts=ours.count,
        against_first=pair,
        unpaired=unpaired,
    )


def _pair(ours: Graded, first: Graded) -> PairView:
    found = comparison.compare(ours, first)
    return PairView(
        difference=found.difference,
        low=found.low,
        high=found.high,
        p=found.p,
        only_this=found.only_a,
        only_first=found.only_b,
    )
