"""Types of what stands in environment variables: folders, and lists with commas between entries."""

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator
from pydantic_settings import NoDecode

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/*\s]+")


def _split(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(part for part in (part.strip() for part in value.split(",")) if part)
    return value


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()


def _origin(text: str) -> str:
    """As browsers write it, or it would match nothing."""
    origin = text.lower()
    if not _ORIGIN.fullmatch(origin):
        raise ValueError("an origin is a scheme and a host, such as https://lab.example")
    return origin


Folder = Annotated[Path, AfterValidator(_absolute)]
Origin = Annotated[str, AfterValidator(_origin)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Folders = Annotated[tuple[Folder, ...], NoDecode, BeforeValidator(_split)]
Origins = Annotated[tuple[Origin, ...], NoDecode, BeforeValidator(_split)]
