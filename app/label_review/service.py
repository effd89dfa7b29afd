"""Operations on labels: find suspect ones, correct them in a new version, show what changed."""

import json
import shutil
from collections.abc import Sequence, Set
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path, PurePath

from sqlalchemy.orm import Session

from app import logging
from app.database.base import new_id, read_clock
from app.database.engines import Database, acquire_transaction_lock
from app.datasets import files
from app.datasets import repository as datasets
from app.datasets import service as dataset_service
from app.datasets.errors import TextForgottenMeanwhile, UploadTooLarge
from app.datasets.files import FileInspector, SelectedColumns
from app.datasets.tables import Dataset
from app.idempotency import service as idempotency
from app.idempotency.service import IdempotentRequest
from app.label_review import repository
from app.label_review.errors import (
    DatasetTargetRequired,
    DatasetVersionRequired,
    DatasetWithoutLabels,
    GivenLabelMismatch,
    LabelNotInDataset,
    StaleVersion,
    TargetNotFound,
    TooManyConfirmedLabels,
    WrongKindOfLabel,
)
from app.label_review.schemas import (
    CorrectionCreate,
    CorrectionDiff,
    Label,
    LabelCorrection,
    SuspectLabels,
    label_field_name,
    to_confirmed_rows,
)
from app.label_review.views import (
    confirmed_only_diff_view,
    correction_diff_view,
    label_view,
    suspects_view,
)
from app.privacy import repository as privacy
from app.privacy.text_hashes import TextHasher
from app.settings import Settings
from app.storage.store import Store
from lora_core import manifest
from lora_core.data.label_readers import LabelFormat
from lora_core.data.label_review_schemas import (
    ConfirmedLabel,
    CorrectionPlan,
    CorrectionResult,
    RequestedLabelChange,
    SuspectLabelReport,
)
from lora_core.specs.encoded_labels import encode_label, qualified_output_name
from lora_core.specs.task import TaskType
from lora_core.specs.text_input import text_or_pair

MAX_KEPT_LABELS = 50_000  # of all versions of a dataset
_MAX_LISTED = 20  # labels in an error


# -- Suspect labels -------------------------------------------------------------------------------


def find_stored_suspects(
    session: Session, *, settings: Settings, ref: str, target: str | None, limit: int
) -> SuspectLabels | None:
    """Return the suspect labels of a dataset if they have been computed.

    Raises `DatasetNotFound`, `DatasetWithoutLabels`, `DatasetTargetRequired`, `TargetNotFound`.
    """
    dataset = datasets.resolve_dataset(session, ref)
    _check_target(dataset, target)
    report = repository.find_suspect_report(session, dataset.id, target)
    return None if report is None else _without_kept(session, settings, dataset, report, limit)


def compute_and_store_suspects(
    database: Database,
    store: Store,
    *,
    settings: Settings,
    ref: str,
    target: str | None,
    limit: int,
) -> SuspectLabels:
    """Compute the suspect labels of a dataset, store them, and return them.

    Raises what `find_stored_suspects`, `fetch_dataset_file` and `FileInspector.suspects` raise.
    """
    with database.read() as session:
        dataset = datasets.resolve_dataset(session, ref)
        _check_target(dataset, target)
    report = dataset_service.build_file_inspector(store, settings, dataset).suspects(target)
    with database.write() as session:
        dataset = datasets.get_dataset(session, dataset.id, for_update=True)
        repository.save_suspect_report(session, dataset.id, report)
        return _without_kept(session, settings, dataset, report, limit)


def _without_kept(
    session: Session, settings: Settings, dataset: Dataset, report: SuspectLabelReport, limit: int
) -> SuspectLabels:
    kept: set[str] = set()
    if repository.count_confirmed_labels(session, dataset.name):  # otherwise no pepper is needed
        hasher = TextHasher.from_settings(settings)
        digests = {hasher.hash_text(each.digest): each.digest for each in report.suspects}
        kept = {
            digests[each]
            for each in repository.find_confirmed_digests(session, dataset.name, digests)
        }
    return suspects_view(dataset, report, kept, limit)


def _check_target(dataset: Dataset, target: str | None, **at: str) -> LabelFormat:
    """Return what the labels, or those of the target, are. `at`: the field that names the target.

    Raises `DatasetWithoutLabels`, `DatasetTargetRequired`, `TargetNotFound`.
    """
    ref, label_format = _ref(dataset), dataset.label_format
    if dataset.label_column is None:
        raise DatasetWithoutLabels(ref=ref)
    targets = [each.name for each in label_format.targets]
    if target is None:
        if targets:
            raise DatasetTargetRequired(ref=ref, targets=", ".join(targets), **at)
        return label_format
    if target not in targets:
        available = f"its targets are {', '.join(targets)}" if targets else "it has a single one"
        raise TargetNotFound(ref=ref, target=target, available=available, **at)
    return label_format.format_of_target(target)


# -- Corrections ----------------------------------------------------------------------------------


def correct_labels(
    database: Database,
    store: Store,
    *,
    settings: Settings,
    ref: str,
    body: CorrectionCreate,
    call: IdempotentRequest,
) -> tuple[CorrectionDiff, bool]:
    """Change labels in a new version of a dataset, and remember which ones were kept.

    Rows whose texts must be forgotten are left out of the new version.

    Returns (what changed, whether there is a new version): if labels are only kept, there is none.
    Raises the errors of `app.label_review.errors`, those in the file, `UploadQuotaExceeded`, and
    what `idempotency.reserve` raises; nothing is stored then.
    """
    with database.read() as session:
        idempotency.raise_if_replayed(session, call)
        source = datasets.resolve_dataset(session, ref)
        _check_version(session, source, ref, body)
        corrections = _corrections(source, body)
        forgotten = privacy.list_forgotten_hashes(session)
    directory = files.create_temporary_upload_dir(settings)
    try:
        file = dataset_service.build_file_inspector(store, settings, source)
        leave_out = _find_forgotten(file, forgotten, directory / "texts.jsonl")
        corrections = corrections.model_copy(update={"leave_out": leave_out})
        result = file.correct(corrections, directory)
        _check_given(source, body, result)
        if result.file is None:
            return _keep_only(database, settings, source, result, call), False
        dataset, file = _new_version(source, directory / result.file, settings, call)
        new = _NewVersion(source, dataset, file.file, result, forgotten)
        return _store(database, store, settings, new, call), True
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def get_dataset_diff(session: Session, ref: str) -> CorrectionDiff:
    """Return what a corrected version changed. Raises `DatasetNotFound`, `DatasetNotCorrected`."""
    dataset = datasets.resolve_dataset(session, ref)
    correction = repository.get_dataset_correction(session, dataset)
    source = repository.get_source_dataset(session, correction)
    by = repository.get_api_key_name(session, correction.created_by)
    return correction_diff_view(dataset, source, correction, by)


@dataclass(frozen=True)
class _NewVersion:
    """A version that is not stored yet."""

    source: Dataset
    dataset: Dataset
    file: Path
    result: CorrectionResult
    forgotten: Set[str]  # hashes of the texts that it leaves out


def _ref(dataset: Dataset) -> str:
    return f"{dataset.name}:{dataset.version}"


def _check_version(session: Session, source: Dataset, ref: str, body: CorrectionCreate) -> None:
    """Check that the caller saw this version, and that it is the newest one.

    Raises `DatasetVersionRequired`, `StaleVersion`.
    """
    shows_labels = not body.keep and all(each.given is not None for each in body.changes)
    if ref == source.name and not shows_labels:
        raise DatasetVersionRequired(name=source.name, ref=_ref(source))
    _raise_if_stale(session, source)


def _raise_if_stale(session: Session, source: Dataset) -> None:
    newest = datasets.resolve_dataset(session, source.name)
    if newest.id != source.id:
        raise StaleVersion(ref=_ref(source), newest=_ref(newest))


def _corrections(source: Dataset, body: CorrectionCreate) -> CorrectionPlan:
    """Return the changes in the form that the file's labels have. Raises what they do not fit."""
    changes = []
    for i, each in enumerate(body.changes):
        label_format = _check_target(source, each.target, at=f"changes.{i}.target")
        value = _sent_label(source, each, label_format.task, at=f"changes.{i}")
        if not body.new_label:
            _check_known(source, each, value, at=f"changes.{i}")
        changes.append(RequestedLabelChange(row=each.row, target=each.target, label=_encode(value)))
    keep = to_confirmed_rows(body.keep)
    for i, kept in enumerate(keep):
        if kept.target is not None or source.label_column is None:
            _check_target(source, kept.target, at=f"keep.{i}.target")
    return CorrectionPlan(
        changes=tuple(changes),
        keep=tuple(ConfirmedLabel(row=each.row, target=each.target) for each in keep),
    )


def _encode(value: Label) -> str:
    return encode_label(tuple(value) if isinstance(value, list) else value)


def _sent_label(source: Dataset, change: LabelCorrection, task: TaskType, *, at: str) -> Label:
    """Return the new label. Raises `WrongKindOfLabel`."""
    field, (sent,) = label_field_name(task), change.sent_label_fields
    if sent != field:
        raise WrongKindOfLabel(
            row=change.row, ref=_ref(source), task=task, field=field, sent=sent, at=f"{at}.{sent}"
        )
    value: Label = getattr(change, field)
    return value


def _check_known(source: Dataset, change: LabelCorrection, value: Label, *, at: str) -> None:
    """Raise `LabelNotInDataset` for a name that no row has."""
    known: dict[str, int] = source.profile["labels"]
    names = [] if isinstance(value, float) else [value] if isinstance(value, str) else value
    prefix = "" if change.target is None else qualified_output_name(change.target, "")
    for name in names:
        if prefix + name not in known:
            available = [each.removeprefix(prefix) for each in known if each.startswith(prefix)]
            listed = get_close_matches(name, available, cutoff=0.8) or available[:_MAX_LISTED]
            more = len(available) - len(listed)
            raise LabelNotInDataset(
                row=change.row,
                ref=_ref(source),
                label=name,
                available=", ".join(listed) + (f" and {more} more" if more else ""),
                at=f"{at}.{change.sent_label_fields[0]}",
            )


def _find_forgotten(file: FileInspector, forgotten: Set[str], texts: Path) -> Sequence[int]:
    """Return the numbers of the rows whose text, or one of a pair, must be forgotten.

    `texts` is a file to write. Raises what `FileInspector.extract_texts_to_jsonl` raises.
    """
    if not forgotten:  # then no pepper is needed
        return ()
    hasher = TextHasher.from_settings(file.settings)
    file.extract_texts_to_jsonl(texts)
    with texts.open(encoding="utf-8") as lines:
        return tuple(
            row
            for row, text, pair in map(json.loads, lines)
            if not forgotten.isdisjoint(hasher.hash_input(text_or_pair(text, pair)).all)
        )


def _check_given(source: Dataset, body: CorrectionCreate, result: CorrectionResult) -> None:
    """Raise `GivenLabelMismatch` if a row has another label than the caller saw."""
    before = {(each.row, each.target): each.before for each in result.changes}
    for i, each in enumerate(body.changes):
        label = before.get((each.row, each.target))
        if label is not None and each.given is not None and _encode(each.given) != label:
            label_format = _check_target(source, each.target)
            raise GivenLabelMismatch(
                row=each.row,
                ref=_ref(source),
                label=repr(label_view(label, label_format.task)),
                given=repr(each.given),
                at=f"changes.{i}.given",
            )


def _keep_only(
    database: Database,
    settings: Settings,
    source: Dataset,
    result: CorrectionResult,
    call: IdempotentRequest,
) -> CorrectionDiff:
    """Remember kept labels; there is nothing to change."""
    with database.write() as session:
        idempotency.reserve(session, call)
        acquire_transaction_lock(session, f"dataset {source.name}")
        source = datasets.get_dataset(session, source.id)
        _raise_if_stale(session, source)
        _add_kept(session, settings, source.name, result, call)
        by = repository.get_api_key_name(session, call.caller_id)
        view = confirmed_only_diff_view(source, by, read_clock(session), len(result.kept))
        idempotency.save_response(
            session, call, status=200, body=view, location=view.dataset_location
        )
    logging.write_audit_line("labels_kept", dataset=view.ref, kept=view.kept)
    return view


def _new_version(
    source: Dataset, file: Path, settings: Settings, call: IdempotentRequest
) -> tuple[Dataset, FileInspector]:
    """Return the next version, validated like an upload, and its file."""
    size = file.stat().st_size
    if size > settings.max_upload_bytes:
        raise UploadTooLarge(limit=settings.max_upload_bytes)
    same_format = file.suffix == source.suffix
    filename = source.filename
    if not same_format:
        filename = str(PurePath(filename).with_suffix(file.suffix))
    dataset = Dataset(
        id=new_id(),
        created_by=call.caller_id,
        name=source.name,
        title=source.title,
        filename=filename,
        suffix=file.suffix,
        sha256=manifest.file_sha256(file),
        bytes=size,
        text_column=source.text_column,
        text_pair_column=source.text_pair_column,
        label_column=source.label_column,
        split_column=source.split_column,
        sheet=source.sheet if same_format else None,
    )
    columns = SelectedColumns(
        dataset.text_column,
        dataset.label_column,
        source.overview["split_column"],
        dataset.sheet,
        dataset.text_pair_column,
        source.label_format,
    )
    inspector = FileInspector(file, filename, columns, settings)
    dataset_service.validate_and_set_profile(dataset, inspector)
    return dataset, inspector


def _store(
    database: Database,
    store: Store,
    settings: Settings,
    new: _NewVersion,
    call: IdempotentRequest,
) -> CorrectionDiff:
    """Store the new version, where it comes from, and what was kept."""
    dataset, result = new.dataset, new.result
    # Before the transaction, so that other writers do not wait for the store.
    store.move_file_into_store(new.file, files.store_key(dataset))
    delete_file = True
    try:
        with database.write() as session:
            idempotency.reserve(session, call)
            privacy.lock_text_storage(session)
            acquire_transaction_lock(session, f"datasets of {dataset.created_by}")
            acquire_transaction_lock(session, f"dataset {dataset.name}")
            datasets.lock_against_deletion(session, new.source.id)
            source = datasets.get_dataset(session, new.source.id)
            _raise_if_stale(session, source)
            if privacy.list_forgotten_hashes(session) != new.forgotten:
                raise TextForgottenMeanwhile(name=source.name)
            dataset_service.check_quota(session, dataset, settings)
            datasets.add_dataset_version(session, dataset)
            correction = repository.add_dataset_correction(session, dataset, source, result)
            _add_kept(session, settings, dataset.name, result, call)
            by = repository.get_api_key_name(session, dataset.created_by)
            view = correction_diff_view(dataset, source, correction, by)
            idempotency.save_response(
                session, call, status=201, body=view, location=view.dataset_location
            )
            # A commit that fails may still have succeeded; garbage collection then decides.
            delete_file = False
    finally:
        if delete_file:
            store.delete_best_effort(files.store_key(dataset))
    logging.write_audit_line(
        "labels_corrected", dataset=view.ref, source=_ref(source), changes=len(view.changes)
    )
    return view


def _add_kept(
    session: Session,
    settings: Settings,
    name: str,
    result: CorrectionResult,
    call: IdempotentRequest,
) -> None:
    """Remember kept labels by keyed hashes of their digests: these outlive the versions with the
    texts, and the plain digest of a short text can be guessed.

    Raises `TooManyConfirmedLabels`.
    """
    if not result.kept:
        return
    hasher = TextHasher.from_settings(settings)
    digests = {hasher.hash_text(each) for each in result.kept}
    new = digests - repository.find_confirmed_digests(session, name, digests)
    count = repository.count_confirmed_labels(session, name)
    if count + len(new) > MAX_KEPT_LABELS:
        raise TooManyConfirmedLabels(name=name, count=count, limit=MAX_KEPT_LABELS)
    repository.add_confirmed_labels(session, name, new, call.caller_id)
