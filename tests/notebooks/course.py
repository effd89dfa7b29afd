"""The notebooks of the course, and how one is run."""

import ast
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode

from app.cli.demo import plain_environment

FOLDER = Path(__file__).parents[2] / "notebooks"
PATHS = sorted(FOLDER.glob("*.ipynb"))


def read(path: Path) -> NotebookNode:
    """A notebook as it is stored."""
    return nbformat.read(path, as_version=4)


def code(notebook: NotebookNode) -> list[NotebookNode]:
    """Its cells of Python."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def parameters(notebook: NotebookNode) -> NotebookNode:
    """The one cell that says how much is computed. Its metadata has a `small` form of it."""
    [cell] = [cell for cell in code(notebook) if "parameters" in cell.metadata.get("tags", ())]
    return cell


def assigned(source: str) -> set[str]:
    """The names that a piece of Python gives values to."""
    return {
        name.id
        for name in ast.walk(ast.parse(source))
        if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
    }


def run(notebook: NotebookNode, *, seconds: int | None) -> None:
    """From top to bottom, in an empty folder; the outputs are put into it.

    At most `seconds` a cell, if there is a limit. Raises `nbclient.exceptions.CellExecutionError`.
    """
    metadata = deepcopy(notebook.metadata)
    with TemporaryDirectory() as own, TemporaryDirectory() as folder:
        # Sockets that are files: nobody else can connect, and no port can be taken meanwhile.
        kernel = AsyncKernelManager(
            kernel_name="python3", transport="ipc", connection_file=f"{own}/kernel.json"
        )
        client = NotebookClient(
            notebook,
            km=kernel,
            timeout=seconds,
            record_timing=False,
            coalesce_streams=True,  # one output a cell, however the prints came in
            resources={"metadata": {"path": folder}},
        )
        surroundings = {
            "LORAWORKS_CACHE": own,  # nothing is found ready that others would have to compute
            **plain_environment(),
            "IPYTHONDIR": own,  # nor the settings and history of whoever runs this
            "PYTHONWARNINGS": "ignore:IProgress not found",  # tqdm's bars, which are off
        }
        client.execute(env=surroundings, cleanup_kc=True)
    notebook.metadata = metadata  # the kernel writes its version into it
