"""How a base is named: the packaged sample, a directory, a hub model, or a version of a service."""

from typing import Annotated

from pydantic import StringConstraints

from lora_core.specs.patterns import NO_NUL

BaseName = Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=NO_NUL)]


def is_directory(base: str) -> bool:
    """Whether this names a directory."""
    return base.startswith(("./", "../", "/"))


def is_version(base: str) -> bool:
    """Whether this names a version of a service, such as `name:3`: no hub name has a colon."""
    return ":" in base and not is_directory(base)
