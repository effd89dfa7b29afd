"""Every file and function that docs/architecture.md names exists."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
# A file, and the names that follow it before another file is named.
HOP = re.compile(r"`((?:app|worker|lora_core)/[a-z_/]+\.py)`((?:[\s,]*`\w+`)+)")
HOPS = [(path, re.findall(r"`(\w+)`", names)) for path, names in HOP.findall(DOCUMENT)]


@pytest.mark.parametrize(("path", "names"), HOPS, ids=[f"{p}:{n[0]}" for p, n in HOPS])
def test_named_files_and_functions_exist(path: str, names: list[str]) -> None:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    defined = {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    assert set(names) <= defined
