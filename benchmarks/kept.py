"""The cells that were measured, one JSON object a line, so that a stopped run goes on."""

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import machine

DIRECTORY = Path(__file__).parent / "results"


class Kept:
    """A file of cells: name → figures, with when and where they were measured."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cells = self._read()

    def ensure(
        self, cell: str, measure: Callable[[], Mapping[str, Any]], *, again: bool = False
    ) -> None:
        """Measure a cell unless it is kept, and print it."""
        kept = cell in self.cells and not again
        if not kept:
            began = time.monotonic()
            figures = measure()
            self.keep(cell, figures, time.monotonic() - began)
        record = self.cells[cell]
        when = f"kept from {record['date']}" if kept else f"{record['seconds']} s"
        print(f"{cell:40} {_shown(record['figures'])}  ({when})", flush=True)

    def keep(self, cell: str, figures: Mapping[str, Any], seconds: float) -> None:
        """Add a cell that took so long; the file is replaced as a whole."""
        self.cells = self._read()  # again: another run may have kept its own in the meantime
        self.cells[cell] = {
            "cell": cell,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "processor": machine.described(),
            "instructions": machine.flags(),
            "versions": machine.versions(),
            "seconds": round(seconds, 1),
            "figures": figures,
        }
        self._write()

    def forget(self, cells: Iterable[str]) -> None:
        """So that they are measured again."""
        for cell in cells:
            self.cells.pop(cell, None)
        self._write()

    def figures(self, cell: str) -> dict[str, Any]:
        """What was measured."""
        found: dict[str, Any] = self.cells[cell]["figures"]
        return found

    def where(self, cells: Iterable[str]) -> dict[str, Any]:
        """The processors and versions of these cells; of a library that changed, each version."""
        records = [self.cells[cell] for cell in cells]
        versions: dict[str, set[str]] = {}
        for record in records:
            for library, version in record["versions"].items():
                versions.setdefault(library, set()).add(version)
        return {
            "processor": sorted({record["processor"] for record in records}),
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


def choose(directory: Path, *, quick: bool, fresh: bool, what: str = "train") -> Kept:
    """The newest file of this processor and size; a new one of today if there is none, or `fresh`.

    One name for each benchmark, processor, size and day: `fresh` begins today's again.
    """
    start = f"quick-{what}" if quick else what
    start += "-" + re.sub(r"[^a-z0-9_]+", "-", machine.described().lower()).strip("-")
    found = sorted(directory.glob(f"{start}-????-??-??.jsonl"))
    if found and not fresh:
        return Kept(found[-1])
    path = directory / f"{start}-{datetime.now(UTC).date()}.jsonl"
    path.unlink(missing_ok=True)
    return Kept(path)


def _shown(figures: Mapping[str, Any]) -> str:
    """The single numbers of a cell."""
    numbers = {name: value for name, value in figures.items() if isinstance(value, int | float)}
    return "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
