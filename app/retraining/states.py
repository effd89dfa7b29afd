"""The states of a retraining run, what started it, and why its version was not promoted.

    collecting ──► searching ──► training ──► evaluating ──► promoted | shadowed
                   (if the rule
                    has a search)

From each state before the last, a run may also end as failed or cancelled; and as skipped, if
there is nothing new to train on or another version went into production.
"""

from enum import StrEnum


class RetrainingState(StrEnum):
    """The state of a run. Final states never change."""

    COLLECTING = "collecting"  # the texts for training and evaluation
    SEARCHING = "searching"  # a sweep runs
    TRAINING = "training"  # the job that makes the new version runs
    EVALUATING = "evaluating"  # both versions predict the evaluation texts
    PROMOTED = "promoted"
    SHADOWED = "shadowed"  # the new version has the alias `shadow`
    SKIPPED = "skipped"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether the run has ended."""
        return self not in ACTIVE_STATES


ACTIVE_STATES = (
    RetrainingState.COLLECTING,
    RetrainingState.SEARCHING,
    RetrainingState.TRAINING,
    RetrainingState.EVALUATING,
)


class Trigger(StrEnum):
    """What started a run."""

    NEW_LABELS = "new_labels"
    TIME = "time"
    REQUEST = "request"


class NotPromotedReason(StrEnum):
    """Why the new version was not promoted, or nothing was trained."""

    NOT_BETTER = "not_better"  # no significant lead on all texts
    TOO_FEW_TEXTS = "too_few_texts"
    WORSE_ON_TEST = "worse_on_test"
    WORSE_ON_LIVE = "worse_on_live"
    PRODUCTION_CHANGED = "production_changed"
    NOTHING_NEW = "nothing_new"  # to train on
