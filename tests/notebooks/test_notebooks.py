"""Every notebook runs from top to bottom, with few texts."""

from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_notebook

from tests.notebooks import course
from tests.tiny_base import make_base

pytestmark = pytest.mark.e2e
ANEW = """import os
os.chdir({folder!r})
os.environ.pop("LORAWORKS_URL", None)
%reset -f
"""


# These run a service, and each command and job starts a process.
SERVICE = [path for path in course.PATHS if "own_service" in path.read_text(encoding="utf-8")]
LIBRARY = [path for path in course.PATHS if path not in SERVICE]


@pytest.mark.timeout(900)  # a busy machine is slow
@pytest.mark.parametrize(
    "paths", [LIBRARY, pytest.param(SERVICE, marks=pytest.mark.slow)], ids=["library", "service"]
)
def test_all_run_in_their_small_forms(paths: list[Path], tmp_path: Path) -> None:
    """In one kernel, which imports torch once; `make notebooks` has a fresh one for each."""
    assert paths
    together = new_notebook()
    for path in paths:
        notebook = course.read(path)
        cell = course.parameters(notebook)
        cell.source = cell.metadata["small"]
        folder = tmp_path / path.stem
        make_base(folder / "tiny")
        sources = [
            ANEW.format(folder=str(folder)),
            *(each.source for each in course.code(notebook)),
        ]
        together.cells += map(new_code_cell, sources)
    course.run(together, seconds=100)
    for cell in together.cells:
        assert not [output for output in cell.outputs if output.get("name") == "stderr"]
