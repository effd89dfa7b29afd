"""Every notebook runs from top to bottom, with few texts."""

from pathlib import Path

import pytest

from tests.notebooks import course

pytestmark = pytest.mark.e2e


@pytest.mark.timeout(400)  # a busy machine is slow
@pytest.mark.parametrize("path", course.PATHS, ids=lambda path: path.stem)
def test_it_runs_in_its_small_form(path: Path) -> None:
    notebook = course.read(path)
    cell = course.parameters(notebook)
    cell.source = cell.metadata["small"]
    course.run(notebook, seconds=100)
    for cell in course.code(notebook):
        assert not [output for output in cell.outputs if output.get("name") == "stderr"]
