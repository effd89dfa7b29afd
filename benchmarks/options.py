"""Command-line options shared by the benchmarks."""

import argparse
from collections.abc import Collection
from pathlib import Path

from benchmarks.results_file import DIRECTORY


def parser(
    about: str | None, cells: Collection[str] | None, *, quick: str
) -> argparse.ArgumentParser:
    """`cells`: their names, unless there are too many to list; `quick`: its help text."""
    options = argparse.ArgumentParser(description=about)
    options.add_argument("--quick", action="store_true", help=quick)
    options.add_argument("--fresh", action="store_true", help="measure again what was kept")
    options.add_argument(
        "--results", type=Path, default=DIRECTORY, help="directory to keep them in"
    )
    options.add_argument("--cell", choices=cells, help="measure this one here, and print it")
    return options
