"""Stored results of cells, one JSON object per line, so that a stopped run can continue."""

import json
import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import machine

DIRECTORY = Path(__file__).parent / "results"


class ResultsFile:
    """A file of cells: name → metrics, with date, processor, versions and commit."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cells = self._read()

    def ensure(
        self, cell: str, measure: Callable[[], Mapping[str, Any]], *, again: bool = False
    ) -> None:
        """Measure a cell unless it is stored, and print it. `again`: what is stored is stale."""
        kept = cell in self.cells and not again
        if not kept:
            if cell in self.cells:
                print(f"{cell}: stale, from {self.cells[cell]['date']}, and computed again")
            began, commit = time.monotonic(), machine.commit()
            metrics = measure()
            self.add(cell, metrics, time.monotonic() - began, commit=commit)
        record = self.cells[cell]
        when = f"{record['seconds']} s"
        if kept:
            code = record.get("commit", "unknown")
            short = f"{code[:8]}{'+' * code.endswith('+')}"
            when = f"kept from {record['date']}, commit {short}"
        print(f"{cell:40} {_shown(record['metrics'])}  ({when})", flush=True)

    def add(
        self, cell: str, metrics: Mapping[str, Any], seconds: float, *, commit: str | None = None
    ) -> None:
        """Add a cell; the file is replaced atomically. `commit`: which code measured it."""
        self.cells = self._read()  # again: another run may have added cells
        self.cells[cell] = {
            "cell": cell,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "processor": machine.processor(),
            "instructions": machine.flags(),
            "versions": machine.versions(),
            "commit": commit or machine.commit(),
            "seconds": round(seconds, 1),
            "metrics": metrics,
        }
        self._write()

    def remove(self, cells: Iterable[str]) -> None:
        """Remove cells, so that they are measured again."""
        for cell in cells:
            self.cells.pop(cell, None)
        self._write()

    def metrics(self, cell: str) -> dict[str, Any]:
        """The metrics of a cell."""
        found: dict[str, Any] = self.cells[cell]["metrics"]
        return found

    def is_current(self, cell: str, settings: Any) -> bool:
        """Whether a cell was computed with these settings; one that stores none was not."""
        return cell in self.cells and self.metrics(cell).get("settings") == settings

    def print_missing(self, cells: Collection[str], current: Collection[str]) -> None:
        """Say how many of these cells the next run computes. `current`: computed as today."""
        stale = sum(cell in self.cells for cell in cells if cell not in current)
        absent = len(cells) - len(current) - stale
        if absent:
            print(f"{absent} of {len(cells)} cells are not computed yet")
        if stale:
            print(f"{stale} of {len(cells)} cells are stale: computed by other settings or code")

    def where(self, cells: Iterable[str] | None = None) -> dict[str, Any]:
        """Processors, days, commits and library versions of these cells, or of all.

        All that there are: a run that was stopped may have been continued with other code.
        """
        records = [self.cells[cell] for cell in (self.cells if cells is None else cells)]
        versions: dict[str, set[str]] = {}
        for record in records:
            for library, version in record["versions"].items():
                versions.setdefault(library, set()).add(version)
        return {
            "processor": sorted({record["processor"] for record in records}),
            "dates": sorted({record["date"][:10] for record in records}),
            "commits": sorted({record.get("commit", "unknown") for record in records}),
            "versions": {library: ", ".join(sorted(each)) for library, each in versions.items()},
        }

    def _read(self) -> dict[str, dict[str, Any]]:
        if not self.path.exists():
            return {}
        lines = self.path.read_text(encoding="utf-8").splitlines()
        return {record["cell"]: record for record in map(json.loads, lines)}

    def _write(self) -> None:
        unfinished = self.path.with_suffix(".unfinished")
        unfinished.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text("".join(json.dumps(record) + "\n" for record in self.cells.values()))
        unfinished.replace(self.path)


def choose(directory: Path, *, quick: bool, fresh: bool, what: str = "train") -> ResultsFile:
    """The newest file of this processor and size; a new one if there is none or with `fresh`.

    File names contain benchmark, processor, size and day; `fresh` starts today's file over.
    """
    start = f"quick-{what}" if quick else what
    start += "-" + re.sub(r"[^a-z0-9_]+", "-", machine.processor().lower()).strip("-")
    found = sorted(directory.glob(f"{start}-????-??-??.jsonl"))
    if found and not fresh:
        return ResultsFile(found[-1])
    path = directory / f"{start}-{datetime.now(UTC).date()}.jsonl"
    path.unlink(missing_ok=True)
    return ResultsFile(path)


def _shown(metrics: Mapping[str, Any]) -> str:
    """The scalar metrics of a cell."""
    numbers = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
    return "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
