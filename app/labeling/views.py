"""Response bodies of labeling projects, made from their rows and from what was computed."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from app.datasets.tables import Dataset
from app.jobs.views import completed_fraction
from app.labeling.pools import FittedSuggestions, Pool, PoolText
from app.labeling.repository import LabelingCounts, LabelTextCounts
from app.labeling.resolved_labels import LabelValue, ResolvedLabel
from app.labeling.schemas import (
    AnnotationView,
    AnnotatorAgreementView,
    AnnotatorCount,
    ChosenTextReason,
    LabelCount,
    LabelingListItem,
    LabelingView,
    LabelTypeSpec,
    LeasedText,
    NearestLabeledText,
    SuggestionAccuracyView,
    SuggestionView,
    VectorComputationState,
    VectorComputationView,
)
from app.labeling.tables import LabelingAnnotation, LabelingProject
from app.queue.enums import JobState
from app.queue.tables import Job

if TYPE_CHECKING:
    from lora_core.active_learning.label_suggestions import SuggestionModel

_LISTED_CHARACTERS = 2_000  # of a text in a list
_NEAREST_CHARACTERS = 200  # of a similar text
_VECTORS_REMOVED = "The vectors were deleted or damaged. Compute them again with `retry_vectors`."


def project_url_path(name: str) -> str:
    """Return the path of a project."""
    return f"/v1/labeling/{name}"


def dataset_ref(dataset: Dataset) -> str:
    """Return the reference of a dataset: `reviews-to-predict:1`."""
    return f"{dataset.name}:{dataset.version}"


# -- Projects -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ProjectViewData:
    """What the view of a project shows beside its row."""

    dataset: Dataset
    job: Job | None
    counts: LabelingCounts
    annotators: Sequence[tuple[str, int, int]] = ()  # name, labeled, skipped
    tallies: Sequence[LabelTextCounts] = ()  # of all labels
    pairs: Sequence[tuple[LabelValue, LabelValue]] = ()  # texts with two annotators
    fitted: FittedSuggestions | None = field(default=None)


def project_list_item(
    project: LabelingProject, dataset: Dataset, counts: LabelingCounts
) -> LabelingListItem:
    return LabelingListItem(**_listed(project, dataset, counts))


def project_view(project: LabelingProject, facts: ProjectViewData) -> LabelingView:
    fitted = facts.fitted
    accuracy = None if fitted is None else fitted.accuracy
    return LabelingView(
        **_listed(project, facts.dataset, facts.counts),
        dataset_deleted=facts.dataset.deleted_at is not None,
        paired=facts.dataset.text_pair_column is not None,
        base=project.base,
        random_share=project.random_share,
        overlap=project.overlap,
        seed=project.seed,
        labels=_label_counts(project.labels, facts.tallies),
        annotators=[
            AnnotatorCount(name=name, labeled=labeled, skipped=skipped)
            for name, labeled, skipped in facts.annotators
        ],
        random_labeled=sum(each.random for each in facts.tallies),
        vectors=_vectors_view(facts.job),
        suggestions_from=len(fitted.labels) if fitted and fitted.model else None,
        accuracy=None if accuracy is None else SuggestionAccuracyView.model_validate(accuracy),
        agreement=_agreement_view(facts.pairs),
    )


def _listed(project: LabelingProject, dataset: Dataset, counts: LabelingCounts) -> dict[str, Any]:
    return {
        "id": project.id,
        "name": project.name,
        "dataset": dataset_ref(dataset),
        "task": LabelTypeSpec.model_validate({"type": project.task, "ordered": project.ordered}),
        "texts": dataset.rows,
        "labeled": counts.labeled,
        "skipped": counts.skipped,
        "created_at": project.created_at,
    }


def _label_counts(names: Sequence[str], tallies: Sequence[LabelTextCounts]) -> list[LabelCount]:
    counts: Counter[str] = Counter()
    for value, texts, _ in tallies:
        if not isinstance(value, int | float):
            counts.update(dict.fromkeys([value] if isinstance(value, str) else value, texts))
    return [LabelCount(name=name, texts=counts[name]) for name in names]


def _agreement_view(
    pairs: Sequence[tuple[LabelValue, LabelValue]],
) -> AnnotatorAgreementView | None:
    if not pairs:
        return None
    from lora_core.active_learning.agreement import cohen_kappa

    return AnnotatorAgreementView(kappa=cohen_kappa(pairs), texts=len(pairs))


def _vectors_view(job: Job | None) -> VectorComputationView:
    if job is None or (job.state == JobState.SUCCEEDED and job.artifact_id is None):
        job_id = None if job is None else job.id
        return VectorComputationView(
            state=VectorComputationState.FAILED, job=job_id, progress=None, error=_VECTORS_REMOVED
        )
    states = {
        JobState.QUEUED: VectorComputationState.QUEUED,
        JobState.RUNNING: VectorComputationState.RUNNING,
        JobState.SUCCEEDED: VectorComputationState.READY,
    }
    state = states.get(JobState(job.state), VectorComputationState.FAILED)
    error = None
    if state is VectorComputationState.FAILED:
        error = job.error_message or f"The job was {job.state}."
    return VectorComputationView(
        state=state, job=job.id, progress=completed_fraction(job), error=error
    )


# -- Texts to label -------------------------------------------------------------------------------


@dataclass(frozen=True)
class TextWithSuggestion:
    """A text to label, with what the labels so far say about it."""

    row: int
    text: PoolText
    reason: ChosenTextReason
    suggested: LabelValue | None
    score: float | None
    nearest: tuple[tuple[ResolvedLabel, PoolText], ...]

    @classmethod
    def of(
        cls,
        pool: Pool,
        fitted: FittedSuggestions | None,
        index: int,
        reason: ChosenTextReason,
        *,
        own_only: str | None,
    ) -> Self:
        """Describe a text of a pool; with `own_only`, by similar texts that this key labeled."""
        suggested, score = None, None
        nearest: tuple[tuple[ResolvedLabel, PoolText], ...] = ()
        if fitted is not None and pool.vectors is not None:
            if fitted.model is not None:
                suggested, score = _suggest(fitted.model, pool, index)
            nearest = _nearest(fitted, pool, index, own_only)
        row = int(pool.texts.rows[index])
        return cls(row, pool.texts[index], reason, suggested, score, nearest)

    @property
    def nearest_rows(self) -> list[int]:
        """The rows of the similar texts."""
        return [label.row for label, _ in self.nearest]

    def view(self, labels: Sequence[str], expires_at: float, hidden: Collection[int]) -> LeasedText:
        """Return the response body; texts in `hidden` rows are left out."""
        suggestion = None
        if self.suggested is not None:
            suggestion = SuggestionView(**label_fields(self.suggested, labels), score=self.score)
        return LeasedText(
            row=self.row,
            text=self.text.text,
            text_pair=self.text.text_pair,
            reason=self.reason,
            suggestion=suggestion,
            nearest=[
                NearestLabeledText(
                    row=label.row,
                    text=text.text[:_NEAREST_CHARACTERS],
                    **label_fields(label.value, labels),
                )
                for label, text in self.nearest
                if label.row not in hidden
            ],
            lease_expires_at=expires_at,
        )


def _suggest(model: "SuggestionModel", pool: Pool, index: int) -> tuple[LabelValue, float | None]:
    """Return the suggested label, and the probability of its least certain decision."""
    vectors = pool.vectors
    assert vectors is not None  # noqa: S101 - the caller has checked it
    [suggested] = model.predict(vectors[[index]])
    [scores] = model.scores(vectors[[index]])
    match pool.task:
        case "single_label":
            return suggested, float(scores.max())
        case "multi_label":
            from lora_core.active_learning.label_suggestions import THRESHOLD

            return suggested, float(np.where(scores >= THRESHOLD, scores, 1 - scores).min())
        case "regression":
            return suggested, None


def _nearest(
    fitted: FittedSuggestions, pool: Pool, index: int, own_only: str | None
) -> tuple[tuple[ResolvedLabel, PoolText], ...]:
    from lora_core.active_learning.label_suggestions import find_k_nearest_labeled_rows

    assert pool.vectors is not None  # noqa: S101 - the caller has checked it
    by_index = {
        labeled: label
        for labeled, label in zip(fitted.indices.tolist(), fitted.labels, strict=True)
        if own_only is None or label.is_of_key(own_only)
    }
    found = find_k_nearest_labeled_rows(pool.vectors, index, list(by_index))
    return tuple((by_index[each], pool.texts[each]) for each in found)


# -- Annotations ----------------------------------------------------------------------------------


def label_fields(value: LabelValue, labels: Sequence[str]) -> dict[str, Any]:
    """Return a label in the field of its task; several labels in the order of `labels`."""
    if isinstance(value, frozenset):
        return {"labels": [name for name in labels if name in value]}
    return {"label": value} if isinstance(value, str) else {"value": value}


def annotation_view(annotation: LabelingAnnotation, text: PoolText | None = None) -> AnnotationView:
    """Return what an annotator says of a text, with the text."""
    value = annotation.value
    fields: dict[str, Any] = {}
    if isinstance(value, list):
        fields["labels"] = value
    elif value is not None:
        fields["label" if isinstance(value, str) else "value"] = value
    return AnnotationView(
        id=annotation.id,
        row=annotation.row,
        text=None if text is None else text.text[:_LISTED_CHARACTERS],
        skipped=annotation.skipped,
        annotator=annotation.annotator,
        reason=ChosenTextReason(annotation.reason),
        suggested=annotation.suggested,
        at=annotation.at,
        **fields,
    )
