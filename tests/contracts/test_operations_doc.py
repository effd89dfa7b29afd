"""docs/how-to/operations.md speaks of settings, figures and commands that there are."""

import re
from pathlib import Path

import typer

from app.cli.main import app
from app.settings import PREFIX, Settings

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "how-to" / "operations.md").read_text(encoding="utf-8")


def test_every_setting_is_one() -> None:
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields} | {"LORAWORKS_CACHE"}
    assert set(re.findall(r"LORAWORKS_[A-Z_]+", TEXT)) <= known


def test_every_figure_is_one() -> None:
    text = (DOCS / "reference" / "metrics.md").read_text("utf-8")
    known = set(re.findall(r"`(loraworks_\w+)`", text))
    named = set(re.findall(r"\bloraworks_[a-z_]+", TEXT))
    assert named
    assert named <= known


def test_every_command_is_one() -> None:
    known = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    named = set(re.findall(r"(?:^|`|bin/|\d )loraworks ([a-z]+)", TEXT, re.MULTILINE))
    assert {"up", "api", "worker", "migrate", "keys", "gc"} <= named <= known


def test_every_option_of_a_command_is_one() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for name, option in re.findall(r"loraworks ([a-z]+)[^`\n]*? (--[a-z-]+)", TEXT):
        command = commands[name]
        below = getattr(command, "commands", {}).values() or [command]
        options = {text for each in below for option in each.params for text in option.opts}
        assert option in options, f"{name} {option}"


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (DOCS / target).exists(), target
