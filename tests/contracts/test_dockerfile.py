"""Dockerfile and .dockerignore: linted, unprivileged, consistent with pyproject.toml."""

import re
import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version
from typer.main import get_command

from app.cli.main import app
from app.settings import ENV_PREFIX, Settings
from lora_core.fast.native import build

ROOT = Path(__file__).parents[2]
FILE = ROOT / "Dockerfile"
TEXT = FILE.read_text("utf-8").replace("\\\n", " ")
LINES = [line.strip() for line in TEXT.splitlines() if line.strip() and not line.startswith("#")]


def arguments(instruction: str) -> list[str]:
    """The arguments of an instruction, each time it is used."""
    return [line.partition(" ")[2] for line in LINES if line.split()[0] == instruction]


def environment() -> dict[str, str]:
    return dict(pair.split("=", 1) for line in arguments("ENV") for pair in line.split())


def test_dockerfile_passes_the_linter() -> None:
    program = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [program, "--failure-threshold", "style", FILE],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "")


def test_base_image_is_pinned_by_version_and_digest() -> None:
    compiler, base = (line.partition("@") for line in arguments("FROM"))
    found = re.fullmatch(r"python:(3\.\d+)\.\d+-slim-trixie", base[0])
    assert found, base
    assert compiler[0] == base[0].replace("-slim", "")
    assert re.fullmatch("sha256:[0-9a-f]{64}", base[2])
    assert re.fullmatch("sha256:[0-9a-f]{64} AS native", compiler[2])
    assert f">={found[1]}," in (ROOT / "pyproject.toml").read_text("utf-8")


def test_image_has_the_native_engine_where_it_is_looked_for() -> None:
    version = arguments("FROM")[1].removeprefix("python:").rsplit(".", 1)[0]
    installed = f"/usr/local/lib/python{version}/site-packages"
    target = f"{installed}/{build.BUILD_DIR.relative_to(ROOT)}"
    assert arguments("COPY") == [f"--from=native /native {target}"]


def test_image_runs_as_an_unprivileged_user() -> None:
    assert arguments("USER") == ["10001:10001"]
    assert arguments("STOPSIGNAL") == ["SIGTERM"]


def test_only_data_and_tmp_are_written() -> None:
    given = environment()
    places = [given[name] for name in ("HOME", "HF_HOME", "LORAWORKS_CACHE", "LORAWORKS_DATA_DIR")]
    assert all(place.startswith(("/data", "/tmp")) for place in places), places  # noqa: S108


def test_image_has_no_secret_and_authentication_is_on() -> None:
    given = environment() | dict(line.split("=", 1) for line in arguments("ARG"))
    assert not [name for name in given if re.search("KEY|TOKEN|SECRET|PASSWORD|PEPPER", name)]
    assert given["LORAWORKS_AUTH"] == "on"
    settings = {f"{ENV_PREFIX}{name.upper()}" for name in Settings.model_fields} | {
        "LORAWORKS_CACHE"
    }
    assert {name for name in given if name.startswith(ENV_PREFIX)} <= settings


def test_commands_of_the_image_exist() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    assert {"api", "worker", "migrate"} <= set(commands)
    assert arguments("ENTRYPOINT") == ['["loraworks"]']
    assert arguments("CMD") == ['["api"]']
    assert arguments("HEALTHCHECK") == []  # each command has its own, in the compose file


def test_torch_version_is_allowed_by_the_package() -> None:
    [version] = re.findall(r"ARG TORCH_VERSION=(\S+)", TEXT)
    [wanted] = re.findall(r'"(torch>=[^"]+)"', (ROOT / "pyproject.toml").read_text("utf-8"))
    assert Version(version) in Requirement(wanted).specifier
    assert "ARG TORCH_INDEX=\n" in TEXT  # empty: the build that runs on CPUs and GPUs


def test_build_context_contains_only_installed_files() -> None:
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    metadata = {"LICENSE", "README.md", "hatch_build.py", "pyproject.toml"}
    locks = {"requirements.lock", "requirements-torch.lock"}
    assert allowed == metadata | locks | {"app", "docs", "lora_core", "migrations", "worker"}
    assert all((ROOT / name).exists() for name in allowed)
