"""`python -m tests.notebooks.names`: check that what the notebooks import, name and call exists.

mypy reads their code as modules `notebooks.*`; `pyproject.toml` says what it overlooks there.
"""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.notebooks import course


def write_modules(package: Path) -> None:
    """Write the code of each notebook to a module of a new package. Lines keep their order."""
    package.mkdir()
    (package / "__init__.py").touch()
    for path in course.PATHS:
        cells = [cell.source for cell in course.code_cells(course.read(path))]
        module = package / f"nb_{path.stem.replace('-', '_')}.py"
        module.write_text("\n".join(cells), encoding="utf-8")


def main() -> None:
    with TemporaryDirectory() as folder:
        package = Path(folder, "notebooks")
        write_modules(package)
        checked = subprocess.run([sys.executable, "-m", "mypy", str(package)], check=False)
    sys.exit(checked.returncode)


if __name__ == "__main__":
    main()
