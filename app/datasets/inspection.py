"""Parse an uploaded file in a child with limits."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from app import child
from app.datasets.errors import Unreadable
from app.settings import Settings
from lora_core import exit_codes
from lora_core.errors.data import DataError, DataTooLarge

_OUTPUT_BYTES = 4_000_000  # of the report, and of anything else the child writes

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Columns:
    """Which columns hold what. `label` None: there are no labels."""

    text: str
    label: str | None
    split: str | None


def inspect(file: Path, *, filename: str, columns: Columns, settings: Settings) -> dict[str, Any]:
    """What is in the file: rows, labels, parts, duplicates.

    Raises the `DataError` that the parser found, with row numbers; `DataTooLarge` when memory or
    time ran out; `Unreadable` when the parser crashed. `filename` is the caller's name of the file.
    """
    limits = child.Limits(settings.inspect_memory_mb, settings.inspect_seconds, _OUTPUT_BYTES)
    ended = child.run(_arguments(file, columns), limits=limits, folder=file.parent)
    if ended.status == 0:
        return dict(json.loads(ended.report))
    if ended.status == exit_codes.FAILED:
        raise _named(ended.cause(DataError), filename)
    if ended.out_of_time:
        limit = f"{settings.inspect_seconds:g} s"
        raise DataTooLarge(file=filename, what="the time needed to read it", limit=limit)
    if ended.out_of_memory:
        limit = f"{settings.inspect_memory_mb} MB"
        raise DataTooLarge(file=filename, what="the memory needed to read it", limit=limit)
    log.error("the inspection crashed", status=ended.status, complaints=ended.complaints[-2000:])
    raise Unreadable(file=filename)


def _arguments(file: Path, columns: Columns) -> list[str]:
    wanted = [f"--text-column={columns.text}"]
    wanted.append("--texts" if columns.label is None else f"--label-column={columns.label}")
    if columns.split is not None:
        wanted.append(f"--split-column={columns.split}")
    return ["inspect", str(file), *wanted]


def _named(error: DataError, filename: str) -> DataError:
    """The same under the name that the caller knows: the child knows only a place on the disk."""
    if "file" not in error.detail:
        return error
    return type(error)(**{**error.detail, "file": filename})
