"""Notebooks as they are stored: with the outputs of one run from top to bottom."""

import ast
import json
import re

import nbformat
import pytest
from nbformat import NotebookNode

from tests.notebooks import course

GPU = "On a GPU, with DistilBERT and all of IMDB"
PNG = 40_000  # bytes of a figure
MACHINE = re.compile(r"(?<![\w.])/(tmp|home|root|work|usr|opt|Users|private|var)/")


@pytest.fixture(params=course.PATHS, ids=lambda path: path.stem, scope="module")
def notebook(request: pytest.FixtureRequest) -> NotebookNode:
    return course.read(request.param)


def test_there_are_notebooks() -> None:
    assert [path.name[:3] for path in course.PATHS[:3]] == ["00-", "01-", "02-"]


def test_it_has_the_form_of_the_course(notebook: NotebookNode) -> None:
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.metadata.language_info == {"name": "python"}
    assert not [cell for cell in notebook.cells if "execution" in cell.metadata]
    assert notebook.cells[0].source.startswith("# ")


def test_it_was_run_from_top_to_bottom(notebook: NotebookNode) -> None:
    cells = course.code(notebook)
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    for cell in cells:
        if _shows(cell.source):
            assert cell.outputs, f"nothing came out of\n{cell.source}"


def test_its_outputs_are_fit_to_be_read(notebook: NotebookNode) -> None:
    for output in (output for cell in course.code(notebook) for output in cell.outputs):
        assert output.output_type != "error"
        assert output.get("name") != "stderr", output.text
        data = output.get("data", {})
        assert len(data.get("image/png", "")) * 3 / 4 < PNG
        said = json.dumps([output.get("text"), {k: v for k, v in data.items() if "text" in k}])
        assert not MACHINE.search(said), said
        assert " at 0x" not in said, said  # the address of an object: another one in each run


def test_its_small_form_sets_what_its_parameters_set(notebook: NotebookNode) -> None:
    cell = course.parameters(notebook)
    assert course.code(notebook).index(cell) < 3
    names = course.assigned(cell.source)
    assert names
    assert course.assigned(cell.metadata["small"]) == names
    assert all(name.isupper() for name in names)


def test_it_says_what_to_change_for_a_gpu(notebook: NotebookNode) -> None:
    [section] = [
        cell.source for cell in notebook.cells if re.search(rf"(?m)^#+ {GPU}$", cell.source)
    ]
    [block] = re.findall(r"```(?:\w*)\n(.*?)```", section, re.DOTALL)
    lines = block.strip().splitlines()
    assert len(lines) == 3
    for word in ("distilbert-base-uncased", "imdb", "cuda"):
        assert word in block
    if section.count("```python"):
        assert course.assigned(block) <= course.assigned(course.parameters(notebook).source)


def _shows(source: str) -> bool:
    """Whether a cell prints or draws, other than in what it defines."""
    done = [
        statement
        for statement in ast.parse(source).body
        if not isinstance(statement, ast.FunctionDef | ast.ClassDef)
    ]
    nodes = [node for statement in done for node in ast.walk(statement)]
    calls = {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}
    return bool(calls & {"print", "display", "Markdown", "plt.show"})
