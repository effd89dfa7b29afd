"""Snapshots of sweeps read from the database, and their export.

A page that shows a running sweep asks every two seconds, while most trials wait or have ended.
Snapshots are cached, and only the trials whose status changed are loaded again.
"""

import csv
import io
import json
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from threading import Lock
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy.orm import Session

from app.csv_injection import escape_formula
from app.database.base import JsonObject
from app.jobs.results import comparison
from app.jobs.results.comparison import SplitCorrectness
from app.queue.enums import JobState
from app.queue.tables import Job
from app.sweeps import repository
from app.sweeps.repository import TrialStatus
from app.sweeps.search_space import SearchSpace
from app.sweeps.snapshot import SPLITS, SweepSnapshot, TrialSnapshot
from app.sweeps.states import TrialState
from app.sweeps.tables import Sweep, Trial
from lora_core.specs.method import HeadMode, LayerRole, LoraSpec
from lora_core.tasks.metric_info import METRICS, main_metric

MAX_CACHED_SNAPSHOTS = 4

_SweepFingerprint = tuple[str | None, ...]
_StatusesByTrial = Mapping[int, list[TrialStatus]]  # by number: the statuses at each rung
_ReadTrials = Callable[[list[int] | None], Iterable[TrialSnapshot]]  # these numbers; None: all
_TrialRow = tuple[Trial, Job | None]


class _CachedSnapshot(NamedTuple):
    fingerprint: _SweepFingerprint
    statuses: _StatusesByTrial
    snapshot: SweepSnapshot


class _SnapshotCache:
    """Least recently stored snapshots are evicted. Safe to share between threads."""

    def __init__(self) -> None:
        self._entries: OrderedDict[UUID, _CachedSnapshot] = OrderedDict()
        self._lock = Lock()

    def get(self, sweep_id: UUID) -> _CachedSnapshot | None:
        with self._lock:
            return self._entries.get(sweep_id)

    def put(self, sweep_id: UUID, entry: _CachedSnapshot) -> None:
        with self._lock:
            self._entries[sweep_id] = entry
            self._entries.move_to_end(sweep_id)
            while len(self._entries) > MAX_CACHED_SNAPSHOTS:
                self._entries.popitem(last=False)


_cache = _SnapshotCache()


def read_cached_snapshot(session: Session, sweep: Sweep) -> SweepSnapshot:
    """Return the sweep with every trial at its last rung: the same object while nothing changes.

    If trials have changed since, only those are read again.
    """
    fingerprint = (sweep.name, sweep.state, sweep.strategy["type"], sweep.objective)
    statuses = _statuses_by_trial(session, sweep.id)
    cached = _cache.get(sweep.id)
    if cached is not None and (cached.fingerprint, cached.statuses) == (fingerprint, statuses):
        return cached.snapshot
    snapshot = SweepSnapshot(
        name=sweep.name or str(sweep.id),
        state=sweep.state,
        strategy=sweep.strategy["type"],
        objective=sweep.objective,
        fields=SearchSpace.from_pairs(sweep.space).fields,
        trials=tuple(_refresh(statuses, cached, partial(_read_trials, session, sweep))),
        main_metric=main_metric(sweep.job),
    )
    _cache.put(sweep.id, _CachedSnapshot(fingerprint, statuses, snapshot))
    return snapshot


def _statuses_by_trial(session: Session, sweep_id: UUID) -> _StatusesByTrial:
    statuses: defaultdict[int, list[TrialStatus]] = defaultdict(list)
    for status in repository.list_trial_statuses(session, sweep_id):
        statuses[status.number].append(status)
    return dict(sorted(statuses.items()))


def _refresh(
    statuses: _StatusesByTrial, cached: _CachedSnapshot | None, read_trials: _ReadTrials
) -> Iterator[TrialSnapshot]:
    if cached is None:
        yield from read_trials(None)
        return
    changed = [
        number for number, current in statuses.items() if cached.statuses.get(number) != current
    ]
    trials = {trial.number: trial for trial in (*cached.snapshot.trials, *read_trials(changed))}
    yield from (trials[number] for number in statuses)


def _read_trials(
    session: Session, sweep: Sweep, numbers: Collection[int] | None
) -> Iterator[TrialSnapshot]:
    rows = repository.list_trials_with_jobs(session, sweep.id, numbers=numbers)
    correctness = comparison.get_correctness_by_job(
        session, [job.id for _, job in rows if job is not None]
    )
    fields = SearchSpace.from_pairs(sweep.space).fields
    for _, rungs in groupby(rows, key=lambda row: row[0].number):
        yield _trial_snapshot(list(rungs), fields, correctness)


def _trial_snapshot(
    rungs: Sequence[_TrialRow],
    fields: Sequence[str],
    correctness: Mapping[UUID, Mapping[str, SplitCorrectness]],
) -> TrialSnapshot:
    trial, job = rungs[-1]
    # The results of a rung are shown until the next rung has ended.
    finished = next((each for _, each in reversed(rungs) if _succeeded(each)), None)
    seconds = [job.running_seconds for _, job in rungs if job is not None]
    spec: JsonObject = trial.job_columns.get("spec", {})
    budget = (spec if finished is None else finished.spec).get("trial")
    return TrialSnapshot(
        number=trial.number,
        settings={field: trial.settings[field] for field in fields},
        spec=spec,
        state=_state(trial, job),
        budget=1.0 if budget is None else budget["budget"],
        trainable_parameters=_trainable_parameters(trial, job),
        seconds=sum(seconds) if any(seconds) else None,
        metrics=_metrics(finished),
        correctness=correctness[finished.id] if finished is not None else {},
        error=trial.problem or (job.error_message if job is not None else None),
        job_id=str(job.id) if job is not None else None,
    )


def _succeeded(job: Job | None) -> bool:
    return job is not None and job.state == JobState.SUCCEEDED


def _state(trial: Trial, job: Job | None) -> str:
    if trial.problem is not None:
        return TrialState.FAILED
    return TrialState.WAITING if job is None else job.state


def _trainable_parameters(trial: Trial, job: Job | None) -> int:
    """Return the count measured by the run, or the planned one until the run has ended."""
    summary: JsonObject = (job.summary if job is not None else None) or {}
    planned = trial.job_columns.get("plan", {}).get("parameters", {}).get("trainable", 0)
    return int(summary.get("trainable_parameters", planned))


def _metrics(job: Job | None) -> dict[str, dict[str, float]]:
    summary: dict[str, Any] = (job.summary if job is not None else None) or {}
    return {
        split: {name: summary[split][name] for name in METRICS if name in summary[split]}
        for split in SPLITS
        if split in summary
    }


# -- Export of the trials as CSV, and as the `results.txt` of "LoRA from scratch" -----------------


_BLOCK_RULE = "-" * 48
_ACCURACY_LABELS = ("Train acc: ", "Val acc:   ", "Test acc:  ")  # in the order of SPLITS


def to_csv(snapshot: SweepSnapshot) -> str:
    """Return a CSV file with a header and a row per trial.

    Columns: number, state, the fields of the space, budget, trainable_parameters, seconds, each
    metric that any trial has (`validation_accuracy`), job_id, error. Unknown values are empty,
    lists are written as `query+value`, booleans as in JSON. A text that a spreadsheet would
    evaluate as a formula is prefixed with an apostrophe.
    """
    columns = [
        (split, name)
        for split in SPLITS
        for name in METRICS
        if any(trial.metric(split, name) is not None for trial in snapshot.trials)
    ]
    text = io.StringIO()
    # Lines end in \r\n (RFC 4180). Python 3.11 quotes a lone \r in a value only with that setting.
    writer = csv.writer(text)
    writer.writerow(
        [
            *("number", "state", *snapshot.fields, "budget", "trainable_parameters", "seconds"),
            *(f"{split}_{name}" for split, name in columns),
            *("job_id", "error"),
        ]
    )
    for trial in snapshot.trials:
        row = [
            *(trial.number, trial.state),
            *(trial.settings.get(field) for field in snapshot.fields),
            *(trial.budget, trial.trainable_parameters, trial.seconds),
            *(trial.metric(split, name) for split, name in columns),
            *(trial.job_id, trial.error),
        ]
        writer.writerow([_csv_value(value) for value in row])
    return text.getvalue()


def to_lora_results_txt(snapshot: SweepSnapshot) -> str:
    """Return a block for each complete LoRA trial that has all three accuracies.

    The format, including the 48 dashes, is that of `03_finetune-lora-script.py` by Sebastian
    Raschka (Lightning AI, "LoRA from Scratch"), without its last two settings, `device` and
    `verbose`.
    """
    return "".join(f"{line}\n" for trial in snapshot.trials for line in _results_block(trial))


def _csv_value(value: Any) -> Any:
    if isinstance(value, list | tuple):
        value = "+".join(str(item) for item in value)
    elif isinstance(value, bool | dict):
        value = json.dumps(value, ensure_ascii=False)
    return escape_formula(value)


def _results_block(trial: TrialSnapshot) -> Iterator[str]:
    method = trial.spec.get("method", {})
    metrics = [trial.metric(split, "accuracy") for split in SPLITS]
    accuracies = [value for value in metrics if value is not None]
    is_lora = method.get("type") == "lora"
    if not trial.succeeded_at_full_budget or not is_lora or len(accuracies) < len(SPLITS):
        return
    yield _BLOCK_RULE
    for name, value in _block_settings(LoraSpec.model_validate(method)):
        yield f"{name}: {value}"
    for name, accuracy in zip(_ACCURACY_LABELS, accuracies, strict=True):
        yield f"{name}{100 * accuracy:.2f}%"
    yield _BLOCK_RULE


def _block_settings(method: LoraSpec) -> Iterator[tuple[str, object]]:
    yield "lora_r", method.r
    yield "lora_alpha", int(method.alpha) if method.alpha.is_integer() else method.alpha
    for role in LayerRole:
        yield f"lora_{role.value}", role in method.targets
    yield "lora_head", method.head is HeadMode.LORA
