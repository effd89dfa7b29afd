"""Which texts of a part were answered rightly, without what reads or compares them."""

import base64
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.http.fields import View
from app.jobs import repository
from app.jobs.errors import JobNamedTwice
from app.jobs.schemas import JobView
from app.queue.fencing import UNSYNCED
from app.queue.tables import Grade
from lora_core.confidence_intervals import Interval, paired, wilson
from lora_core.specs.data import Split


@dataclass(frozen=True)
class Graded:
    """Of a part, in the order of its texts."""

    texts_sha256: str  # the same texts in the same order have the same
    correct: bytes  # numpy.packbits of the booleans
    count: int  # texts


# MERGED app.jobs.results.comparison
# Which texts the jobs answered rightly.


def keep(session: Session, job_id: UUID, graded: Mapping[str, Any]) -> None:
    """What the manifest of a run tells, by part: see `lora_core.training.correctness`."""
    session.execute(delete(Grade).where(Grade.job_id == job_id), execution_options=UNSYNCED)
    for split, told in graded.items():
        session.add(
            Grade(
                job_id=job_id,
                split=split,
                texts_sha256=told["texts_sha256"],
                count=told["count"],
                correct=base64.b64decode(told["correct"]),
            )
        )


def of(session: Session, job_ids: Sequence[UUID]) -> Mapping[UUID, Mapping[str, Graded]]:
    """Of each of these jobs, by part; nothing of one that kept none."""
    found: defaultdict[UUID, dict[str, Graded]] = defaultdict(dict)
    for i in range(0, len(job_ids), 500):  # a statement takes only so many parameters
        rows = session.scalars(select(Grade).where(Grade.job_id.in_(job_ids[i : i + 500])))
        for row in rows:
            found[row.job_id][row.split] = Graded(row.texts_sha256, row.correct, row.count)
    return found


# MERGED app.jobs.results.comparison
# Two models on the same texts: is one better, and by how much?

Counts = NDArray[np.int64]
CHANCE = 0.05  # a p value below it is hardly chance


@dataclass(frozen=True)
class Comparison:
    """How one model, `a`, did beside another, `b`, on texts that both answered."""

    p: float  # of the exact McNemar test: how often equals differ as much
    difference: float  # accuracy of a less that of b
    low: float  # its 95 % interval
    high: float
    texts: int
    only_a: int  # texts that a alone answered rightly
    only_b: int


def compare(a: Graded, b: Graded) -> Comparison:
    """Both on the texts they share.

    `p` decides; the interval says how large the difference may be. Close to p = 0.05 the one may
    see a difference and the other none. Raises `ValueError` where they answered other texts.
    """
    if not same_texts(a, b):
        raise ValueError("these answered other texts")
    only_a, only_b = discordant(a, [b])
    p = float(mcnemar(only_a, only_b)[0])
    return _compared(int(only_a[0]), int(only_b[0]), a.count, p)


def accuracy(graded: Graded) -> float:
    """The share of its texts that were answered rightly."""
    return _right(graded) / graded.count


def interval(graded: Graded) -> Interval:
    """Of the accuracy, 95 %."""
    return wilson(accuracy(graded), graded.count)


def same_texts(a: Graded, b: Graded) -> bool:
    """Whether they answered the same texts in the same order, and at least one."""
    return a.count > 0 and (a.texts_sha256, a.count) == (b.texts_sha256, b.count)


def discordant(a: Graded, others: Sequence[Graded]) -> tuple[Counts, Counts]:
    """For each of the others: texts that `a` alone answered rightly, and those the other alone."""
    ours = np.frombuffer(a.correct, dtype=np.uint8)
    theirs = np.stack([np.frombuffer(each.correct, dtype=np.uint8) for each in others])
    only_a, only_b = (
        np.bitwise_count(bits).sum(axis=1, dtype=np.int64)
        for bits in (ours & ~theirs, theirs & ~ours)
    )
    return only_a, only_b


def mcnemar(only_a: Counts, only_b: Counts) -> NDArray[np.float64]:
    """Two-sided p values of the exact test (McNemar 1947, Psychometrika 12, 153-157).

    Were both equally good, each text that one alone has right would be a toss of a fair coin:
    `scipy.stats.binomtest(only_a, only_a + only_b)`, of many pairs at once.
    """
    from scipy.special import bdtr  # as scipy.stats has it, which takes a second to load

    tail = bdtr(np.minimum(only_a, only_b), only_a + only_b, 0.5)
    return np.asarray(np.minimum(1.0, 2 * tail), dtype=np.float64)


def _right(graded: Graded) -> int:
    return int(np.bitwise_count(np.frombuffer(graded.correct, dtype=np.uint8)).sum())


def _compared(only_a: int, only_b: int, texts: int, p: float) -> Comparison:
    low, high = paired(only_a, only_b, texts)
    return Comparison(
        p=p,
        difference=(only_a - only_b) / texts,
        low=low,
        high=high,
        texts=texts,
        only_a=only_a,
        only_b=only_b,
    )


# MERGED app.jobs.results.comparison
# Jobs beside each other: what they reached, and where their settings differ.

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
    graded = of(session, job_ids)
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
    low, high = interval(ours)
    pair: PairView | None = None
    unpaired: Unpaired | None = None
    if part not in first:
        unpaired = "first_has_none"
    elif not same_texts(ours, first[part]):
        unpaired = "other_texts"
    elif graded is not first:
        pair = _pair(ours, first[part])
    return PartView(
        accuracy=accuracy(ours),
        low=low,
        high=high,
        texts=ours.count,
        against_first=pair,
        unpaired=unpaired,
    )


def _pair(ours: Graded, first: Graded) -> PairView:
    found = compare(ours, first)
    return PairView(
        difference=found.difference,
        low=found.low,
        high=found.high,
        p=found.p,
        only_this=found.only_a,
        only_first=found.only_b,
    )
