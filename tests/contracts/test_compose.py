"""docker-compose.yml is valid, not reachable from outside, and consistent with .env.example."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from app.cli.serve import API_GRACE_SECONDS, NOT_READY_SECONDS
from app.settings import ENV_PREFIX, Settings
from tests.compose import EXAMPLE, FILE, Service, example, services

SECRETS = {"POSTGRES_PASSWORD": "p" * 32, "VALKEY_PASSWORD": "v" * 32, "LORAWORKS_PEPPER": "x" * 32}
SERVICES = services(example() | SECRETS)
OURS = ("migrate", "api", "worker", "worker-gpu")
DRAIN_SECONDS = 60  # the grace of a training and the last transactions after it

every_service = pytest.mark.parametrize(
    "service", [pytest.param(service, id=name) for name, service in SERVICES.items()]
)


def seconds(text: str) -> int:
    number = re.fullmatch(r"(\d+)s", text)
    assert number, text
    return int(number[1])


def test_file_is_valid_for_compose() -> None:
    program = Path(sys.executable).with_name("check-jsonschema")
    done = subprocess.run(
        [program, "--builtin-schema", "vendor.compose-spec", "--no-cache", FILE],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_services_form_a_cluster() -> None:
    assert set(SERVICES) == {*OURS, "postgres", "valkey"}
    assert [SERVICES[name]["command"][0] for name in OURS] == ["migrate", "api", "worker", "worker"]
    assert [name for name in SERVICES if "profiles" in SERVICES[name]] == ["worker-gpu"]


@every_service
def test_services_have_minimal_privileges(service: Service) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    user, group = service["user"].split(":")
    assert int(user) > 0 < int(group)
    more = {"privileged", "cap_add", "devices", "pid", "ipc", "network_mode", "userns_mode", "uts"}
    assert more & set(service) == set()


@every_service
def test_images_of_others_are_pinned_by_digest(service: Service) -> None:
    ours = service["image"] == "loraworks"
    assert ours == ("build" in service)
    assert ours or re.fullmatch(r"[\w/]+:\d[\w.-]*@sha256:[0-9a-f]{64}", service["image"])


@every_service
def test_services_write_to_named_volumes_and_tmpfs_only(service: Service) -> None:
    """No bind mounts, so no Docker socket either."""
    for volume in service.get("volumes", []):
        name, place = volume.split(":")
        assert re.fullmatch("[a-z]+", name), volume
        assert place.startswith("/")
    assert any(each.startswith("/tmp:") for each in service["tmpfs"])  # noqa: S108


def test_only_the_api_is_published_and_only_on_localhost() -> None:
    published = {name: each["ports"] for name, each in SERVICES.items() if "ports" in each}
    assert published == {"api": ["127.0.0.1:8000:8000"]}
    outside = {name for name, each in SERVICES.items() if "outside" in each["networks"]}
    assert outside == {"api", "worker", "worker-gpu"}
    assert re.search(r"^  inside:\n    internal: true", FILE.read_text("utf-8"), re.MULTILINE)
    assert SERVICES["api"]["environment"]["LORAWORKS_AUTH"] == "on"


@every_service
def test_services_have_a_health_check_or_run_once(service: Service) -> None:
    if service["restart"] == "no":
        assert "healthcheck" not in service
        return
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    assert seconds(service["healthcheck"]["timeout"]) < seconds(service["healthcheck"]["interval"])


@pytest.mark.parametrize("name", ["api", "worker", "worker-gpu"])
def test_each_command_has_its_own_check(name: str) -> None:
    [command] = SERVICES[name]["command"]
    assert SERVICES[name]["healthcheck"]["test"] == ["CMD", "loraworks", command, "--check"]


def test_services_start_after_their_dependencies() -> None:
    needs = {
        name: {other: how["condition"] for other, how in SERVICES[name]["depends_on"].items()}
        for name in OURS
    }
    first = {"postgres": "service_healthy"}
    ready = {**first, "migrate": "service_completed_successfully"}
    assert needs["migrate"] == first
    assert needs["api"] == {**ready, "valkey": "service_started"}  # jobs are taken without it
    assert needs["worker"] == needs["worker-gpu"] == {**ready, "valkey": "service_healthy"}


def test_services_have_a_grace_period() -> None:
    requests = NOT_READY_SECONDS + API_GRACE_SECONDS
    assert seconds(SERVICES["api"]["stop_grace_period"]) > requests
    assert Settings.model_fields["stop_grace_seconds"].default < DRAIN_SECONDS
    for name in ("worker", "worker-gpu"):
        assert seconds(SERVICES[name]["stop_grace_period"]) > DRAIN_SECONDS


def test_gpu_worker_differs_in_devices_only() -> None:
    cpu, gpu = SERVICES["worker"], SERVICES["worker-gpu"]
    assert cpu["environment"]["LORAWORKS_DEVICES"] == "cpu"
    assert gpu["environment"] == cpu["environment"] | {"LORAWORKS_DEVICES": "auto"}
    [device] = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["count"]) == ("nvidia", "all")
    assert set(device["capabilities"]) == {"gpu", "compute", "utility"}  # the last: nvidia-smi
    own = {"profiles", "deploy", "environment"}
    assert {name for name in gpu if gpu[name] != cpu.get(name)} == own


def test_broker_never_evicts_and_disables_scripts() -> None:
    command = SERVICES["valkey"]["command"]
    for words in ("--maxmemory-policy noeviction", "--appendonly yes", "--user default off"):
        assert words in command
    assert "-@admin -@dangerous -@scripting" in command


def test_file_contains_no_secret() -> None:
    assert [example()[name] for name in SECRETS] == ["", "", ""]
    for line in FILE.read_text("utf-8").splitlines():
        if re.search("password|pepper", line, re.IGNORECASE):
            assert "${" in line, line


def test_example_lists_every_variable() -> None:
    used = set(re.findall(r"\$\{(\w+)", FILE.read_text("utf-8")))
    named = set(re.findall(r"^(?:# )?([A-Z_]+)=", EXAMPLE.read_text("utf-8"), re.MULTILINE))
    assert used <= named
    settings = {f"{ENV_PREFIX}{name.upper()}" for name in Settings.model_fields}
    assert {name for name in named if name.startswith(ENV_PREFIX)} <= settings
    for service in SERVICES.values():
        given = set(service.get("environment", {}))
        assert {name for name in given if name.startswith(ENV_PREFIX)} <= settings
