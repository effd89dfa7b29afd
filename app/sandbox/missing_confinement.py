"""What the kernel of this machine cannot deny to confined processes."""

import subprocess
import sys

import structlog

from lora_core import confinement
from lora_core.confinement import TCP_ABI, TRUNCATE_ABI, denies_signals, landlock_abi

log = structlog.get_logger(__name__)


def log_missing_confinement() -> None:
    """Log what this machine cannot deny to the processes that train or read uploads."""
    abi = landlock_abi()
    denied = {"truncating files": abi >= TRUNCATE_ABI, "signals to processes": denies_signals()}
    not_denied = [what for what, is_denied in denied.items() if not is_denied]
    if abi == 0:
        log.warning(
            "the kernel has no Landlock: trainings and uploads can read every file of this user",
            needed="Linux 5.13 or later, with landlock among its security modules (lsm=)",
        )
    elif not_denied:
        log.warning(
            "Landlock of this kernel is too old to deny everything to trainings and uploads",
            landlock_abi=abi,
            not_denied=not_denied,
            needed="Linux 6.12 or later",
        )
    if not _network_namespaces_are_permitted():
        log.warning(
            "network namespaces are not permitted: trainings and uploads may reach the network",
            denied="TCP" if abi >= TCP_ABI else "nothing",
            needed="permission to create network namespaces, which containers often lack",
        )


def _network_namespaces_are_permitted() -> bool:
    """Try it in a child process, as this one must keep its network."""
    command = [sys.executable, "-I", "-S", confinement.__file__]
    return subprocess.run(command, check=False).returncode == 0
