"""Check a base model in a child process: the service never loads it."""

import shutil
from pathlib import Path

import structlog
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from app.base_models.errors import BaseCheckCrashed, BaseCheckResourcesExceeded, BaseModelNotCached
from app.database.engines import Database
from app.datasets.files import create_temporary_upload_dir
from app.jobs.pretrained_bases import ResolvedBase, resolve_base
from app.registry import service as registry
from app.sandbox import runner
from app.settings import Settings
from app.storage.store import Store, verify_and_assemble_artifact
from lora_core import child_protocol
from lora_core.compatibility import read_encoder_shape
from lora_core.confinement_paths import link_targets
from lora_core.encoders.safety import ALLOWED_FILES, IGNORED_FILES
from lora_core.errors import LoraCoreError
from lora_core.errors.base_model import BaseNotFound
from lora_core.model_imports import metadata
from lora_core.results import BaseModelReport
from lora_core.samples import minilm

_MAX_OUTPUT_BYTES = 1_000_000

log = structlog.get_logger()


def check_base_in_subprocess(
    name: str, revision: str | None, *, database: Database, store: Store, settings: Settings
) -> BaseModelReport:
    """Run `python -m lora_core check-base` with the resource limits of an import, and return its
    report.

    Raises `BaseModelNotCached`, `BaseCheckResourcesExceeded`, `BaseCheckCrashed`, and what
    `resolve_base`, `read_encoder_shape` and `lora_core.base_model_check.run_base_model_check`
    raise.
    """
    base = resolve_base(name, revision, database=database, store=store, settings=settings)
    read_encoder_shape(base.config, base=base.name)  # refuses most bases without a process
    folder = create_temporary_upload_dir(settings)
    try:
        location = _find_files(base, folder, database=database, store=store)
        found = _check_in_child(base.name, location, settings)
    except BaseNotFound as error:
        if base.revision is None:
            raise
        raise BaseModelNotCached(base=base.name) from error  # the hub has what its copy here lacks
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return found.model_copy(update={"base": base.name, "commit": base.revision})


def _find_files(base: ResolvedBase, folder: Path, *, database: Database, store: Store) -> Path:
    """Return the directory of a base on this host, whose files are put together in `folder`."""
    if base.name == minilm.NAME:
        return minilm.build_cached_checkpoint()
    if base.from_registry:
        with database.read() as session:
            version = registry.resolve_model(session, base.name)
        name = f"model {version.ref}"
        directory = verify_and_assemble_artifact(
            store, version.artifact, folder / "model", name=name
        )
        if version.imported:
            metadata.validate_model_metadata(
                directory
            )  # may have been imported before these checks
        return directory
    if base.revision is None:
        return Path(base.name)
    try:
        return Path(
            snapshot_download(
                base.name,
                revision=base.revision,
                allow_patterns=list(ALLOWED_FILES),
                ignore_patterns=list(IGNORED_FILES),
                local_files_only=True,
            )
        )
    except LocalEntryNotFoundError as error:  # also if the copy is known to be incomplete
        raise BaseModelNotCached(base=base.name) from error


def _check_in_child(name: str, location: Path, settings: Settings) -> BaseModelReport:
    limits = runner.SandboxLimits(
        settings.import_memory_mb, settings.import_seconds, _MAX_OUTPUT_BYTES
    )
    readable = [location, *link_targets(location)]
    result = runner.run_lora_core_sandboxed(
        ["check-base", str(location)], limits=limits, readable=readable
    )
    if result.returncode == 0:
        return BaseModelReport.model_validate_json(result.stdout)
    if result.returncode == child_protocol.EXIT_FAILED:
        raise _with_name(result.parse_error(LoraCoreError), name, location)
    if result.timed_out:
        limit, setting = f"{settings.import_seconds:g} s", "LORAWORKS_IMPORT_SECONDS"
        raise BaseCheckResourcesExceeded(base=name, limit=limit, setting=setting)
    if result.out_of_memory:
        limit, setting = f"{settings.import_memory_mb} MB", "LORAWORKS_IMPORT_MEMORY_MB"
        raise BaseCheckResourcesExceeded(base=name, limit=limit, setting=setting)
    log.error("base check crashed", returncode=result.returncode, stderr=result.stderr[-2000:])
    raise BaseCheckCrashed(base=name)


def _with_name(error: LoraCoreError, name: str, location: Path) -> LoraCoreError:
    """Return the error with the public name of the base; the child only knows its directory."""
    detail = {
        key: value.replace(str(location), name) if isinstance(value, str) else value
        for key, value in error.detail.items()
    }
    return type(error)(**detail | ({"base": name} if "base" in detail else {}))
