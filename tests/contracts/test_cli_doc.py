"""docs/reference/cli.md lists every command and option.

`UPDATE_DOCS=1 pytest tests/contracts` writes it.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from app.cli.errors import EXIT_CODES
from app.cli.main import app

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "cli.md"
MARK = "<!-- made by `UPDATE_DOCS=1 pytest tests/contracts`; do not edit below -->"
BRACES = {ord(brace): None for brace in "{}"}  # typer's marks of a metavar


def commands(command: Any = None, above: str = "") -> Iterator[tuple[str, Any]]:
    command = command or typer.main.get_command(app)
    name = f"{above} {command.name}".strip()
    yield name, command
    for child in getattr(command, "commands", {}).values():
        yield from commands(child, name)


def parameters(command: Any) -> Iterator[tuple[str, str]]:
    context = typer.Context(command)
    for parameter in command.get_params(context):
        if parameter.param_type_name == "argument":
            yield parameter.metavar, parameter.help
        elif "--help" not in parameter.opts:
            yield parameter.get_help_record(context)


def section(name: str, command: Any) -> str:
    pieces = command.collect_usage_pieces(typer.Context(command))
    usage = " ".join([name, *(piece.translate(BRACES) for piece in pieces)])
    rows = "".join(
        "| `{}` | {} |\n".format(*(" ".join(cell.split()).replace("|", r"\|") for cell in row))
        for row in parameters(command)
    )
    table = f"\n| | |\n|---|---|\n{rows}" if rows else ""
    return f"## {name}\n\n{command.help}\n\n```\n{usage}\n```\n{table}"


def reference() -> str:
    codes = "".join(f"| {code} | {meaning} |\n" for code, meaning in EXIT_CODES.items())
    exits = f"## Exit codes\n\n| code | meaning |\n|---|---|\n{codes}"
    return "\n".join([exits, *(section(name, command) for name, command in commands())])


def test_every_command_and_option_has_help() -> None:
    for name, command in commands():
        assert command.help, name
        for parameter, meaning in parameters(command):
            assert meaning, f"{name} {parameter}"


def test_document_matches_the_commands() -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    expected = f"{document.partition(MARK)[0]}{MARK}\n\n{reference()}"
    if os.environ.get("UPDATE_DOCS") == "1":
        DOCUMENT.write_text(expected, encoding="utf-8")
        document = expected
    assert document == expected
