"""Response bodies of sweeps, made from their rows and snapshots."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from app.sweeps import repository
from app.sweeps.schemas import (
    SelectedTrialView,
    SplitScoreView,
    SweepListItem,
    SweepResultView,
    SweepView,
    TrialCounts,
    TrialView,
    WinnerComparisonView,
)
from app.sweeps.snapshot import (
    SplitScore,
    SweepSnapshot,
    TrialSnapshot,
    WinnerAndCheapest,
    select_winner_and_cheapest,
)
from app.sweeps.states import SweepState
from app.sweeps.tables import Sweep


def sweep_view(session: Session, sweep: Sweep, *, result: SweepResultView | None) -> SweepView:
    """Return the response body of one sweep."""
    counts = repository.count_trials_by_state(session, [sweep.id])[sweep.id]
    return SweepView(
        **_list_fields(sweep, counts), job=sweep.job, space=dict(sweep.space), result=result
    )


def sweep_list_items(session: Session, sweeps: Sequence[Sweep]) -> list[SweepListItem]:
    """Return the list items of these sweeps."""
    counts = repository.count_trials_by_state(session, [sweep.id for sweep in sweeps])
    return [SweepListItem(**_list_fields(sweep, counts[sweep.id])) for sweep in sweeps]


def count_planned_trials(sweep: Sweep, counts: Mapping[str, int]) -> int:
    """Return the number of trials, with those that the strategy will propose later.

    `counts`: the trials in each state.
    """
    proposed = sum(counts.values())
    if sweep.state == SweepState.FINISHED:
        return proposed
    return max(proposed, sweep.strategy.get("trials") or 0)


def _list_fields(sweep: Sweep, counts: dict[str, int]) -> dict[str, Any]:
    return {
        "id": sweep.id,
        "name": sweep.name,
        "metadata": sweep.user_metadata,
        "state": SweepState(sweep.state),
        "strategy": sweep.strategy,
        "objective": sweep.objective,
        "max_parallel_jobs": sweep.max_parallel_jobs,
        "priority": sweep.priority,
        "trial_count": sum(counts.values()),
        "planned_trial_count": count_planned_trials(sweep, counts),
        "trial_counts": TrialCounts(**counts),
        "created_at": sweep.created_at,
        "finished_at": sweep.finished_at,
    }


def sweep_result_view(snapshot: SweepSnapshot) -> SweepResultView | None:
    """Return the winner and the trials within noise of it; None while no trial is complete."""
    selection = select_winner_and_cheapest(snapshot)
    if selection is None:
        return None
    by_number = {trial.number: trial for trial in snapshot.trials}
    return SweepResultView(
        winner=_selected_trial_view(by_number[selection.winner], selection, "winner"),
        cheapest=_selected_trial_view(by_number[selection.cheapest], selection, "cheapest"),
        within_noise=list(selection.within_noise),
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
            budget=trial.budget,
            trainable_parameters=trial.trainable_parameters,
            seconds=trial.seconds,
            metrics={split: dict(metrics) for split, metrics in trial.metrics.items()},
            reused=reused.get(trial.number, False),
            job_id=UUID(trial.job_id) if trial.job_id else None,
            error=trial.error,
        )
        for trial in snapshot.trials
    ]


def _selected_trial_view(
    trial: TrialSnapshot, selection: WinnerAndCheapest, which: str
) -> SelectedTrialView:
    def view(split: str) -> SplitScoreView | None:
        score: SplitScore | None = getattr(selection, f"{which}_{split}")
        return (
            None
            if score is None
            else SplitScoreView(
                **asdict(score), accuracy=score.value if score.metric == "accuracy" else None
            )
        )

    return SelectedTrialView(
        number=trial.number,
        settings=dict(trial.settings),
        job_id=UUID(trial.job_id) if trial.job_id else None,
        trainable_parameters=trial.trainable_parameters,
        validation=view("validation"),
        test=view("test"),
    )


def _comparison_view(selection: WinnerAndCheapest, split: str) -> WinnerComparisonView | None:
    compared = getattr(selection, split)
    if compared is None:
        return None
    return WinnerComparisonView(
        difference=compared.difference,
        low=compared.low,
        high=compared.high,
        significant=compared.significant,
        p=getattr(compared, "p", None),
        texts=compared.texts,
    )
