"""Snapshots of sweeps read from the database, and the response bodies made from them.

A page that shows a running sweep asks every two seconds, while most trials wait or have ended.
Snapshots are cached, and only the trials whose status changed are loaded again.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import groupby
from threading import Lock
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy.orm import Session

from app.database.base import JsonObject
from app.jobs.results import comparison
from app.jobs.results.comparison import SplitCorrectness
from app.queue.states import JobState
from app.queue.tables import Job
from app.sweeps import repository
from app.sweeps.repository import TrialStatus
from app.sweeps.schemas import (
    ComparisonView,
    RankedTrialView,
    SplitScoreView,
    TrialView,
    WinnerView,
)
from app.sweeps.search_space import SearchSpace
from app.sweeps.snapshot import METRICS, SPLITS, SweepSnapshot, TrialSnapshot
from app.sweeps.states import TrialState
from app.sweeps.tables import Sweep, Trial
from app.sweeps.winner import SplitScore, WinnerSelection, select_winner

MAX_CACHED_SNAPSHOTS = 4

SweepFingerprint = tuple[str | None, ...]
StatusesByTrial = Mapping[int, list[TrialStatus]]  # by number: the statuses at each rung
ReadTrials = Callable[[list[int] | None], Iterable[TrialSnapshot]]  # these numbers; None: all
TrialRow = tuple[Trial, Job | None]


class _CachedSnapshot(NamedTuple):
    fingerprint: SweepFingerprint
    statuses: StatusesByTrial
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


def read_snapshot(session: Session, sweep: Sweep) -> SweepSnapshot:
    """Return the sweep with every trial at its last rung: the same object while nothing changes."""
    return cached_snapshot(session, sweep, partial(_read_trials, session, sweep))


def cached_snapshot(session: Session, sweep: Sweep, read_trials: ReadTrials) -> SweepSnapshot:
    """Return the cached snapshot if it is current, else one in which changed trials are reread."""
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
        trials=tuple(_refresh(statuses, cached, read_trials)),
    )
    _cache.put(sweep.id, _CachedSnapshot(fingerprint, statuses, snapshot))
    return snapshot


def _statuses_by_trial(session: Session, sweep_id: UUID) -> StatusesByTrial:
    statuses: defaultdict[int, list[TrialStatus]] = defaultdict(list)
    for status in repository.trial_statuses(session, sweep_id):
        statuses[status.number].append(status)
    return dict(sorted(statuses.items()))


def _refresh(
    statuses: StatusesByTrial, cached: _CachedSnapshot | None, read_trials: ReadTrials
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
    rows = repository.trials_with_jobs(session, sweep.id, numbers=numbers)
    correctness = comparison.load_correctness(
        session, [job.id for _, job in rows if job is not None]
    )
    fields = SearchSpace.from_pairs(sweep.space).fields
    for _, rungs in groupby(rows, key=lambda row: row[0].number):
        yield _trial_snapshot(list(rungs), fields, correctness)


def _trial_snapshot(
    rungs: Sequence[TrialRow],
    fields: Sequence[str],
    correctness: Mapping[UUID, Mapping[str, SplitCorrectness]],
) -> TrialSnapshot:
    trial, job = rungs[-1]
    # The results of a rung are shown until the next rung has ended.
    finished = next((each for _, each in reversed(rungs) if _succeeded(each)), None)
    seconds = [job.running_seconds for _, job in rungs if job is not None]
    spec: JsonObject = trial.draft.get("spec", {})
    budget = (spec if finished is None else finished.spec).get("trial")
    return TrialSnapshot(
        number=trial.number,
        settings={field: trial.settings[field] for field in fields},
        spec=spec,
        state=_state(trial, job),
        budget=1.0 if budget is None else budget["share"],
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
    planned = trial.draft.get("plan", {}).get("parameters", {}).get("trainable", 0)
    return int(summary.get("trainable_parameters", planned))


def _metrics(job: Job | None) -> dict[str, dict[str, float]]:
    summary: dict[str, Any] = (job.summary if job is not None else None) or {}
    return {
        split: {name: summary[split][name] for name in METRICS if name in summary[split]}
        for split in SPLITS
        if split in summary
    }


def winner_view(snapshot: SweepSnapshot) -> WinnerView | None:
    """Return the winner and the trials within noise of it; None while no trial is complete."""
    selection = select_winner(snapshot)
    if selection is None:
        return None
    by_number = {trial.number: trial for trial in snapshot.trials}
    return WinnerView(
        winner=_ranked_trial_view(by_number[selection.winner], selection, "winner"),
        cheapest=_ranked_trial_view(by_number[selection.cheapest], selection, "cheapest"),
        near=list(selection.within_noise),
        compared=selection.compared,
        validation=_comparison_view(selection, "validation"),
        test=_comparison_view(selection, "test"),
    )


def trial_views(
    snapshot: SweepSnapshot, reused_flags: Sequence[tuple[int, bool]]
) -> list[TrialView]:
    """Return the response bodies of the trials; `reused_flags` as of the repository."""
    reused = dict(reused_flags)
    return [
        TrialView(
            number=trial.number,
            settings=dict(trial.settings),
            state=trial.state,
            share=trial.budget,
            trainable_parameters=trial.trainable_parameters,
            seconds=trial.seconds,
            figures={split: dict(metrics) for split, metrics in trial.metrics.items()},
            reused=reused.get(trial.number, False),
            job_id=UUID(trial.job_id) if trial.job_id else None,
            error=trial.error,
        )
        for trial in snapshot.trials
    ]


def _ranked_trial_view(
    trial: TrialSnapshot, selection: WinnerSelection, which: str
) -> RankedTrialView:
    def view(split: str) -> SplitScoreView | None:
        score: SplitScore | None = getattr(selection, f"{which}_{split}")
        return None if score is None else SplitScoreView(**asdict(score))

    return RankedTrialView(
        number=trial.number,
        settings=dict(trial.settings),
        job_id=UUID(trial.job_id) if trial.job_id else None,
        trainable_parameters=trial.trainable_parameters,
        validation=view("validation"),
        test=view("test"),
    )


def _comparison_view(selection: WinnerSelection, split: str) -> ComparisonView | None:
    compared = getattr(selection, split)
    if compared is None:
        return None
    return ComparisonView(
        difference=compared.difference,
        low=compared.low,
        high=compared.high,
        p=compared.p,
        texts=compared.texts,
    )
