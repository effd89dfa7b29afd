"""The compose file with the variables of the example filled in."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
FILE = ROOT / "docker-compose.yml"
EXAMPLE = ROOT / ".env.example"
_VARIABLE = re.compile(r"\$\{(\w+)(?::[-?]([^}]*))?\}|\$\$")

Service = dict[str, Any]


def services(variables: Mapping[str, str]) -> dict[str, Service]:
    """Every service, with merges made and variables filled in."""
    document = YAML(typ="safe", pure=True).load(_filled(FILE.read_text("utf-8"), variables))
    found: dict[str, Service] = document["services"]
    return found


def words(command: str | list[str]) -> list[str]:
    """A command as compose splits it."""
    return shlex.split(command) if isinstance(command, str) else [str(word) for word in command]


def example() -> dict[str, str]:
    """The variables of the example, which leaves the secrets empty."""
    lines = EXAMPLE.read_text("utf-8").splitlines()
    pairs = [line.partition("=") for line in lines if line and not line.startswith("#")]
    return {name: value for name, _, value in pairs}


def _filled(text: str, variables: Mapping[str, str]) -> str:
    def value(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        given = variables.get(found[1], "")
        return given or (found[2] or "" if ":-" in found[0] else "")

    return _VARIABLE.sub(value, text)
