"""The first step of a run: collect its texts, store them, and start its training.

Files are read and written before the transaction, which stores both datasets, the job and the next
state together. A worker that dies in between leaves files without rows, which garbage collection
deletes, and the run as it was.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from sqlalchemy.orm import Session

from app.database.base import new_id
from app.database.engines import acquire_transaction_lock
from app.datasets import files
from app.datasets import repository as datasets
from app.datasets import service as dataset_service
from app.datasets.errors import UploadTooLarge
from app.datasets.files import FileInspector, SelectedColumns
from app.datasets.tables import Dataset
from app.feedback import repository as feedback
from app.feedback.tables import Feedback
from app.jobs import pretrained_bases
from app.jobs import service as jobs
from app.jobs.pretrained_bases import ResolvedBase
from app.jobs.resolve import JobResolver
from app.privacy import repository as privacy
from app.privacy.text_hashes import TextHasher
from app.queue.tables import Job
from app.registry.tables import RegisteredModel
from app.resources import Resources
from app.retraining import repository, transitions
from app.retraining.errors import PepperDiffers
from app.retraining.feedback_labels import resolve_feedback_labels
from app.retraining.merged_texts import (
    PAIR,
    SPLIT,
    TEXT,
    MergedTextCounts,
    build_merged_data_spec,
    build_merged_file_task_spec,
    write_training_and_evaluation_files,
)
from app.retraining.production_version import (
    TrainedVersion,
    list_local_data_files,
    read_production_version,
)
from app.retraining.states import NotPromotedReason, RetrainingState
from app.retraining.tables import RetrainingRun
from app.sandbox import runner
from app.settings import Settings
from lora_core import child_protocol, manifest
from lora_core.data import labeled_split_rows_file
from lora_core.data.label_readers import LabelFormat
from lora_core.errors import LoraCoreError
from lora_core.errors.data import DataTooLarge
from lora_core.failpoints import failpoint
from lora_core.specs.data import DataSpec
from lora_core.specs.text_input import text_or_pair
from lora_core.specs.train import TrainSpec

MAX_FEEDBACK = 100_000  # rows on a model that are read, the newest
TRAINING_SUFFIX, EVALUATION_SUFFIX = "-retraining", "-evaluation"  # of the names of datasets
_MAX_NAME, _MAX_TITLE = 64, 255  # characters
_LABEL_COLUMN = DataSpec().label_column


@dataclass(frozen=True)
class _Inputs:
    """What a run reads from the database."""

    run: RetrainingRun
    model: str
    production: TrainedVersion
    feedback: Sequence[Feedback]  # the oldest first
    forgotten: frozenset[str]  # hashes


@dataclass(frozen=True)
class _NewDataset:
    """A dataset that is not stored yet, and its file."""

    row: Dataset
    file: Path


def collect_and_start_training(resources: Resources, run_id: UUID, claim: int) -> None:
    """Collect the texts of a run, and start its training or its search.

    Raises what reading the data, making a dataset and resolving a job raise; nothing is stored
    then.
    """
    with resources.database.read() as session:
        inputs = _read_inputs(session, run_id)
    if inputs.production.number != inputs.run.current_number:
        _skip(resources, inputs.run, claim, NotPromotedReason.PRODUCTION_CHANGED)
        return
    directory = files.create_temporary_upload_dir(resources.settings)
    try:
        training_file, evaluation_file = directory / "texts.jsonl", directory / "evaluation.jsonl"
        merged = _write_files(resources, inputs, directory, training_file, evaluation_file)
        if not merged.counts.new:
            _skip(resources, inputs.run, claim, NotPromotedReason.NOTHING_NEW, merged)
            return
        training, evaluation = _make_datasets(resources, inputs, training_file, evaluation_file)
        base = _resolve_base(resources, inputs.production.spec)
        _store(resources, inputs, claim, merged, (training, evaluation), base)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def training_spec(production: TrainedVersion, source: str) -> TrainSpec:
    """Return the run of production's job on a file with merged texts, by its dataset's name.

    The file is one of `write_training_and_evaluation_files`.
    """
    spec = production.spec
    return spec.model_copy(
        update={
            "task": build_merged_file_task_spec(spec.task),
            "data": build_merged_data_spec(spec.data, source),
            "result": spec.result.model_copy(update={"model": True}),
            "trial": None,
        }
    )


def _read_inputs(session: Session, run_id: UUID) -> _Inputs:
    run = session.get_one(RetrainingRun, run_id)
    model = session.get_one(RegisteredModel, run.model_id).name
    return _Inputs(
        run=run,
        model=model,
        production=read_production_version(session, model),
        feedback=feedback.list_newest_with_text(session, model=model, limit=MAX_FEEDBACK),
        forgotten=privacy.list_forgotten_hashes(session),
    )


def _skip(
    resources: Resources,
    run: RetrainingRun,
    claim: int,
    reason: NotPromotedReason,
    merged: MergedTextCounts | None = None,
) -> None:
    with resources.database.write() as session:
        claimed = transitions.lock_claimed_run(session, run.id, RetrainingState.COLLECTING, claim)
        if claimed is not None:
            if merged is not None:
                claimed.data = merged.counts.model_dump(mode="json")
            transitions.end_run_and_publish(
                session, claimed, RetrainingState.SKIPPED, reasons=[reason]
            )


# -- Files ----------------------------------------------------------------------------------------


def _write_files(
    resources: Resources,
    inputs: _Inputs,
    directory: Path,
    training_file: Path,
    evaluation_file: Path,
) -> MergedTextCounts:
    """Read the data of production's job in the sandbox, and write both files."""
    settings, production = resources.settings, inputs.production
    rows = directory / "rows.jsonl"
    spec_file = directory / "spec.json"
    spec = production.build_spec_with_local_files(resources.store, settings)
    spec_file.write_text(json.dumps(spec), "utf-8")
    _write_splits(spec_file, rows, production, settings, readable=list_local_data_files(spec))
    live, left_out = resolve_feedback_labels(inputs.feedback, production.io_schema)
    return write_training_and_evaluation_files(
        lambda: labeled_split_rows_file.read_split_rows(rows),
        live,
        left_out,
        source=production.data_source_name,
        task=production.spec.task,
        first_live_row=production.first_live_row,
        is_forgotten=_forgotten_check(inputs, settings),
        training_file=training_file,
        evaluation_file=evaluation_file,
    )


def _write_splits(
    spec_file: Path,
    out: Path,
    production: TrainedVersion,
    settings: Settings,
    *,
    readable: Sequence[Path],
) -> None:
    """Raises the errors in the data, and `DataTooLarge`."""
    limits = runner.SandboxLimits(
        settings.inspect_memory_mb, settings.inspect_seconds, files.MAX_TEXTS_BYTES
    )
    arguments = ["splits", str(spec_file), f"--out={out}"]
    result = runner.run_lora_core_sandboxed(
        arguments, limits=limits, readable=readable, writable=[spec_file.parent]
    )
    if result.returncode == 0:
        return
    if result.returncode == child_protocol.EXIT_FAILED:
        raise result.parse_error(LoraCoreError)
    limit, what = f"{settings.inspect_memory_mb} MB", "the memory needed to read it"
    if result.timed_out:
        limit, what = f"{settings.inspect_seconds:g} s", "the time needed to read it"
    raise DataTooLarge(file=production.data_source_name, what=what, limit=limit)


def _forgotten_check(inputs: _Inputs, settings: Settings) -> Callable[[str, str | None], bool]:
    """Return a check of whether a text, or one of a pair, must be forgotten.

    Raises `PepperDiffers` if this host cannot check it.
    """
    if not inputs.forgotten:
        return lambda *_: False
    hasher = TextHasher.from_settings(settings)

    def hashes(text: str, pair: str | None) -> tuple[str, ...]:
        return hasher.hash_input(text_or_pair(text, pair)).all

    newest = inputs.feedback[-1] if inputs.feedback else None
    if newest is not None and newest.text_hash not in hashes(newest.text or "", newest.text_pair):
        raise PepperDiffers()
    return lambda text, pair: not inputs.forgotten.isdisjoint(hashes(text, pair))


# -- Datasets and the job -------------------------------------------------------------------------


def _make_datasets(
    resources: Resources, inputs: _Inputs, training_file: Path, evaluation_file: Path
) -> tuple[_NewDataset, _NewDataset]:
    """Return both datasets, validated like uploads."""
    training = _new_dataset(
        inputs,
        training_file,
        TRAINING_SUFFIX,
        f"{inputs.production.data_source_name}, with feedback on {inputs.model}",
        label_column=_LABEL_COLUMN,
        split_column=SPLIT,
    )
    evaluation = _new_dataset(
        inputs,
        evaluation_file,
        EVALUATION_SUFFIX,
        f"Evaluation texts for versions of {inputs.model}",
        label_column=None,
        split_column=None,
    )
    spec = training_spec(inputs.production, training.row.name)
    for new, label_format in (
        (training, LabelFormat.from_spec(spec.data, spec.task)),
        (evaluation, LabelFormat()),
    ):
        row = new.row
        if row.bytes > resources.settings.max_upload_bytes:
            raise UploadTooLarge(limit=resources.settings.max_upload_bytes)
        columns = SelectedColumns(
            row.text_column,
            row.label_column,
            row.split_column,
            text_pair=row.text_pair_column,
            label_format=label_format,
        )
        inspector = FileInspector(new.file, row.filename, columns, resources.settings)
        dataset_service.validate_and_set_profile(row, inspector)
    return training, evaluation


def _new_dataset(
    inputs: _Inputs,
    file: Path,
    suffix: str,
    title: str,
    *,
    label_column: str | None,
    split_column: str | None,
) -> _NewDataset:
    name = inputs.model[: _MAX_NAME - len(suffix)].rstrip("-") + suffix
    row = Dataset(
        id=new_id(),
        created_by=inputs.run.created_by,
        name=name,
        title=title[:_MAX_TITLE],
        filename=f"{name}.jsonl",
        suffix=file.suffix,
        sha256=manifest.file_sha256(file),
        bytes=file.stat().st_size,
        text_column=TEXT,
        text_pair_column=PAIR if inputs.production.io_schema.pairs else None,
        label_column=label_column,
        split_column=split_column,
    )
    return _NewDataset(row, file)


def _resolve_base(resources: Resources, spec: TrainSpec) -> ResolvedBase | None:
    if spec.base is None:
        return None
    return pretrained_bases.resolve_base(
        spec.base,
        spec.base_revision,
        database=resources.database,
        store=resources.store,
        settings=resources.settings,
    )


def _store(
    resources: Resources,
    inputs: _Inputs,
    claim: int,
    merged: MergedTextCounts,
    new: Sequence[_NewDataset],
    base: ResolvedBase | None,
) -> None:
    """Store the datasets and the job, and end the step, unless the claim was lost."""
    store = resources.store
    for each in new:  # before the transaction, so that other writers do not wait for the store
        store.move_file_into_store(each.file, files.store_key(each.row))
    delete_files = True
    failpoint("retraining_stored")
    try:
        with resources.database.write() as session:
            run = transitions.lock_claimed_run(
                session, inputs.run.id, RetrainingState.COLLECTING, claim
            )
            if run is None:
                return
            privacy.lock_text_storage(session)
            if privacy.list_forgotten_hashes(session) != inputs.forgotten:
                # A text was forgotten meanwhile, and may be in these files: collect again.
                repository.release_step(session, run.id, claim, excused=True)
                return
            _add_datasets(session, [each.row for each in new], resources.settings)
            training, evaluation = (each.row for each in new)
            run.dataset_id, run.evaluation_dataset_id = training.id, evaluation.id
            run.kept_rows = merged.kept_rows
            run.data = merged.counts.model_dump(mode="json")
            if run.search is not None:
                transitions.advance_run(session, run, RetrainingState.SEARCHING)
            else:
                job = _new_job(session, inputs, training, base, resources.settings)
                jobs.insert_and_enqueue(
                    session, job, created_by=run.created_by, notifier=resources.notifier
                )
                run.job_id = job.id
                transitions.advance_run(session, run, RetrainingState.TRAINING)
            # A commit that fails may still have succeeded; garbage collection then decides.
            delete_files = False
        failpoint("retraining_collected")
    finally:
        if delete_files:
            for each in new:
                store.delete_best_effort(files.store_key(each.row))


def _add_datasets(session: Session, new: Sequence[Dataset], settings: Settings) -> None:
    """Raises `UploadQuotaExceeded`."""
    acquire_transaction_lock(session, f"datasets of {new[0].created_by}")
    for dataset in new:
        acquire_transaction_lock(session, f"dataset {dataset.name}")
        dataset_service.check_quota(session, dataset, settings)
        datasets.add_dataset_version(session, dataset)


def _new_job(
    session: Session,
    inputs: _Inputs,
    training: Dataset,
    base: ResolvedBase | None,
    settings: Settings,
) -> Job:
    """Return the job that trains the new version. Raises what `JobResolver.resolve` raises."""
    spec = training_spec(inputs.production, f"{training.name}:{training.version}")
    resolved = JobResolver(session, settings).resolve(spec, base)
    return Job(
        **resolved.columns(),
        name=f"{inputs.model}: retraining",
        user_metadata={},
        register_as=inputs.model,
        time_limit_seconds=inputs.production.time_limit_seconds,
    )
