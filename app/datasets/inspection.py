"""Read an uploaded file in a child with limits."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from app.datasets.errors import Unreadable
from app.sandbox import process
from app.sandbox.process import Ended
from app.settings import Settings
from lora_core import child_protocol
from lora_core.errors.data import DataError, DataTooLarge

_OUTPUT_BYTES = 16_000_000  # of the report, and of anything else the child writes

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Columns:
    """Which columns hold what. `label` None: there are no labels. `sheet` None: the first one."""

    text: str
    label: str | None
    split: str | None
    sheet: str | None = None


@dataclass(frozen=True)
class Inspection:
    """A child that reads one file. `filename` is the caller's name of the file.

    What is asked raises the `DataError` that the parser found, with row numbers; `DataTooLarge`
    when memory or time ran out; `Unreadable` when the parser crashed.
    """

    file: Path
    filename: str
    columns: Columns
    settings: Settings

    def profile(self) -> dict[str, Any]:
        """What is in the file: rows, labels, parts, duplicates, and the `diagnosis`.

        The diagnosis is None where memory or time sufficed for the rest alone; so is its
        `more_labels`.
        """
        told, ended = self._ask("inspect")
        if not told:
            raise self._cause(ended)
        profile, *diagnoses = told
        if ended.status != 0:
            log.warning("a diagnosis ended early", cause=str(self._cause(ended)))
        return {**profile, "diagnosis": diagnoses[-1] if diagnoses else None}

    def diagnosis(self) -> dict[str, Any]:
        """The diagnosis alone."""
        told, ended = self._ask("inspect")
        if len(told) < 2:
            raise self._cause(ended)
        return dict(told[-1])

    def rows(self, *, after: int, limit: int) -> list[dict[str, Any]]:
        """Up to `limit` rows with numbers above `after`."""
        told, ended = self._ask("preview", f"--after={after}", f"--limit={limit}")
        if not told:
            raise self._cause(ended)
        return list(told[0]["rows"])

    def look(self) -> dict[str, Any]:
        """Which columns there are, with some rows; see `lora_core.data.columns`."""
        told, ended = self._run("columns")
        if not told:
            raise self._cause(ended)
        return told[0]

    def _ask(self, command: str, *options: str) -> tuple[list[dict[str, Any]], Ended]:
        """What the child reports of these columns."""
        wanted = [f"--text-column={self.columns.text}"]
        label = self.columns.label
        wanted.append("--texts" if label is None else f"--label-column={label}")
        if self.columns.split is not None:
            wanted.append(f"--split-column={self.columns.split}")
        return self._run(command, *wanted, *options)

    def _run(self, command: str, *options: str) -> tuple[list[dict[str, Any]], Ended]:
        """What the child reported, line by line, but for a cause; and how it ended."""
        if self.columns.sheet is not None:
            options = (*options, f"--sheet={self.columns.sheet}")
        limits = process.Limits(
            self.settings.inspect_memory_mb, self.settings.inspect_seconds, _OUTPUT_BYTES
        )
        ended = process.run(
            [command, str(self.file), *options], limits=limits, folder=self.file.parent
        )
        lines = ended.report.split(b"\n")[:-1]  # without one that is not whole
        if ended.status == child_protocol.FAILED:
            lines.pop()
        return list(map(json.loads, lines)), ended

    def _cause(self, ended: Ended) -> Exception:
        """Why there is no answer."""
        if ended.status == child_protocol.FAILED:
            return _named(ended.cause(DataError), self.filename)
        if ended.out_of_time:
            limit = f"{self.settings.inspect_seconds:g} s"
            return DataTooLarge(file=self.filename, what="the time needed to read it", limit=limit)
        if ended.out_of_memory:
            limit = f"{self.settings.inspect_memory_mb} MB"
            what = "the memory needed to read it"
            return DataTooLarge(file=self.filename, what=what, limit=limit)
        complaints = ended.complaints[-2000:]
        log.error("the inspection crashed", status=ended.status, complaints=complaints)
        return Unreadable(file=self.filename)


def _named(error: DataError, filename: str) -> DataError:
    """The same under the name that the caller knows: the child knows only a place on the disk."""
    if "file" not in error.detail:
        return error
    return type(error)(**{**error.detail, "file": filename})
