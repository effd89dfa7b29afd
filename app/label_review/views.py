"""Response bodies of suspect labels and corrections."""

from collections.abc import Collection, Sequence
from typing import Any

from app.datasets.tables import Dataset
from app.label_review.schemas import (
    CorrectionDiff,
    Label,
    LabelChangeView,
    SimilarRow,
    SuspectLabel,
    SuspectLabels,
)
from app.label_review.tables import DatasetCorrection
from lora_core.data.label_readers import LabelFormat
from lora_core.data.label_review_schemas import AppliedLabelChange, SuspectLabelReport
from lora_core.specs.encoded_labels import decode_label
from lora_core.specs.task import TaskType


def label_view(label: str, task: TaskType) -> Label:
    """Return the label of a row as JSON."""
    value = decode_label(label, task)
    return list(value) if isinstance(value, tuple) else value


def suspects_view(
    dataset: Dataset, report: SuspectLabelReport, kept: Collection[str], limit: int
) -> SuspectLabels:
    """Return the most suspect rows whose labels were not kept."""
    listed = [each for each in report.suspects if each.digest not in kept]
    facts = report.model_dump(exclude={"version", "suspects"})
    return SuspectLabels(
        **facts,
        ref=f"{dataset.name}:{dataset.version}",
        kept=len(report.suspects) - len(listed),
        data=[
            SuspectLabel(
                **each.model_dump(
                    include={*("row", "text", "text_pair", "characters", "split"),
                             *("names", "confidence", "score")}
                ),
                given=label_view(each.label, report.task),
                proposed=label_view(each.proposed, report.task),
                nearest=[
                    SimilarRow(
                        row=near.row,
                        text=near.text,
                        text_pair=near.text_pair,
                        label=label_view(near.label or "", report.task),
                    )
                    for near in each.nearest
                ],
            )
            for each in listed[:limit]
        ],
    )  # fmt: skip


def correction_diff_view(
    dataset: Dataset, source: Dataset, correction: DatasetCorrection, by: str
) -> CorrectionDiff:
    """Return the diff of a version that corrections made."""
    changes = [AppliedLabelChange.model_validate(each) for each in correction.changes["changes"]]
    return _diff(
        dataset,
        corrected_from=f"{source.name}:{source.version}",
        corrected_by=by,
        created_at=correction.created_at,
        changes=_changes(changes, dataset.label_format),
        forgotten_rows=correction.changes.get("left_out", []),
        kept=correction.kept,
    )


def confirmed_only_diff_view(dataset: Dataset, by: str, at: float, kept: int) -> CorrectionDiff:
    """Return the response to a request that only kept labels."""
    return _diff(
        dataset,
        corrected_from=None,
        corrected_by=by,
        created_at=at,
        changes=[],
        forgotten_rows=[],
        kept=kept,
    )


def _diff(dataset: Dataset, **fields: Any) -> CorrectionDiff:
    ref = f"{dataset.name}:{dataset.version}"
    return CorrectionDiff(id=dataset.id, ref=ref, filename=dataset.filename, **fields)


def _changes(
    changes: Sequence[AppliedLabelChange], label_format: LabelFormat
) -> list[LabelChangeView]:
    return [
        LabelChangeView(
            row=each.row,
            target=each.target,
            before=label_view(each.before, task),
            after=label_view(each.after, task),
        )
        for each in changes
        for task in [label_format.task if each.target is None
                     else label_format.format_of_target(each.target).task]
    ]  # fmt: skip
