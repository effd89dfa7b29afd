"""Comparison of jobs on the same texts: accuracies, exact McNemar tests and differing settings.

The basis is stored per text: whether each job classified it correctly.
"""

import base64
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.jobs import repository
from app.jobs.errors import DuplicateJob
from app.jobs.schemas import (
    ComparedJob,
    JobComparison,
    PairedComparisonView,
    SplitResultView,
    UnpairedReason,
)
from app.jobs.views import job_view
from app.queue.fencing import NO_SESSION_SYNC
from app.queue.tables import CorrectnessRow
from lora_core.confidence_intervals import Interval, paired_difference_interval, wilson_interval
from lora_core.specs.data import Split

Counts = NDArray[np.int64]
CorrectnessBySplit = Mapping[str, "SplitCorrectness"]


SIGNIFICANCE_LEVEL = 0.05  # a p value below it is unlikely to be chance
MAX_SQL_PARAMETERS = 500


# Correctness per text


@dataclass(frozen=True)
class SplitCorrectness:
    """Which texts of a split were classified correctly, in the order of the texts."""

    texts_sha256: str  # equal for equal texts in equal order
    correct: bytes  # numpy.packbits of the booleans
    count: int  # texts


def store_correctness(session: Session, job_id: UUID, by_split: Mapping[str, Any]) -> None:
    """Store the correctness from a run's manifest; see `lora_core.training.correctness`."""
    session.execute(
        delete(CorrectnessRow).where(CorrectnessRow.job_id == job_id),
        execution_options=NO_SESSION_SYNC,
    )
    for split, fields in by_split.items():
        session.add(
            CorrectnessRow(
                job_id=job_id,
                split=split,
                texts_sha256=fields["texts_sha256"],
                count=fields["count"],
                correct=base64.b64decode(fields["correct"]),
            )
        )


def load_correctness(
    session: Session, job_ids: Sequence[UUID]
) -> Mapping[UUID, CorrectnessBySplit]:
    """Load the correctness of these jobs by split; empty for a job that stored none."""
    loaded: defaultdict[UUID, dict[str, SplitCorrectness]] = defaultdict(dict)
    for start in range(0, len(job_ids), MAX_SQL_PARAMETERS):
        batch = job_ids[start : start + MAX_SQL_PARAMETERS]
        for row in session.scalars(select(CorrectnessRow).where(CorrectnessRow.job_id.in_(batch))):
            loaded[row.job_id][row.split] = SplitCorrectness(
                row.texts_sha256, row.correct, row.count
            )
    return loaded


def accuracy(correctness: SplitCorrectness) -> float:
    """Return the share of the texts that were classified correctly."""
    return _count_correct(correctness) / correctness.count


def accuracy_interval(correctness: SplitCorrectness) -> Interval:
    """Return the 95 % interval of the accuracy."""
    return wilson_interval(accuracy(correctness), correctness.count)


def _count_correct(correctness: SplitCorrectness) -> int:
    return int(np.bitwise_count(np.frombuffer(correctness.correct, dtype=np.uint8)).sum())


# Paired comparison of two models


@dataclass(frozen=True)
class PairedComparison:
    """The result of model `a` against model `b` on texts that both classified."""

    p: float  # of the exact McNemar test
    difference: float  # accuracy of a minus accuracy of b
    low: float  # of the 95 % interval of the difference
    high: float
    texts: int
    only_a: int  # texts that only a classified correctly
    only_b: int


def compare_paired(a: SplitCorrectness, b: SplitCorrectness) -> PairedComparison:
    """Compare two models on the texts they share.

    `p` decides; the interval tells how large the difference may be. Close to p = 0.05 one of them
    may show a difference and the other none. Raises `ValueError` if the texts differ.
    """
    if not same_texts(a, b):
        raise ValueError("the two models classified different texts")
    only_a, only_b = discordant_counts(a, [b])
    p = float(mcnemar_p_values(only_a, only_b)[0])
    return _paired_comparison(int(only_a[0]), int(only_b[0]), a.count, p)


def same_texts(a: SplitCorrectness, b: SplitCorrectness) -> bool:
    """Return whether both cover the same texts in the same order, and at least one."""
    return a.count > 0 and (a.texts_sha256, a.count) == (b.texts_sha256, b.count)


def discordant_counts(
    a: SplitCorrectness, others: Sequence[SplitCorrectness]
) -> tuple[Counts, Counts]:
    """Count, for each other model, the texts that only `a` or only the other got right."""
    bits_a = np.frombuffer(a.correct, dtype=np.uint8)
    bits_others = np.stack([np.frombuffer(other.correct, dtype=np.uint8) for other in others])
    only_a, only_other = (
        np.bitwise_count(bits).sum(axis=1, dtype=np.int64)
        for bits in (bits_a & ~bits_others, bits_others & ~bits_a)
    )
    return only_a, only_other


def mcnemar_p_values(only_a: Counts, only_b: Counts) -> NDArray[np.float64]:
    """Return two-sided p values of the exact test (McNemar 1947, Psychometrika 12, 153-157).

    If both models were equally good, each text that only one gets right would be a toss of a fair
    coin. Equals `scipy.stats.binomtest(only_a, only_a + only_b)`, for many pairs at once.
    """
    from scipy.special import bdtr  # what scipy.stats uses, which takes a second to import

    tail = bdtr(np.minimum(only_a, only_b), only_a + only_b, 0.5)
    return np.asarray(np.minimum(1.0, 2 * tail), dtype=np.float64)


def _paired_comparison(only_a: int, only_b: int, texts: int, p: float) -> PairedComparison:
    low, high = paired_difference_interval(only_a, only_b, texts)
    return PairedComparison(
        p=p,
        difference=(only_a - only_b) / texts,
        low=low,
        high=high,
        texts=texts,
        only_a=only_a,
        only_b=only_b,
    )


# Comparison of several jobs with the first


def compare_jobs(session: Session, job_ids: Sequence[UUID]) -> JobComparison:
    """Compare jobs with the first one. Raises `DuplicateJob`, `JobNotFound`."""
    for i, job_id in enumerate(job_ids):
        if job_id in job_ids[:i]:
            raise DuplicateJob(job_id=job_id)
    jobs = [repository.get_job(session, job_id) for job_id in job_ids]
    positions = repository.queue_positions(session, job_ids)
    by_job = load_correctness(session, job_ids)
    first = by_job[job_ids[0]]
    return JobComparison(
        jobs=[
            ComparedJob(
                job=job_view(job, positions.get(job.id)),
                validation=_split_result(by_job[job.id], Split.VALIDATION, first),
                test=_split_result(by_job[job.id], Split.TEST, first),
            )
            for job in jobs
        ],
        settings=differing_settings([job.spec for job in jobs]),
    )


def differing_settings(specs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the settings that differ, by dotted name, each with the value of every spec."""
    flat_specs = [flatten(spec) for spec in specs]
    names = dict.fromkeys(name for spec in flat_specs for name in spec)  # in the order of the specs
    settings = {name: [spec.get(name) for spec in flat_specs] for name in names}
    return {
        name: values for name, values in settings.items() if len(set(map(json.dumps, values))) > 1
    }


def flatten(spec: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn `{"method": {"r": 8}}` into `{"method.r": 8}`."""
    flat: dict[str, Any] = {}
    for name, value in spec.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _split_result(
    by_split: CorrectnessBySplit, split: Split, first: CorrectnessBySplit
) -> SplitResultView | None:
    if split not in by_split or by_split[split].count == 0:
        return None
    correctness = by_split[split]
    low, high = accuracy_interval(correctness)
    comparison: PairedComparisonView | None = None
    unpaired: UnpairedReason | None = None
    if split not in first:
        unpaired = "first_has_none"
    elif not same_texts(correctness, first[split]):
        unpaired = "other_texts"
    elif by_split is not first:
        comparison = _compare_with_first(correctness, first[split])
    return SplitResultView(
        accuracy=accuracy(correctness),
        low=low,
        high=high,
        texts=correctness.count,
        against_first=comparison,
        unpaired=unpaired,
    )


def _compare_with_first(
    correctness: SplitCorrectness, first: SplitCorrectness
) -> PairedComparisonView:
    comparison = compare_paired(correctness, first)
    return PairedComparisonView(
        difference=comparison.difference,
        low=comparison.low,
        high=comparison.high,
        p=comparison.p,
        only_this=comparison.only_a,
        only_first=comparison.only_b,
    )
