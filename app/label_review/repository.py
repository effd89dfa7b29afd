"""Queries on suspect labels, kept labels and corrections."""

from collections.abc import Collection, Iterable
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.auth.tables import ApiKey
from app.database.base import read_clock
from app.datasets.tables import Dataset
from app.label_review.errors import DatasetNotCorrected
from app.label_review.tables import ConfirmedLabelDigest, DatasetCorrection, StoredSuspects
from lora_core.data.label_review_schemas import (
    SUSPECTS_VERSION,
    CorrectionResult,
    SuspectLabelReport,
)


def find_suspect_report(
    session: Session, dataset_id: UUID, target: str | None
) -> SuspectLabelReport | None:
    """Return the stored report on a dataset, unless an older method made it."""
    stored = session.get(StoredSuspects, (dataset_id, target or ""))
    if stored is None or stored.report["version"] != SUSPECTS_VERSION:
        return None
    return SuspectLabelReport.model_validate(stored.report)


def save_suspect_report(session: Session, dataset_id: UUID, report: SuspectLabelReport) -> None:
    """Store a report in place of an earlier one. The caller has locked the dataset."""
    session.merge(
        StoredSuspects(
            dataset_id=dataset_id,
            target=report.target or "",
            report=report.model_dump(mode="json"),
            created_at=read_clock(session),
        )
    )


def find_confirmed_digests(session: Session, name: str, digests: Collection[str]) -> frozenset[str]:
    """Return those of the digests that were kept in a version of a dataset."""
    statement = select(ConfirmedLabelDigest.digest).where(
        ConfirmedLabelDigest.dataset_name == name, ConfirmedLabelDigest.digest.in_(digests)
    )
    return frozenset(session.scalars(statement))


def count_confirmed_labels(session: Session, name: str) -> int:
    """Return how many labels of a dataset were kept."""
    statement = select(func.count()).where(ConfirmedLabelDigest.dataset_name == name)
    return session.scalars(statement).one()


def add_confirmed_labels(
    session: Session, name: str, digests: Iterable[str], created_by: UUID
) -> None:
    """Remember labels that were not kept before. The caller holds the lock of the name."""
    for digest in digests:
        session.add(ConfirmedLabelDigest(dataset_name=name, digest=digest, created_by=created_by))
    session.flush()


def add_dataset_correction(
    session: Session, dataset: Dataset, source: Dataset, result: CorrectionResult
) -> DatasetCorrection:
    """Store where a new version comes from."""
    correction = DatasetCorrection(
        dataset_id=dataset.id,
        corrected_from=source.id,
        created_by=dataset.created_by,
        changes=result.model_dump(mode="json", include={"changes", "left_out"}),
        kept=len(result.kept),
    )
    session.add(correction)
    session.flush()
    return correction


def find_dataset_correction(session: Session, dataset_id: UUID) -> DatasetCorrection | None:
    """Return the correction that made a version; None if it was uploaded."""
    return session.get(DatasetCorrection, dataset_id)


def get_dataset_correction(session: Session, dataset: Dataset) -> DatasetCorrection:
    """Return the correction that made a version. Raises `DatasetNotCorrected`."""
    correction = find_dataset_correction(session, dataset.id)
    if correction is None:
        raise DatasetNotCorrected(ref=f"{dataset.name}:{dataset.version}")
    return correction


def get_source_dataset(session: Session, correction: DatasetCorrection) -> Dataset:
    """Return the version that was corrected, which may have been deleted since."""
    return session.get_one(Dataset, correction.corrected_from)


def get_api_key_name(session: Session, key_id: UUID) -> str:
    """Return the name of an API key."""
    return session.get_one(ApiKey, key_id).name
