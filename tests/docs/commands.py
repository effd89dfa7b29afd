"""Check commands that are not run: their names and options exist."""

import re
import shlex
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

import typer
from celery.bin.celery import celery as celery_command
from celery.worker.control import Panel
from fastapi.routing import iter_route_contexts
from flower.options import options as flower_options

from app.cli.main import app
from app.main import create_app
from app.settings import ENV_PREFIX, Settings
from lora_core.arguments import build_parser
from tests.compose import services
from tests.docs.blocks import ROOT

# The last three are read by the command line and the library.
SETTINGS = {f"{ENV_PREFIX}{name.upper()}" for name in Settings.model_fields} | {
    f"{ENV_PREFIX}{name}" for name in ("URL", "API_KEY", "CACHE")
}
# Other programs, and shell builtins.
OTHERS = {
    *(
        "aws",
        "createdb",
        "createuser",
        "dropdb",
        "git",
        "hf",
        "jupyter",
        "npx",
        "nvidia-smi",
        "pg_dump",
        "pg_restore",
        "pip",
        "pipx",
        "python3",
        "uv",
        "uvx",
    ),
    *(
        ".",
        "cd",
        "chmod",
        "cp",
        "do",
        "done",
        "find",
        "mkdir",
        "read",
        "rm",
        "set",
        "umask",
        "while",
    ),
}
WITH_VALUE = {"--entrypoint", "-e"}  # other options of docker compose
COMPOSE = {"build", "exec", "logs", "run", "stop", "up"}


def commands(text: str) -> Iterator[list[str]]:
    """The words of every command, without comments and redirections."""
    text = re.sub(r"(^|\s)#.*", r"\1", text, flags=re.MULTILINE).replace("\\\n", " ")
    lexer = shlex.shlex(text, posix=True, punctuation_chars="();<>|&\n")
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t", True, ""
    words: list[str] = []
    for word in lexer:
        if set(word) <= set("<>"):
            next(lexer)
        elif set(word) <= set("();|&\n"):
            yield from [words] if words else []
            words = []
        else:
            words.append(word)
    yield from [words] if words else []


def look_up(words: list[str]) -> None:
    """Raises `AssertionError` if a name or option does not exist."""
    while words and (found := re.match(r"(\w+)=", words[0])):
        assert not found[1].startswith(ENV_PREFIX) or found[1] in SETTINGS, found[1]
        words = words[1:]
    if not words:
        return
    name, *rest = words
    if name in OURS:
        OURS[name](rest)
    else:
        assert name in OTHERS, f"unknown program {name}"


def loraworks(words: list[str]) -> None:
    """Parse as the command line does."""
    command: Any = root()
    try:
        context = command.make_context("loraworks", list(words))
        while hasattr(command, "commands"):
            below = [*context._protected_args, *context.args]
            name, command, below = command.resolve_command(context, below)
            context = command.make_context(name, below, parent=context)
    except Exception as error:  # of the library that typer keeps to itself
        raise AssertionError(f"loraworks {' '.join(words)}: {error}") from error


def mention(words: list[str]) -> None:
    """Check `loraworks …` in prose, where arguments may be missing."""
    command: Any = root()
    options = {option for each in command.params for option in each.opts}
    for word in words:
        below = getattr(command, "commands", {})
        if word.startswith("-"):
            assert word.partition("=")[0] in options | {"--help"}, word
        elif below and word.islower() and word.isalpha():
            assert word in below, word
            command = below[word]
            options |= {option for each in command.params for option in each.opts}


def curl(words: list[str]) -> None:
    for word in words:
        if word.startswith("http://127.0.0.1:8000"):
            path = re.sub(r"\$\w+", "1", urlsplit(word).path)
            assert any(re.fullmatch(route, path) for route in routes()), path


def compose(words: list[str]) -> None:
    assert words.pop(0) == "compose"
    available, bare, values = services({}), [], iter(words)
    for word in values:
        if word == "--scale":
            assert next(values).partition("=")[0] in available
        elif word == "--profile":
            profile = next(values)
            assert any(profile in service.get("profiles", []) for service in available.values())
        elif word in WITH_VALUE:
            next(values)
        elif not word.startswith("-"):
            bare.append(word)
    subcommand, *rest = bare
    assert subcommand in COMPOSE, subcommand
    if subcommand not in {"exec", "run"}:
        assert set(rest) <= set(available), rest
        return
    service = rest[0]
    assert service in available, service
    if subcommand == "run" and "--entrypoint" not in words:
        inside = words[words.index(service) + 1 :]
        loraworks(inside or available[service]["command"])


def celery(words: list[str]) -> None:
    application, module, subcommand, *rest = words
    assert (application, module) == ("-A", "worker.celery_app")
    command = celery_command.commands[subcommand]
    options = {option for each in command.params for option in each.opts}
    if subcommand == "flower":  # which parses its own
        options = {f"--{name}" for name in flower_options.as_dict()}
    assert {word.partition("=")[0] for word in rest if word.startswith("-")} <= options, rest
    if subcommand in {"inspect", "control"}:
        assert rest[0] in Panel.meta, rest[0]


def make(words: list[str]) -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in words:
        assert "=" in word or re.search(rf"^{re.escape(word)}:", text, re.MULTILINE), word


def python(words: list[str]) -> None:
    while "-m" in words:  # one module may run another one
        module, *rest = words[words.index("-m") + 1 :]
        # Looking for pip has setuptools replace distutils, which may have been imported.
        assert module == "pip" or find_spec(module), module
        if module == "lora_core":
            try:
                build_parser(None).parse_args(rest)
            except SystemExit as error:
                raise AssertionError(f"python -m lora_core {' '.join(rest)}") from error
        words = rest


OURS: dict[str, Callable[[list[str]], None]] = {
    "celery": celery,
    "curl": curl,
    "docker": compose,
    "loraworks": loraworks,
    "make": make,
    "python": python,
}


@cache
def root() -> Any:
    """The root command."""
    return typer.main.get_command(app)


@cache
def routes() -> list[str]:
    """A pattern for the path of each."""
    contexts = iter_route_contexts(create_app(Settings()).router.routes)
    return [re.sub(r"\\\{.*?\\\}", "[^/]+", re.escape(each.path or "")) for each in contexts]
