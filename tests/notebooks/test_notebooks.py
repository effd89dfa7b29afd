"""Run every notebook from top to bottom, with few texts."""

from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_notebook

from tests.notebooks import course
from tests.tiny_base import make_base

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
RESET_CELL = """import os
os.chdir({folder!r})
os.environ.pop("LORAWORKS_URL", None)
%reset -f
"""


# These start a service, and each command and job starts a process.
SERVICE = [path for path in course.PATHS if "temporary_service" in path.read_text(encoding="utf-8")]
LIBRARY = [path for path in course.PATHS if path not in SERVICE]


@pytest.mark.timeout(900)  # a busy machine is slow
@pytest.mark.parametrize("paths", [LIBRARY, SERVICE], ids=["library", "service"])
def test_small_versions_run(paths: list[Path], tmp_path: Path) -> None:
    """Uses one kernel, which imports torch once; `make notebooks` starts one for each notebook."""
    assert paths
    combined = new_notebook()
    for path in paths:
        notebook = course.read(path)
        cell = course.parameters_cell(notebook)
        cell.source = cell.metadata["small"]
        folder = tmp_path / path.stem
        make_base(folder / "tiny")
        sources = [
            RESET_CELL.format(folder=str(folder)),
            *(each.source for each in course.code_cells(notebook)),
        ]
        combined.cells += map(new_code_cell, sources)
    course.run(combined, seconds=100)
    for cell in combined.cells:
        assert not [output for output in cell.outputs if output.get("name") == "stderr"]
