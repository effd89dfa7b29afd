"""Comparison of jobs on the same texts: metrics, paired tests and differing settings.

The basis is stored per text: how well each job predicted it.
"""

import base64
import json
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.jobs import repository
from app.jobs.errors import DuplicateComparedJob
from app.jobs.schemas import (
    ComparedJob,
    JobComparison,
    PairedComparisonView,
    SplitResultView,
    UnpairedReason,
)
from app.jobs.views import job_view
from app.queue.fencing import NO_SESSION_SYNC
from app.queue.tables import SplitCorrectnessRow
from lora_core.confidence_intervals import (
    Interval,
    paired_accuracy_difference_interval,
    wilson_interval,
)
from lora_core.specs.data import Split
from lora_core.tasks.primary_metric import (
    Accuracy,
    MacroF1,
    MeanSkill,
    MetricFromMeans,
    RootMeanSquaredError,
    difference_interval,
)
from lora_core.training.correctness import MAX_COMPARED_TEXTS

_Counts = NDArray[np.int64]
_CorrectnessBySplit = Mapping[str, "SplitCorrectness"]


SIGNIFICANCE_LEVEL = 0.05  # a p value below it is unlikely to be chance
MAX_SQL_PARAMETERS = 500


# Correctness of each text


@dataclass(frozen=True)
class SplitCorrectness:
    """How well each text of a split was predicted, in the order of the texts.

    Bits are packed by `numpy.packbits`, those of one text and its labels in bytes of their own.
    """

    texts_sha256: str  # equal for equal texts with equal labels in equal order
    correct: bytes | None  # one bit per text: all of its labels are right; None: numbers
    count: int  # texts
    # Of a multi-label task, compressed by zlib: one bit per text and label
    true_labels: bytes | None = None
    predicted_labels: bytes | None = None
    errors: bytes | None = None  # of a regression: prediction - number, float32, little-endian
    targets: Mapping[str, "SplitCorrectness"] | None = None  # each of several targets
    constant_error: float = 0.0  # of a target: see `MeanSkill`

    @classmethod
    def of_manifest(cls, fields: Mapping[str, Any]) -> "SplitCorrectness":
        """Decode what a manifest has (`lora_core.training.correctness`)."""
        targets = fields.get("targets")
        return cls(
            fields["texts_sha256"],
            count=fields["count"],
            **{"correct": None}
            | {name: base64.b64decode(fields[name]) for name in _ARRAYS if name in fields},
            targets=targets and {name: cls.of_manifest(each) for name, each in targets.items()},
            constant_error=fields.get("constant_error", 0.0),
        )

    @property
    def metric(self) -> MetricFromMeans:
        """The metric that models of this task are compared by."""
        if self.targets is not None:
            return MeanSkill(
                [(each.metric, each.statistics.shape[1]) for each in self.targets.values()]
            )
        if self.errors is not None:
            return RootMeanSquaredError()
        return Accuracy() if self.true_labels is None else MacroF1()

    @property
    def is_capped(self) -> bool:
        """Whether the split may have more texts than these, its first ones."""
        targets = 1 if self.targets is None else len(self.targets)
        return not self._is_accuracy and self.count == MAX_COMPARED_TEXTS // targets

    @cached_property
    def value(self) -> float:
        """The metric of all texts."""
        if self._is_accuracy:
            return _count_correct(self) / self.count
        return self.metric.value(self.statistics)

    @property
    def interval(self) -> Interval:
        """The 95% interval of the metric."""
        if self._is_accuracy:
            return wilson_interval(self.value, self.count)
        return self.metric.interval_from_resamples(self.resampled, self.count)

    @cached_property
    def resampled(self) -> NDArray[np.float64]:
        """The metric of texts drawn with replacement, the same for each model: (resamples,)."""
        return self.metric.resampled(self.statistics)

    @property
    def _is_accuracy(self) -> bool:
        return isinstance(self.metric, Accuracy)

    @cached_property
    def statistics(self) -> NDArray[np.float64]:
        """What the metric averages: (texts, statistics)."""
        if self.targets is not None:
            each = self.targets.values()
            return MeanSkill.join([t.statistics for t in each], [t.constant_error for t in each])
        if self.errors is not None:
            errors = np.frombuffer(self.errors, dtype="<f4")
            return RootMeanSquaredError().per_text_statistics(np.zeros_like(errors), errors)
        if self.true_labels is None:
            correct = np.unpackbits(_correct_bits(self), count=self.count)
            return correct[:, None].astype(np.float64)
        return MacroF1().per_text_statistics(
            self._unpack(self.true_labels), self._unpack(self.predicted_labels)
        )

    def _unpack(self, packed: bytes | None) -> NDArray[np.uint8]:
        rows = np.frombuffer(zlib.decompress(packed or b""), dtype=np.uint8)
        return np.unpackbits(rows.reshape(self.count, -1), axis=1)


def store_correctness(session: Session, job_id: UUID, by_split: Mapping[str, Any]) -> None:
    """Store the correctness from a run's manifest; see `lora_core.training.correctness`."""
    # There are rows if the worker repeats a commit that had succeeded without a response.
    session.execute(
        delete(SplitCorrectnessRow).where(SplitCorrectnessRow.job_id == job_id),
        execution_options=NO_SESSION_SYNC,
    )
    for split, fields in by_split.items():
        session.add(
            SplitCorrectnessRow(
                job_id=job_id,
                split=split,
                texts_sha256=fields["texts_sha256"],
                count=fields["count"],
                **{name: base64.b64decode(fields[name]) for name in _ARRAYS if name in fields},
                targets=fields.get("targets"),
            )
        )


_ARRAYS = ("correct", "true_labels", "predicted_labels", "errors")


def get_correctness_by_job(
    session: Session, job_ids: Sequence[UUID]
) -> Mapping[UUID, _CorrectnessBySplit]:
    """Load the correctness of these jobs by split; empty for a job that stored none."""
    loaded: defaultdict[UUID, dict[str, SplitCorrectness]] = defaultdict(dict)
    for start in range(0, len(job_ids), MAX_SQL_PARAMETERS):
        batch = job_ids[start : start + MAX_SQL_PARAMETERS]
        for row in session.scalars(
            select(SplitCorrectnessRow).where(SplitCorrectnessRow.job_id.in_(batch))
        ):
            loaded[row.job_id][row.split] = SplitCorrectness(
                row.texts_sha256,
                row.correct,
                row.count,
                row.true_labels,
                row.predicted_labels,
                row.errors,
                row.targets
                and {
                    name: SplitCorrectness.of_manifest(each) for name, each in row.targets.items()
                },
            )
    return loaded


def _count_correct(correctness: SplitCorrectness) -> int:
    return int(np.bitwise_count(_correct_bits(correctness)).sum())


def _correct_bits(correctness: SplitCorrectness) -> NDArray[np.uint8]:
    return np.frombuffer(correctness.correct or b"", dtype=np.uint8)


# Paired comparison of two models


@dataclass(frozen=True)
class PairedComparison:
    """The metric of model `a` against that of model `b` on texts that both predicted."""

    difference: float  # of a minus that of b
    low: float  # of the 95% interval of the difference
    high: float
    texts: int

    @property
    def significant(self) -> bool:
        """Whether the difference is unlikely to be chance: 0 is not in its interval."""
        return not self.low <= 0 <= self.high


@dataclass(frozen=True)
class PairedAccuracyComparison(PairedComparison):
    """The accuracy of model `a` against that of model `b`.

    `p` decides; the interval tells how large the difference may be. Close to p = 0.05 one of them
    may show a difference and the other none.
    """

    p: float  # of the exact McNemar test
    only_a: int  # texts that only a classified correctly
    only_b: int

    @property
    def significant(self) -> bool:
        return self.p < SIGNIFICANCE_LEVEL


def compare_paired(a: SplitCorrectness, b: SplitCorrectness) -> PairedComparison:
    """Compare two models on the texts they share by the metric of their task.

    The interval is that of a paired bootstrap over texts (Efron 1979); accuracies are compared by
    `compare_accuracies_paired`. Raises `ValueError` if the texts or their labels differ.
    """
    if not have_same_texts_and_metric(a, b):
        raise ValueError("the two models classified different texts or labels")
    if isinstance(a.metric, Accuracy):
        return compare_accuracies_paired(a, b)
    low, high = difference_interval(a.resampled - b.resampled, a.count)
    return PairedComparison(a.value - b.value, low, high, a.count)


def compare_accuracies_paired(a: SplitCorrectness, b: SplitCorrectness) -> PairedAccuracyComparison:
    """Compare the accuracies of two models on the same texts."""
    counts = discordant_counts(a, [b])
    only_a, only_b = (int(count[0]) for count in counts)
    low, high = paired_accuracy_difference_interval(only_a, only_b, a.count)
    return PairedAccuracyComparison(
        difference=(only_a - only_b) / a.count,
        low=low,
        high=high,
        texts=a.count,
        p=float(mcnemar_p_values(*counts)[0]),
        only_a=only_a,
        only_b=only_b,
    )


def have_same_texts_and_metric(a: SplitCorrectness, b: SplitCorrectness) -> bool:
    """Return whether both cover the same texts and labels in the same order, and at least one."""
    return a.count > 0 and (a.texts_sha256, a.count, a.metric.name) == (
        b.texts_sha256,
        b.count,
        b.metric.name,
    )


def discordant_counts(
    a: SplitCorrectness, others: Sequence[SplitCorrectness]
) -> tuple[_Counts, _Counts]:
    """Count, for each other model, the texts that only `a` or only the other got right."""
    bits_a = _correct_bits(a)
    bits_others = np.stack([_correct_bits(other) for other in others])
    only_a, only_other = (
        np.bitwise_count(bits).sum(axis=1, dtype=np.int64)
        for bits in (bits_a & ~bits_others, bits_others & ~bits_a)
    )
    return only_a, only_other


def significant_difference_flags(
    a: SplitCorrectness, others: Sequence[SplitCorrectness]
) -> list[bool]:
    """Return whether `a` differs from each of these; the same as many `compare_paired`, faster."""
    if isinstance(a.metric, Accuracy) and others:
        p_values = mcnemar_p_values(*discordant_counts(a, others))
        return [bool(p < SIGNIFICANCE_LEVEL) for p in p_values]
    return [compare_paired(a, other).significant for other in others]


def mcnemar_p_values(only_a: _Counts, only_b: _Counts) -> NDArray[np.float64]:
    """Return two-sided p values of the exact test (McNemar 1947, Psychometrika 12, 153-157).

    If both models were equally good, each text that only one gets right would be a toss of a fair
    coin. Equals `scipy.stats.binomtest(only_a, only_a + only_b)`, for many pairs at once.
    """
    from scipy.special import bdtr  # what scipy.stats uses, which takes a second to import

    tail = bdtr(np.minimum(only_a, only_b), only_a + only_b, 0.5)
    return np.asarray(np.minimum(1.0, 2 * tail), dtype=np.float64)


# Comparison of several jobs with the first


def compare_jobs_with_first(session: Session, job_ids: Sequence[UUID]) -> JobComparison:
    """Compare jobs with the first one. Raises `DuplicateComparedJob`, `JobNotFound`."""
    for i, job_id in enumerate(job_ids):
        if job_id in job_ids[:i]:
            raise DuplicateComparedJob(job_id=job_id)
    jobs = [repository.get_training_job(session, job_id) for job_id in job_ids]
    positions = repository.queue_positions(session, job_ids)
    by_job = get_correctness_by_job(session, job_ids)
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
    flat_specs = [flatten_to_dotted_names(spec) for spec in specs]
    names = dict.fromkeys(name for spec in flat_specs for name in spec)  # in the order of the specs
    settings = {name: [spec.get(name) for spec in flat_specs] for name in names}
    return {
        name: values for name, values in settings.items() if len(set(map(json.dumps, values))) > 1
    }


def flatten_to_dotted_names(spec: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn `{"method": {"r": 8}}` into `{"method.r": 8}`."""
    flat: dict[str, Any] = {}
    for name, value in spec.items():
        if isinstance(value, Mapping):
            flat |= flatten_to_dotted_names(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _split_result(
    by_split: _CorrectnessBySplit, split: Split, first: _CorrectnessBySplit
) -> SplitResultView | None:
    if split not in by_split or by_split[split].count == 0:
        return None
    correctness = by_split[split]
    low, high = correctness.interval
    comparison: PairedComparisonView | None = None
    unpaired: UnpairedReason | None = None
    if split not in first:
        unpaired = "first_has_none"
    elif not have_same_texts_and_metric(correctness, first[split]):
        unpaired = "other_texts"
    elif by_split is not first:
        comparison = _compare_with_first(correctness, first[split])
    metric, value = correctness.metric.name, correctness.value
    return SplitResultView(
        metric=metric,
        value=value,
        accuracy=value if metric == "accuracy" else None,
        low=low,
        high=high,
        texts=correctness.count,
        against_first=comparison,
        unpaired=unpaired,
    )


def _compare_with_first(
    correctness: SplitCorrectness, first: SplitCorrectness
) -> PairedComparisonView:
    found = compare_paired(correctness, first)
    tested = found if isinstance(found, PairedAccuracyComparison) else None
    return PairedComparisonView(
        difference=found.difference,
        low=found.low,
        high=found.high,
        significant=found.significant,
        p=tested.p if tested else None,
        only_this=tested.only_a if tested else None,
        only_first=tested.only_b if tested else None,
    )
