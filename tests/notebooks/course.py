"""Find, read and run the notebooks of the course."""

import ast
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode

from app.cli.demo import environment_without_settings

FOLDER = Path(__file__).parents[2] / "notebooks"
PATHS = sorted(FOLDER.glob("*.ipynb"))


def read(path: Path) -> NotebookNode:
    """Read a notebook as it is stored."""
    return nbformat.read(path, as_version=4)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """Return the code cells of a notebook."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def parameters_cell(notebook: NotebookNode) -> NotebookNode:
    """Return the cell with the sizes of the run. Its metadata has a smaller version, `small`."""
    [cell] = [
        cell for cell in code_cells(notebook) if "parameters" in cell.metadata.get("tags", ())
    ]
    return cell


def assigned_names(source: str) -> set[str]:
    """Return the names that Python source assigns to."""
    return {
        name.id
        for name in ast.walk(ast.parse(source))
        if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
    }


def run(notebook: NotebookNode, *, seconds: int | None) -> None:
    """Run all cells in an empty folder, and store the outputs in the notebook.

    `seconds`: time limit per cell. Raises `nbclient.exceptions.CellExecutionError`.
    """
    metadata = deepcopy(notebook.metadata)
    with TemporaryDirectory() as private, TemporaryDirectory() as folder:
        # Unix sockets: no other user can connect, and there is no race for a port.
        kernel = AsyncKernelManager(
            kernel_name="python3", transport="ipc", connection_file=f"{private}/kernel.json"
        )
        client = NotebookClient(
            notebook,
            km=kernel,
            timeout=seconds,
            record_timing=False,
            coalesce_streams=True,  # one output per cell, regardless of how the prints arrive
            resources={"metadata": {"path": folder}},
        )
        environment = {
            "LORAWORKS_CACHE": private,  # starts empty, as for a new user
            **environment_without_settings(),
            "IPYTHONDIR": private,  # not the settings and history of the user
            "PYTHONWARNINGS": "ignore:IProgress not found",  # from tqdm; its bars are off
        }
        client.execute(env=environment, cleanup_kc=True)
    notebook.metadata = metadata  # without the version that the kernel adds
