"""Where calls are in the code: functions by name, and what they call. Line numbers are no names."""

import ast
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

_ROOT = Path(__file__).parents[2]
_TRANSACTIONS = ("write", "erase")
_CALLS = {
    "os.fsync": "fsync",
    "os.link": "rename",
    "os.rename": "rename",
    "os.replace": "rename",
    "os.remove": "unlink",
    "os.unlink": "unlink",
    "shutil.rmtree": "unlink",
    "subprocess.Popen": "spawn",
    "subprocess.run": "spawn",
}
_METHODS = {"rename": "rename", "unlink": "unlink"}  # of a path
_HASH_BYTES = 6
_Function = ast.FunctionDef | ast.AsyncFunctionDef


class Source(NamedTuple):
    """The functions of a module by their qualified names, and its text."""

    functions: dict[str, _Function]
    text: str


@cache
def read_source(module: str) -> Source:
    """Parse a module of this repository."""
    path = _ROOT.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    text = file.read_text(encoding="utf-8")
    return Source(dict(_named_functions(ast.parse(text), "")), text)


def _named_functions(parent: ast.AST, prefix: str) -> Iterator[tuple[str, _Function]]:
    for node in ast.iter_child_nodes(parent):
        if isinstance(node, _Function):
            yield prefix + node.name, node
            yield from _named_functions(node, f"{prefix}{node.name}.<locals>.")
        elif isinstance(node, ast.ClassDef):
            yield from _named_functions(node, f"{prefix}{node.name}.")
        else:
            yield from _named_functions(node, prefix)


def find_function(module: str, name: str) -> _Function | None:
    """Return a function; for a lambda or a comprehension, the function around it."""
    functions = read_source(module).functions
    while name not in functions:
        name, nested, _ = name.rpartition(".<locals>.")
        if not nested:
            return None
    return functions[name]


def own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    """Yield what is in a function, but not in a function within it."""
    for node in ast.iter_child_nodes(function):
        if not isinstance(node, _Function):
            yield node
            yield from own_nodes(node)


@cache
def transactions(module: str, name: str) -> list[tuple[int, int]]:
    """Return the first and last lines of the blocks in a function that end with a commit."""
    function = find_function(module, name)
    found = [
        (node.lineno, node.end_lineno or 0)
        for node in (own_nodes(function) if function is not None else ())
        if isinstance(node, ast.With) and any(map(_is_transaction, node.items))
    ]
    return sorted(found)


def _is_transaction(item: ast.withitem) -> bool:
    match item.context_expr:
        case ast.Call(func=ast.Attribute(value=owner, attr=name)):
            return name in _TRANSACTIONS and ast.unparse(owner).endswith("database")
    return False


def name_transaction(module: str, name: str, line: int) -> str:
    """Return the name of a function that commits; with a number if it has several transactions."""
    blocks = transactions(module, name)
    around = [number for number, (first, last) in enumerate(blocks, 1) if first <= line <= last]
    return f"{name} ({around[-1]})" if around and len(blocks) > 1 else name


def find_calls(package: str) -> Iterator[tuple[str, str]]:
    """Yield what the functions of a package do that outlives the process: (operation, site).

    These are the calls as they are written. What a layer below does for a function is not seen.
    """
    for file in sorted((_ROOT / package).rglob("*.py")):
        module = ".".join(file.relative_to(_ROOT).with_suffix("").parts).removesuffix(".__init__")
        for name, function in read_source(module).functions.items():
            for first, _ in transactions(module, name):
                yield "commit", f"{module}:{name_transaction(module, name, first)}"
            nodes = list(own_nodes(function))
            types = [node.value for node in nodes if isinstance(node, ast.Subscript)]
            for node in nodes:
                if node not in types and (operation := _operation(node)) is not None:
                    yield operation, f"{module}:{name}"


def _operation(node: ast.AST) -> str | None:
    """Return the operation of a call, also of one that is handed to another thread by name."""
    if not isinstance(node, ast.Attribute):
        return None
    written = ast.unparse(node)
    if written in _CALLS:
        return _CALLS[written]
    return None if written.startswith("os.") else _METHODS.get(node.attr)


def hash_site(site: str) -> int:
    """Return a hash of the functions that a call site names. As a number, it is no misspelling."""
    content = []
    for part in site.split(" of "):
        module, _, name = part.partition(" (")[0].partition(":")
        function, text = find_function(module, name), read_source(module).text
        content.append(text if function is None else ast.get_source_segment(text, function) or "")
    return int.from_bytes(sha256("\0".join(content).encode()).digest()[:_HASH_BYTES])
