"""What a training process may reach: which files, which devices, and whether the network."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from lora_core import confinement_paths
from lora_core.cache import FOLDER_LIMITS, NAMED_FOLDERS, cache_dir
from lora_core.confinement import Confinement
from lora_core.confinement_paths import (
    code_directories,
    environment_variable_paths,
    importable_directories,
)
from lora_core.failpoints import failpoint_file_directory
from lora_core.hf_hub import cache_directories

if TYPE_CHECKING:
    from worker.spawn import ChildTask

READABLE: tuple[str, ...] = confinement_paths.READABLE
WRITABLE: tuple[str, ...] = confinement_paths.WRITABLE
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - where the driver of a GPU shares memory
_CERTIFICATE_VARIABLES = ("REQUESTS_CA_BUNDLE", "SSL_CERT_DIR", "SSL_CERT_FILE")

log = structlog.get_logger(__name__)


def child_confinement(task: "ChildTask") -> Confinement:
    """Return what the process of a task may reach. Its caches are created if they are missing."""
    attempt_dir = task.attempt_dir
    shared = [cache_dir() / name for name in NAMED_FOLDERS]
    writable = [attempt_dir.workspace, *shared, *(cache_directories() if task.from_hub else ())]
    unlisted = [cache_dir() / name for name in FOLDER_LIMITS]
    for directory in (*writable, *unlisted):
        with suppress(OSError):  # the process reports it, if it needs this cache
            directory.mkdir(parents=True, exist_ok=True)
    is_on_gpu = task.device != "cpu"
    gpu = map(str, Path("/dev").glob("nvidia*"))
    inputs = [attempt_dir.spec, *task.inputs]
    if task.resume_from is not None:
        inputs.append(task.resume_from)
    certificates = [
        path for name in _CERTIFICATE_VARIABLES for path in environment_variable_paths(name)
    ]
    return Confinement(
        readable=(*READABLE, *code_directories(), *certificates, *map(str, inputs)),
        listable=importable_directories(),
        writable=(
            *WRITABLE,
            *map(str, (*writable, *filter(None, [failpoint_file_directory()]))),
            *((_SHARED_MEMORY,) if is_on_gpu else ()),
        ),
        unlisted=tuple(map(str, unlisted)),
        devices=tuple(gpu) if is_on_gpu else (),
        network=task.from_hub,
    )


def log_exposed_data(data_dir: Path) -> None:
    """Log if trainings could read all data, as these are below a directory that they need."""
    folders = [cache_dir() / name for name in (*NAMED_FOLDERS, *FOLDER_LIMITS)]
    code = map(Path, (*READABLE, *code_directories()))
    for directory in (*code, *cache_directories(), *folders):
        if data_dir.resolve().is_relative_to(directory.resolve()):
            log.warning(
                "trainings can read the data directory, as it is below one that they may read",
                data_dir=str(data_dir),
                readable=str(directory),
            )
