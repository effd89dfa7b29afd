"""Uploaded files: where they are stored, and their inspection in a child process.

Paths are made of ids and known suffixes, never of client input.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any
from uuid import uuid4

import structlog

from app.datasets.errors import DatasetParserCrashed
from app.datasets.tables import Dataset
from app.errors import DataDirectoryUnusable
from app.sandbox import runner
from app.sandbox.runner import SandboxResult
from app.settings import Settings
from app.storage.errors import StorageUnavailable
from app.storage.store import Store
from lora_core import child_protocol, manifest
from lora_core.atomic_files import is_disk_full
from lora_core.data.label_readers import SINGLE_LABEL, LabelFormat, build_targets_spec
from lora_core.data.label_review_schemas import CorrectionPlan, CorrectionResult, SuspectLabelReport
from lora_core.errors import LoraCoreError
from lora_core.errors.artifact import ArtifactCorrupt
from lora_core.errors.data import DataNotFound, DataTooLarge
from lora_core.specs.drift import DriftReport, RecentText

CORRECTIONS_FILE = "corrections.json"  # what the child is asked to change
INCOMING_DIR = ".incoming"  # directory of files that are being received

log = structlog.get_logger(__name__)


def store_key(dataset: Dataset) -> str:
    """Return the key of the file in the store. The file name is unique too."""
    return f"uploads/{dataset.id}/{dataset.id}{dataset.suffix}"


def legacy_path(settings: Settings, dataset: Dataset) -> Path:
    """Return where version 0.1 stored the file of a dataset; such files stay there."""
    return settings.uploads_dir / f"{dataset.id}{dataset.suffix}"


def fetch_file(settings: Settings, store: Store, dataset: Dataset) -> Path:
    """Return a read-only file on this machine. Raises `ArtifactCorrupt` if its hash differs."""
    path = legacy_path(settings, dataset)
    if not path.is_file():
        return store.verified_file(store_key(dataset), dataset.sha256)
    if manifest.file_sha256(path) != dataset.sha256:
        raise ArtifactCorrupt(path=path.name, problem="the file has changed")
    return path


def delete_file(settings: Settings, store: Store, dataset: Dataset) -> None:
    """Delete the file of a dataset that was deleted."""
    legacy_path(settings, dataset).unlink(missing_ok=True)
    store.delete_best_effort(store_key(dataset))


def create_temporary_upload_dir(settings: Settings) -> Path:
    """Create an empty directory for a file to receive. Raises `DataDirectoryUnusable`."""
    directory = settings.uploads_dir / INCOMING_DIR / uuid4().hex
    try:
        directory.mkdir(parents=True)
    except OSError as error:
        if is_disk_full(error):
            raise
        raise DataDirectoryUnusable(reason=error.strerror) from error
    return directory


# -- Inspection in a child process with resource limits ------------------------------------------


_MAX_CHILD_OUTPUT_BYTES = 16_000_000  # of stdout, and of every file that the child writes
MAX_TEXTS_BYTES = 1_000_000_000  # of the file with all texts of a dataset


@dataclass(frozen=True)
class SelectedColumns:
    """Names of the columns. `label` None: no labels. `sheet` None: the first one with cells."""

    text: str
    label: str | None
    split: str | None
    sheet: str | None = None
    text_pair: str | None = None  # None: each row has one text
    label_format: LabelFormat = SINGLE_LABEL


@dataclass(frozen=True)
class FileInspector:
    """Inspects one file in a child process. `filename` is the name that the client sent.

    The methods raise the `DataError` that the parser found, with row numbers; `DataTooLarge`
    if memory or time ran out; `DatasetParserCrashed` if the parser crashed; `StorageUnavailable` if
    the file has disappeared since it was received or fetched.
    """

    file: Path
    filename: str
    columns: SelectedColumns
    settings: Settings

    def profile(self) -> dict[str, Any]:
        """Return the profile: rows, labels, splits, duplicates, and the `diagnosis`.

        The diagnosis, or its `more_labels`, is None if memory or time did not suffice for it.
        """
        reports, result = self._inspect_columns("inspect")
        if not reports:
            raise self._error(result)
        profile, *diagnoses = reports
        if result.returncode != 0:
            log.warning("diagnosis incomplete", cause=str(self._error(result)))
        return {**profile, "diagnosis": diagnoses[-1] if diagnoses else None}

    def diagnose(self) -> dict[str, Any]:
        """Return the diagnosis only."""
        reports, result = self._inspect_columns("inspect")
        if len(reports) < 2:
            raise self._error(result)
        return dict(reports[-1])

    def rows(self, *, after: int, limit: int) -> list[dict[str, Any]]:
        """Return up to `limit` rows with numbers above `after`."""
        reports, result = self._inspect_columns("preview", f"--after={after}", f"--limit={limit}")
        if not reports:
            raise self._error(result)
        return list(reports[0]["rows"])

    def suspects(self, target: str | None) -> SuspectLabelReport:
        """Return the labels that are probably wrong, of one of several targets if it is named."""
        options = () if target is None else (f"--target={target}",)
        reports, result = self._inspect_columns("suspects", *options)
        if not reports:
            raise self._error(result)
        return SuspectLabelReport.model_validate(reports[0])

    def correct(self, corrections: CorrectionPlan, out_dir: Path) -> CorrectionResult:
        """Write a file with changed labels to `out_dir`. Raises `DataTooLarge`, among others."""
        request = out_dir / CORRECTIONS_FILE
        request.write_text(corrections.model_dump_json(), encoding="utf-8")
        options = (f"--corrections={request}", f"--out={out_dir}")
        max_bytes = max(_MAX_CHILD_OUTPUT_BYTES, self.settings.max_upload_bytes)
        reports, result = self._inspect_columns(
            "correct", *options, file_bytes=max_bytes, writable=[out_dir]
        )
        if not reports:
            raise self._error(result)
        return CorrectionResult.model_validate(reports[0])

    def find(self, wanted: Path) -> dict[str, Any]:
        """Return how many rows have the text in a JSON file, and their first numbers."""
        reports, result = self._inspect_columns("find", f"--wanted={wanted}", readable=[wanted])
        if not reports:
            raise self._error(result)
        return reports[0]

    def extract_texts_to_jsonl(self, target: Path) -> None:
        """Write `[row number, text, second text or null]` of each row to a new file, as JSON
        lines."""
        reports, result = self._inspect_columns(
            "texts",
            f"--out={target}",
            file_bytes=MAX_TEXTS_BYTES,
            writable=[target.parent],
        )
        if not reports:
            if "File too large" in result.stderr:
                limit = f"{MAX_TEXTS_BYTES:,} bytes"
                raise DataTooLarge(file=self.filename, what="the size of its texts", limit=limit)
            raise self._error(result)

    def detect_drift(self, recent: Iterable[RecentText]) -> DriftReport:
        """Test whether recent texts are like those of the file that training may read.

        They reach the child in a file without a name, so that no crash leaves them on the disk.
        """
        with TemporaryFile() as sent:
            sent.writelines(each.model_dump_json().encode() + b"\n" for each in recent)
            sent.seek(0)
            reports, result = self._inspect_columns("drift", stdin=sent)
        if not reports:
            raise self._error(result)
        return DriftReport.model_validate(reports[0])

    def detect_columns(self) -> dict[str, Any]:
        """Return the columns of the file with some rows; see `lora_core.data.file_inspection`."""
        reports, result = self._run("columns")
        if not reports:
            raise self._error(result)
        return reports[0]

    def _inspect_columns(
        self,
        command: str,
        *options: str,
        file_bytes: int = _MAX_CHILD_OUTPUT_BYTES,
        readable: Sequence[Path] = (),
        writable: Sequence[Path] = (),
        stdin: IO[bytes] | None = None,
    ) -> tuple[list[dict[str, Any]], SandboxResult]:
        """Run a command of the child on the selected columns."""
        selection = [f"--text-column={self.columns.text}"]
        label = self.columns.label
        selection.append("--texts" if label is None else f"--label-column={label}")
        if self.columns.text_pair is not None:
            selection.append(f"--text-pair-column={self.columns.text_pair}")
        if self.columns.split is not None:
            selection.append(f"--split-column={self.columns.split}")
        if label is not None:
            selection += _label_options(self.columns.label_format)
        return self._run(
            command,
            *selection,
            *options,
            file_bytes=file_bytes,
            readable=readable,
            writable=writable,
            stdin=stdin,
        )

    def _run(
        self,
        command: str,
        *options: str,
        file_bytes: int = _MAX_CHILD_OUTPUT_BYTES,
        readable: Sequence[Path] = (),
        writable: Sequence[Path] = (),
        stdin: IO[bytes] | None = None,
    ) -> tuple[list[dict[str, Any]], SandboxResult]:
        """Return the JSON lines that the child wrote, without its error, and how it ended."""
        if self.columns.sheet is not None:
            options = (*options, f"--sheet={self.columns.sheet}")
        limits = runner.SandboxLimits(
            self.settings.inspect_memory_mb, self.settings.inspect_seconds, file_bytes
        )
        result = runner.run_lora_core_sandboxed(
            [command, str(self.file), *options],
            limits=limits,
            readable=[self.file, *readable],
            writable=writable,
            stdin=stdin,
        )
        lines = result.stdout.split(b"\n")[:-1]  # without an incomplete line
        if result.returncode == child_protocol.EXIT_FAILED:
            lines.pop()
        return list(map(json.loads, lines)), result

    def _error(self, result: SandboxResult) -> Exception:
        """Return the error that explains why the child ended early."""
        if result.returncode == child_protocol.EXIT_FAILED:
            error = result.parse_error(LoraCoreError)
            if isinstance(error, DataNotFound):
                return StorageUnavailable(reason="a file has disappeared; is its disk mounted?")
            return _with_filename(error, self.filename)
        if result.timed_out:
            limit = f"{self.settings.inspect_seconds:g} s"
            return DataTooLarge(file=self.filename, what="the time needed to read it", limit=limit)
        if result.out_of_memory:
            limit = f"{self.settings.inspect_memory_mb} MB"
            what = "the memory needed to read it"
            return DataTooLarge(file=self.filename, what=what, limit=limit)
        stderr = result.stderr[-2000:]
        log.error("inspection crashed", returncode=result.returncode, stderr=stderr)
        return DatasetParserCrashed(file=self.filename)


def _label_options(label_format: LabelFormat) -> list[str]:
    """Return the options of the child that describe the labels."""
    if label_format.targets:
        targets = build_targets_spec(label_format.targets)
        # As short as it can be: Linux allows 128 KiB for one argument.
        return [f"--targets={json.dumps(targets, ensure_ascii=False)}"]
    options = [f"--task={label_format.task}"]
    if label_format.ordered:
        options.append("--ordered")
    if label_format.separator is not None:
        options.append(f"--label-separator={label_format.separator}")
    return options + [f"--label-columns={name}" for name in label_format.columns or ()]


def _with_filename(error: LoraCoreError, filename: str) -> LoraCoreError:
    """Return the error with the client's file name; the child only knows the path on the disk.

    Errors about one of several targets name its column after the file, whose name has no comma.
    """
    if "file" not in error.detail:
        return error
    _, comma, column = error.detail["file"].partition(",")
    return type(error)(**{**error.detail, "file": f"{filename}{comma}{column}"})
