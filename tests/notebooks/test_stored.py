"""Check the stored notebooks, with the outputs of one run from top to bottom."""

import ast
import json
import re

import nbformat
import pytest
from nbformat import NotebookNode

from tests.notebooks import course

GPU = "On a GPU, with DistilBERT and all of IMDB"
MAX_PNG_BYTES = 40_000
ABSOLUTE_PATH = re.compile(r"(?<![\w.])/(tmp|home|root|work|usr|opt|Users|private|var)/")


@pytest.fixture(params=course.PATHS, ids=lambda path: path.stem, scope="module")
def notebook(request: pytest.FixtureRequest) -> NotebookNode:
    return course.read(request.param)


def test_notebooks_exist() -> None:
    assert [path.name[:3] for path in course.PATHS[:3]] == ["00-", "01-", "02-"]


def test_notebook_format_is_valid(notebook: NotebookNode) -> None:
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.metadata.language_info == {"name": "python"}
    assert not [cell for cell in notebook.cells if "execution" in cell.metadata]
    assert notebook.cells[0].source.startswith("# ")


def test_notebook_was_run_from_top_to_bottom(notebook: NotebookNode) -> None:
    cells = course.code_cells(notebook)
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    for cell in cells:
        if _has_output(cell.source):
            assert cell.outputs, f"no output of\n{cell.source}"


def test_outputs_have_no_errors_paths_or_large_images(notebook: NotebookNode) -> None:
    for output in (output for cell in course.code_cells(notebook) for output in cell.outputs):
        assert output.output_type != "error"
        assert output.get("name") != "stderr", output.text
        data = output.get("data", {})
        assert len(data.get("image/png", "")) * 3 / 4 < MAX_PNG_BYTES
        output_text = json.dumps(
            [output.get("text"), {k: v for k, v in data.items() if "text" in k}]
        )
        assert not ABSOLUTE_PATH.search(output_text), output_text
        assert " at 0x" not in output_text, output_text  # object address: differs in each run


def test_small_version_assigns_the_same_parameters(notebook: NotebookNode) -> None:
    cell = course.parameters_cell(notebook)
    assert course.code_cells(notebook).index(cell) < 3
    names = course.assigned_names(cell.source)
    assert names
    assert course.assigned_names(cell.metadata["small"]) == names
    assert all(name.isupper() for name in names)


def test_notebook_has_a_gpu_section(notebook: NotebookNode) -> None:
    [section] = [
        cell.source for cell in notebook.cells if re.search(rf"(?m)^#+ {GPU}$", cell.source)
    ]
    [block] = re.findall(r"```(?:\w*)\n(.*?)```", section, re.DOTALL)
    lines = block.strip().splitlines()
    assert len(lines) == 3
    for word in ("distilbert-base-uncased", "imdb", "cuda"):
        assert word in block
    if section.count("```python"):
        assert course.assigned_names(block) <= course.assigned_names(
            course.parameters_cell(notebook).source
        )


def _has_output(source: str) -> bool:
    """Return whether a cell prints or plots outside of function and class definitions."""
    executed = [
        statement
        for statement in ast.parse(source).body
        if not isinstance(statement, ast.FunctionDef | ast.ClassDef)
    ]
    nodes = [node for statement in executed for node in ast.walk(statement)]
    calls = {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}
    return bool(calls & {"print", "display", "Markdown", "plt.show"})
