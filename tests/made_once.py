"""Make the files of a directory once in each process, and write the same bytes from then on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

_made: dict[str, dict[Path, bytes]] = {}


def make_or_copy(make: Callable[..., object], directory: Path, **arguments: Any) -> Path:
    """Return `directory`, with what `make` writes into it for these arguments."""
    key = repr((make.__qualname__, sorted(arguments.items())))
    if key not in _made:
        others = set(directory.rglob("*"))
        make(directory, **arguments)
        files = [path for path in set(directory.rglob("*")) - others if path.is_file()]
        _made[key] = {path.relative_to(directory): path.read_bytes() for path in files}
        return directory
    for name, content in _made[key].items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    return directory
