"""What the code may not contain, checked in its syntax trees."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("app", "worker", "lora_core", "migrations")
TREES = {
    path: ast.parse(path.read_text(encoding="utf-8"))
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}
CATCH_ALL_NAMES = {"utils", "util", "helpers", "helper", "manager", "common", "misc", "core"}

# Formats that can run code when read.
BANNED_MODULES = {
    "pickle",
    "cPickle",
    "_pickle",
    "joblib",
    "cloudpickle",
    "dill",
    "shelve",
    "marshal",
}
BANNED_CALLS = {
    ("torch", "load"),
    ("serialization", "load"),  # of torch
    ("torch.serialization", "load"),
    ("yaml", "load"),
    ("os", "system"),
    ("os", "popen"),
}
BANNED_NAMES = {"eval", "exec"}
BANNED_KEYWORDS = {"shell", "trust_remote_code", "allow_pickle"}

# Files with imports inside functions: they start fast and load heavy packages where used.
LATE_IMPORTS = (
    "app/cli/",
    "lora_core/__main__.py",
    "lora_core/export/onnx.py",  # onnxruntime is an extra
    "lora_core/data/file_inspection.py",
    "lora_core/data/corrections.py",
    "lora_core/data/files.py",
    "lora_core/inference/load.py",
    "lora_core/paired_test.py",
    "lora_core/tasks/primary_metric.py",
    "app/serving/explanation.py",
    "app/serving/loaded_model.py",
    "app/serving/nearest_examples.py",
    "app/jobs/results/comparison.py",
    "app/sweeps/strategies.py",
    "app/charts/",
    "app/labeling/pools.py",
    "app/labeling/views.py",
)
STATEMENTS = {"select", "insert", "update", "delete"}
SQL_HOMES = (
    "app/queue/",
    "app/idempotency/service.py",
    "app/jobs/results/",
    "app/metrics/database.py",
    "app/retention/expiry.py",
    "app/sweeps/trials.py",
    "migrations/",
)


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def dotted(node: ast.AST) -> tuple[str, ...]:
    if isinstance(node, ast.Attribute):
        return (*dotted(node.value), node.attr)
    return (node.id,) if isinstance(node, ast.Name) else ()


def banned(source: ast.Module) -> Iterator[str]:
    """Every call or import that can run foreign code."""
    for node in ast.walk(source):
        match node:
            case ast.Import(names=names):
                yield from (
                    each.name for each in names if each.name.split(".")[0] in BANNED_MODULES
                )
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in BANNED_MODULES:
                yield module
            case ast.ImportFrom(module=str(module), names=names):
                yield from (each.name for each in names if (module, each.name) in BANNED_CALLS)
            case ast.Call(func=function, keywords=keywords):
                name = dotted(function)
                if name[-2:] in BANNED_CALLS or name in {(each,) for each in BANNED_NAMES}:
                    yield ".".join(name)
                for each in keywords:
                    off = isinstance(each.value, ast.Constant) and each.value.value is False
                    if each.arg in BANNED_KEYWORDS and not off:
                        yield f"{each.arg}="


def late_imports(source: ast.Module) -> Iterator[int]:
    for node in ast.walk(source):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Import | ast.ImportFrom):
                    yield inner.lineno


def sql(source: ast.Module) -> Iterator[str]:
    for node in ast.walk(source):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sqlalchemy"):
            yield from (each.name for each in node.names if each.name in STATEMENTS)


def test_no_catch_all_file_names() -> None:
    assert [named(path) for path in TREES if CATCH_ALL_NAMES & set(path.stem.split("_"))] == []


def test_no_call_can_run_foreign_code() -> None:
    assert [(named(path), found) for path in TREES for found in banned(TREES[path])] == []


def test_imports_are_at_the_top() -> None:
    strict = [path for path in TREES if not named(path).startswith(LATE_IMPORTS)]
    assert [(named(path), line) for path in strict for line in late_imports(TREES[path])] == []


def test_sql_is_only_in_repositories() -> None:
    strict = [
        path
        for path in TREES
        if path.name != "repository.py" and not named(path).startswith(SQL_HOMES)
    ]
    assert [(named(path), found) for path in strict for found in sql(TREES[path])] == []


def commits(source: ast.Module) -> Iterator[int]:
    for node in ast.walk(source):
        match node:
            case ast.Call(func=ast.Attribute(attr="commit"), lineno=line):
                yield line


def test_only_the_database_commits() -> None:
    strict = [path for path in TREES if named(path) != "app/database/engines.py"]
    assert [(named(path), line) for path in strict for line in commits(TREES[path])] == []


def test_package_init_files_contain_no_code() -> None:
    tables = {f"lora_core/{name}/__init__.py" for name in ("errors", "layers", "encoders", "tasks")}
    for path, tree in TREES.items():
        if path.name == "__init__.py" and named(path) not in tables | {"lora_core/__init__.py"}:
            assert ast.get_docstring(tree), named(path)
            assert len(tree.body) == 1, named(path)


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "import torch\ntorch.load('x')",
        "from torch import load",
        "torch.serialization.load('x')",
        "from torch.serialization import load",
        "from joblib import load\nload('x')",
        "numpy.load('x', allow_pickle=True)",
        "import yaml\nyaml.load(x)",
        "run('x', shell=True)",
        "run('x', shell=flag)",
        "M.from_pretrained('x', trust_remote_code=True)",
        "eval('1')",
        "import os\nos.system('x')",
    ],
)
def test_unsafe_calls_are_detected(code: str) -> None:
    assert list(banned(ast.parse(code)))
