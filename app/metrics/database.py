"""Prometheus metrics from the database.

What is queued or running is queried on each scrape. Counts of what has ended read an index entry of
every job, so they are queried once in `HISTORY_SECONDS` for all scrapes of a process.

docs/reference/metrics.md is generated from `DATABASE_METRICS`. All of them are gauges, even those
that look like counters: deleting a job deletes its attempts.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, get_args

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from sqlalchemy import ColumnElement, Executable, and_, func, select
from sqlalchemy.orm import Session

from app.database.base import now
from app.database.engines import Database
from app.datasets.tables import Dataset
from app.drift import repository as drift
from app.drift.tables import DriftCheck
from app.feedback.tables import Feedback
from app.jobs.repository import ACTIVE_STATES, FINAL_STATES
from app.queue.enums import AttemptOutcome, DeviceClass, JobKind, JobState
from app.queue.tables import Attempt, Checkpoint, Job, Worker
from app.queue.transitions import CLAIMABLE, QUEUE_TIMEOUT
from app.registry import repository as registry
from app.registry.tables import PRODUCTION
from app.storage.tables import RESULTS_KIND, VECTORS_KIND, Artifact
from app.traffic import repository as traffic
from lora_core.specs.method import MethodName

LabeledValue = tuple[Any, ...]  # label values, then the number
LabeledValues = list[LabeledValue]
DatabaseMetrics = Mapping[str, LabeledValues]  # by metric name
UNAVAILABLE: DatabaseMetrics = {}  # the database did not respond
UP_METRIC = "loraworks_database_up"
UP_HELP = "1 if the database could be queried; otherwise the metrics from it are missing."

ABSTENTION_DAYS = 7.0
HISTORY_SECONDS = 60.0  # how old the counts of what has ended may be

_METHODS = get_args(MethodName)
_DEVICES = ("cpu", "cuda")


class MetricQueries:
    """The queries of all metrics, on one session.

    A worker is alive for `lease_seconds` after its last heartbeat.
    """

    def __init__(self, session: Session, *, lease_seconds: float) -> None:
        self._session = session
        self._alive = Worker.seen_at >= now() - lease_seconds

    def active_training_jobs(self) -> LabeledValues:
        """Queued and running training jobs by state and method."""
        return self._jobs(ACTIVE_STATES)

    def ended_training_jobs(self) -> LabeledValues:
        """Ended training jobs by state and method."""
        return self._jobs(FINAL_STATES)

    def active_predictions(self) -> LabeledValues:
        """Queued and running prediction runs by state."""
        return self._by_state(JobKind.PREDICTION, ACTIVE_STATES)

    def ended_predictions(self) -> LabeledValues:
        """Ended prediction runs by state."""
        return self._by_state(JobKind.PREDICTION, FINAL_STATES)

    def active_embeddings(self) -> LabeledValues:
        """Queued and running jobs that compute vectors, by state."""
        return self._by_state(JobKind.EMBEDDING, ACTIVE_STATES)

    def ended_embeddings(self) -> LabeledValues:
        """Ended jobs that compute vectors, by state."""
        return self._by_state(JobKind.EMBEDDING, FINAL_STATES)

    def queued(self) -> LabeledValues:
        """Queued jobs by device class, without those that are paused."""
        grouped = select(Job.device_class, func.count()).where(CLAIMABLE).group_by(Job.device_class)
        return _with_zeros(_device_classes(), self._rows(grouped))

    def oldest_queued(self) -> LabeledValues:
        """Seconds since the oldest queued job could have been claimed, by device class."""
        age = func.max(now() - Job.run_after)
        grouped = (
            select(Job.device_class, age)
            .where(CLAIMABLE, Job.run_after <= now())
            .group_by(Job.device_class)
        )
        return _with_zeros(_device_classes(), self._rows(grouped))

    def redispatches_of_queued_jobs(self) -> LabeledValues:
        return self._sum(Job.dispatch_count, CLAIMABLE)

    def attempts(self) -> LabeledValues:
        """Ended attempts by outcome and error code.

        Only the last attempt of a failed job has an error code, unless the job failed in the queue.
        """
        ended = select(Attempt.outcome, func.count()).where(Attempt.outcome.is_not(None))
        last = and_(Attempt.job_id == Job.id, Attempt.attempt == Job.attempt)
        failed = (
            select(Attempt.outcome, Job.error_code, func.count())
            .join(Job, last)
            .where(Job.kind.in_(tuple(JobKind)), Job.state == JobState.FAILED)  # to use the index
            .where(Job.error_code != QUEUE_TIMEOUT, Attempt.outcome.is_not(None))
        )
        with_code = self._rows(failed.group_by(Attempt.outcome, Job.error_code))
        remaining: Counter[str] = Counter(dict(self._rows(ended.group_by(Attempt.outcome))))
        for outcome, _, count in with_code:
            remaining[outcome] -= count
        without_code = [(outcome, "", count) for outcome, count in remaining.items() if count]
        expected = [(outcome.value, "") for outcome in AttemptOutcome]
        return _with_zeros(expected, without_code + with_code)

    def lease_losses(self) -> LabeledValues:
        lost = (
            select(func.count()).select_from(Attempt).where(Attempt.outcome == AttemptOutcome.LOST)
        )
        return self._rows(lost)

    def running_attempts(self) -> LabeledValues:
        """Running attempts by device type."""
        is_current = and_(Job.id == Attempt.job_id, Job.attempt == Attempt.attempt)
        devices = select(Attempt.device).join(Job, is_current).where(Job.state == JobState.RUNNING)
        return _count_by_device_type(device for (device,) in self._rows(devices))

    def worker_concurrency(self) -> LabeledValues:
        """Devices of the live workers that take jobs, by device type."""
        lists = select(Worker.devices).where(self._alive, Worker.draining.is_(False))
        return _count_by_device_type(
            device for (devices,) in self._rows(lists) for device in devices
        )

    def workers(self) -> LabeledValues:
        """Live workers by state, `active` or `draining`."""
        grouped = select(Worker.draining, func.count()).where(self._alive).group_by(Worker.draining)
        counts = [
            ("draining" if draining else "active", count) for draining, count in self._rows(grouped)
        ]
        return _with_zeros([("active",), ("draining",)], counts)

    def stored_bytes(self) -> LabeledValues:
        """Stored bytes by kind of file."""
        kinds = {
            "artifacts": self._sum(
                Artifact.bytes, Artifact.kind.not_in((RESULTS_KIND, VECTORS_KIND))
            ),
            "results": self._sum(Artifact.bytes, Artifact.kind == RESULTS_KIND),
            "vectors": self._sum(Artifact.bytes, Artifact.kind == VECTORS_KIND),
            "checkpoints": self._sum(Checkpoint.bytes),
            "datasets": self._sum(Dataset.bytes, Dataset.deleted_at.is_(None)),
        }
        return [(kind, total) for kind, [(total,)] in kinds.items()]

    def feedback(self) -> LabeledValues:
        """Feedback by model, and by whether the text was drawn for a review."""
        grouped = select(Feedback.model, Feedback.sampled, func.count())
        return [
            (model, "yes" if sampled else "no", count)
            for model, sampled, count in self._rows(
                grouped.group_by(Feedback.model, Feedback.sampled)
            )
        ]

    def drift_auc(self) -> LabeledValues:
        """AUC of the newest drift check of each version in production."""
        return [(each.model, each.version_ref, each.auc) for each in self._newest_drift_checks()]

    def drift_p_value(self) -> LabeledValues:
        """P value of the same checks."""
        return [
            (each.model, each.version_ref, each.p_value) for each in self._newest_drift_checks()
        ]

    def drift_alarm(self) -> LabeledValues:
        """Whether the same checks raised an alarm."""
        return [(each.model, each.version_ref, each.alarm) for each in self._newest_drift_checks()]

    def drift_check_timestamp(self) -> LabeledValues:
        """Unix time of the same checks."""
        return [
            (each.model, each.version_ref, each.window_end) for each in self._newest_drift_checks()
        ]

    def drift_checks_by_outcome(self) -> LabeledValues:
        """Drift checks by outcome."""
        grouped = select(DriftCheck.alarm, func.count()).group_by(DriftCheck.alarm)
        counts = [("alarm" if alarm else "no_alarm", count) for alarm, count in self._rows(grouped)]
        return _with_zeros([("alarm",), ("no_alarm",)], counts)

    def abstention_share(self) -> LabeledValues:
        """Share of the texts of the last week that got no label, by version in production."""
        shares = traffic.abstention_share_by_version(self._session, days=ABSTENTION_DAYS)
        in_production = registry.list_versions_with_alias(self._session, PRODUCTION)
        return [
            (model, f"{model}:{number}", shares[model, number])
            for model, number in in_production
            if (model, number) in shares
        ]

    def _newest_drift_checks(self) -> Sequence[DriftCheck]:
        return drift.list_newest_checks_in_production(self._session)

    def _jobs(self, states: Sequence[JobState]) -> LabeledValues:
        conditions = (Job.kind == JobKind.TRAINING, Job.state.in_(states))
        counts = select(Job.state, Job.method, func.count()).where(*conditions)
        expected = [(state.value, method) for state in states for method in _METHODS]
        return _with_zeros(expected, self._rows(counts.group_by(Job.state, Job.method)))

    def _by_state(self, kind: JobKind, states: Sequence[JobState]) -> LabeledValues:
        conditions = (Job.kind == kind, Job.state.in_(states))
        counts = select(Job.state, func.count()).where(*conditions)
        expected = [(state.value,) for state in states]
        return _with_zeros(expected, self._rows(counts.group_by(Job.state)))

    def _rows(self, statement: Executable) -> LabeledValues:
        return [tuple(row) for row in self._session.execute(statement)]

    def _sum(self, column: Any, *conditions: ColumnElement[bool]) -> LabeledValues:
        return self._rows(select(func.coalesce(func.sum(column), 0)).where(*conditions))


def _device_classes() -> list[LabeledValue]:
    return [(device_class.value,) for device_class in DeviceClass]


def _with_zeros(expected: Sequence[LabeledValue], values: LabeledValues) -> LabeledValues:
    """Add a zero for missing labels, so that no time series disappears."""
    present = {row[:-1] for row in values}
    return values + [(*labels, 0) for labels in expected if labels not in present]


def _count_by_device_type(devices: Iterable[str | None]) -> LabeledValues:
    """Count devices by type: `cuda:0` and `cuda:1` are both `cuda`."""
    counts = Counter((device or "unknown").partition(":")[0] for device in devices)
    return _with_zeros([(type_,) for type_ in _DEVICES], list(counts.items()))


@dataclass(frozen=True, slots=True)
class MetricDefinition:
    """Name, help text and labels of a metric, and the queries that read it.

    `read` queries on each scrape, `read_history` once in `HISTORY_SECONDS`; a metric may have both.
    """

    name: str
    help: str
    labels: tuple[str, ...]
    read: Callable[[MetricQueries], LabeledValues] | None = None
    read_history: Callable[[MetricQueries], LabeledValues] | None = None


DATABASE_METRICS = (
    MetricDefinition(
        "loraworks_jobs",
        f"Jobs. The number of ended ones may be {HISTORY_SECONDS:g} s old.",
        ("state", "method"),
        MetricQueries.active_training_jobs,
        MetricQueries.ended_training_jobs,
    ),
    MetricDefinition(
        "loraworks_predictions",
        f"Prediction runs. The number of ended ones may be {HISTORY_SECONDS:g} s old.",
        ("state",),
        MetricQueries.active_predictions,
        MetricQueries.ended_predictions,
    ),
    MetricDefinition(
        "loraworks_embeddings",
        "Jobs that compute the vectors of texts, for labeling. The number of ended ones may be "
        f"{HISTORY_SECONDS:g} s old.",
        ("state",),
        MetricQueries.active_embeddings,
        MetricQueries.ended_embeddings,
    ),
    MetricDefinition(
        "loraworks_jobs_queued",
        "Queued jobs and prediction runs that are not paused, by the device class that they need.",
        ("device_class",),
        MetricQueries.queued,
    ),
    MetricDefinition(
        "loraworks_oldest_queued_seconds",
        "How long the oldest of them has waited since it could have been claimed.",
        ("device_class",),
        MetricQueries.oldest_queued,
    ),
    MetricDefinition(
        "loraworks_messages_resent",
        "Celery tasks that were sent again for jobs and runs that are queued now.",
        (),
        MetricQueries.redispatches_of_queued_jobs,
    ),
    MetricDefinition(
        "loraworks_attempts",
        "Ended attempts of jobs and prediction runs. The last attempt of a failed job or run has "
        f"its error code. Up to {HISTORY_SECONDS:g} s old.",
        ("outcome", "code"),
        read_history=MetricQueries.attempts,
    ),
    MetricDefinition(
        "loraworks_lease_losses",
        "Attempts that ended because their worker lost its lease or died.",
        (),
        MetricQueries.lease_losses,
    ),
    MetricDefinition(
        "loraworks_running_attempts",
        "Running attempts.",
        ("device",),
        MetricQueries.running_attempts,
    ),
    MetricDefinition(
        "loraworks_worker_concurrency",
        "Jobs and prediction runs that the active workers can run at once.",
        ("device",),
        MetricQueries.worker_concurrency,
    ),
    MetricDefinition(
        "loraworks_workers",
        "Workers with a heartbeat within `LORAWORKS_LEASE_SECONDS`.",
        ("state",),
        MetricQueries.workers,
    ),
    MetricDefinition(
        "loraworks_stored_bytes",
        f"Bytes stored, according to the database. Up to {HISTORY_SECONDS:g} s old.",
        ("kind",),
        read_history=MetricQueries.stored_bytes,
    ),
    MetricDefinition(
        "loraworks_feedback",
        "Texts with feedback, by whether they were drawn at random for a review. "
        f"Up to {HISTORY_SECONDS:g} s old.",
        ("model", "sampled"),
        read_history=MetricQueries.feedback,
    ),
    MetricDefinition(
        "loraworks_drift_auc",
        "How well a classifier distinguishes texts of traffic from training texts, 0.5 to 1: the "
        f"newest drift check of each version in production. Up to {HISTORY_SECONDS:g} s old.",
        ("model", "version"),
        read_history=MetricQueries.drift_auc,
    ),
    MetricDefinition(
        "loraworks_drift_p_value",
        f"P value of the same checks. Up to {HISTORY_SECONDS:g} s old.",
        ("model", "version"),
        read_history=MetricQueries.drift_p_value,
    ),
    MetricDefinition(
        "loraworks_drift_alarm",
        f"1 if the same check raised an alarm. Up to {HISTORY_SECONDS:g} s old.",
        ("model", "version"),
        read_history=MetricQueries.drift_alarm,
    ),
    MetricDefinition(
        "loraworks_drift_check_timestamp_seconds",
        f"Unix time of the same check. Up to {HISTORY_SECONDS:g} s old.",
        ("model", "version"),
        read_history=MetricQueries.drift_check_timestamp,
    ),
    MetricDefinition(
        "loraworks_drift_checks",
        f"Drift checks of the last {drift.CHECK_DAYS} days. Up to {HISTORY_SECONDS:g} s old.",
        ("outcome",),
        read_history=MetricQueries.drift_checks_by_outcome,
    ),
    MetricDefinition(
        "loraworks_abstention_share",
        f"Share of the texts of the last {ABSTENTION_DAYS:g} days that got no label, by version in "
        f"production. Up to {HISTORY_SECONDS:g} s old.",
        ("model", "version"),
        read_history=MetricQueries.abstention_share,
    ),
)


class DatabaseMetricsReader:
    """Queries the metrics of one process. Not for several threads at once."""

    def __init__(self) -> None:
        self._history: DatabaseMetrics = {}
        self._history_read_at = -inf

    def read(self, database: Database, *, lease_seconds: float) -> DatabaseMetrics:
        """Return all metrics, read in one transaction, except for counts that are recent."""
        with database.read() as session:
            counts = MetricQueries(session, lease_seconds=lease_seconds)
            live = {metric.name: metric.read(counts) for metric in DATABASE_METRICS if metric.read}
            if time.monotonic() - self._history_read_at > HISTORY_SECONDS:
                self._history = {
                    metric.name: metric.read_history(counts)
                    for metric in DATABASE_METRICS
                    if metric.read_history
                }
                self._history_read_at = time.monotonic()
        return {
            metric.name: [*live.get(metric.name, ()), *self._history.get(metric.name, ())]
            for metric in DATABASE_METRICS
        }


class DatabaseCollector:
    """Exposes the metrics of one scrape. `UNAVAILABLE` means that the database is down."""

    def __init__(self, metrics: DatabaseMetrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(UP_METRIC, UP_HELP, value=1 if self._metrics else 0)
        for metric in DATABASE_METRICS:
            family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
            for *labels, value in self._metrics.get(metric.name, ()):
                family.add_metric(labels, float(value))
            if family.samples:
                yield family
