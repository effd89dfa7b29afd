"""Resolve the name of a base model to its config, before a job is accepted.

A base is the built-in sample, a directory of the operator, a version in the registry, or a model of
the Hugging Face Hub.
"""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from httpx2 import HTTPError
from huggingface_hub import CacheNotFound, HfApi, constants, hf_hub_url, scan_cache_dir
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # public, but exported lazily
    build_hf_headers,
    get_session,
    hf_raise_for_status,
)
from sqlalchemy.orm import Session

from app.database.engines import Database
from app.jobs.errors import (
    BaseDirectoriesDisabled,
    BaseDirectoryNotAllowed,
    InvalidBase,
    RevisionNotSupported,
)
from app.registry import service as registry
from app.registry.errors import InvalidModelRef, ModelNotFound, NoModelPromoted
from app.settings import Settings
from app.storage.store import Store
from lora_core import artifact_base_sharing, manifest
from lora_core.encoders.safety import (
    check_has_fast_tokenizer,
    check_has_safetensors,
    check_needs_no_custom_code,
    parse_config,
    read_config,
)
from lora_core.errors.artifact import ArtifactCorrupt
from lora_core.errors.base_model import BaseNotFound, GatedBase, LinearBase
from lora_core.hf_hub import (
    build_gated_error_detail,
    describe_transient_failure,
    is_allowed_repository,
    is_hub_name,
)
from lora_core.samples import minilm
from lora_core.specs.fields import looks_like_model_version, looks_like_path
from lora_core.specs.pooling import POOLING_FILE

HUB_TIMEOUT_SECONDS = 5

# Raised when the hub is unreachable: no network, a server error, or HF_HUB_OFFLINE.
_UNREACHABLE = (HTTPError, OSError)


_REGISTRY_NAME = re.compile(r"[a-z0-9-]{1,64}([@:][a-z0-9-]{1,64})?")


# Models of the hub


@dataclass(frozen=True)
class HubModel:
    """One commit of a model repository on the Hugging Face Hub."""

    commit: str
    files: tuple[str, ...]
    config: dict[str, Any]


def resolve_hub_model(name: str, revision: str | None) -> HubModel:
    """Return the commit that `revision`, or else the main branch, currently refers to.

    Falls back to the local cache when the hub is unreachable or limits requests. Raises
    `BaseNotFound`, `GatedBase`, `UnreadableBase`.
    """
    try:
        return _query_hub(name, revision)
    except GatedRepoError as error:
        raise GatedBase(base=name, **build_gated_error_detail(name)) from error
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        reason = "the hub has no such model or revision, or it is private"
        raise BaseNotFound(base=name, reason=reason) from error
    except EntryNotFoundError as error:
        raise BaseNotFound(base=name, reason="it has no config.json") from error
    except _UNREACHABLE as error:
        if isinstance(error, HfHubHTTPError) and describe_transient_failure(error) is None:
            reason = f"the hub responded with {error.response.status_code}"
            raise BaseNotFound(base=name, reason=reason) from error
        if (cached := _from_cache(name, revision)) is not None:
            return cached
        reason = (
            "the hub is unreachable or limits requests, and the model is not in the local cache"
        )
        raise BaseNotFound(base=name, reason=reason) from error


def _query_hub(name: str, revision: str | None) -> HubModel:
    info = HfApi().model_info(name, revision=revision, timeout=HUB_TIMEOUT_SECONDS)
    if info.sha is None:
        raise BaseNotFound(base=name, reason="the hub returned no commit")
    files = tuple(file.rfilename for file in info.siblings or ())
    pooling = _download(name, info.sha, POOLING_FILE) if POOLING_FILE in files else None
    config = parse_config(_download(name, info.sha, "config.json"), name, pooling=pooling)
    return HubModel(info.sha, files, config)


def _download(name: str, commit: str, file: str) -> bytes:
    # Not `hf_hub_download`, which retries for half a minute while the hub is down.
    url = hf_hub_url(name, file, revision=commit)
    response = get_session().get(url, headers=build_hf_headers(), timeout=HUB_TIMEOUT_SECONDS)
    hf_raise_for_status(response)
    return response.content


def _from_cache(name: str, revision: str | None) -> HubModel | None:
    """Return the revision, or else the cached main branch, or else the latest download."""
    try:
        repositories = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        return None
    commits = [
        commit
        for repository in repositories
        if repository.repo_type == "model" and repository.repo_id == name
        for commit in repository.revisions
        if revision in (None, commit.commit_hash)
        and (commit.snapshot_path / "config.json").is_file()
    ]
    if not commits:
        return None
    best = max(commits, key=lambda commit: ("main" in commit.refs, commit.last_modified))
    return HubModel(
        commit=best.commit_hash,
        files=tuple(
            file.file_path.relative_to(best.snapshot_path).as_posix() for file in best.files
        ),
        config=read_config(best.snapshot_path, name),
    )


# Bases of jobs


@dataclass(frozen=True)
class ResolvedBase:
    """A base that was looked up. `name` is stored in the spec: it has a permanent meaning."""

    name: str
    config: dict[str, Any]
    content_id: str  # identifies the bytes: a commit or a hash
    revision: str | None = None  # commit of a hub model
    from_registry: bool = False  # a version in the registry of this installation


FindBase = Callable[[str, str | None], ResolvedBase]  # (name, revision)


def build_base_resolver(database: Database, store: Store, settings: Settings) -> FindBase:
    """Return `resolve_base` for bases of this installation."""
    return partial(resolve_base, database=database, store=store, settings=settings)


def resolve_base(
    name: str,
    revision: str | None,
    *,
    database: Database,
    store: Store,
    settings: Settings,
) -> ResolvedBase:
    """Look up a base. Call this outside of a transaction, since it may query the hub.

    Raises `InvalidBase`, `BaseDirectoriesDisabled`, `BaseDirectoryNotAllowed`,
    `RevisionNotSupported`, and the subclasses of `lora_core.errors.base_model.BaseModelError`.
    """
    base = _resolve_outside_hub(name, database=database, store=store, settings=settings)
    if base is None:
        base = _resolve_hub(name, revision, settings)
    elif revision is not None:
        raise RevisionNotSupported(base=base.name, revision=revision, at="base_revision")
    check_needs_no_custom_code(base.name, base.config)
    return base


def check_base_not_deleted(session: Session, base: ResolvedBase) -> None:
    """Raise `BaseNotFound` if the version was deleted since it was looked up."""
    if base.from_registry:
        _find_version(session, base.name)


def lock_base_against_deletion(session: Session, name: str) -> None:
    """Lock the base of a job against deletion until the job is stored. Raises `BaseNotFound`."""
    if looks_like_model_version(name):
        _find_version(session, name, lock_against_deletion=True)


def _resolve_outside_hub(
    name: str, *, database: Database, store: Store, settings: Settings
) -> ResolvedBase | None:
    if name == minilm.NAME:
        minilm.check_available()
        return ResolvedBase(name, minilm.build_distilbert_config_dict(), content_id=minilm.REVISION)
    if looks_like_path(name):
        return _resolve_directory(name, settings)
    if not _REGISTRY_NAME.fullmatch(name):
        return None
    with database.read() as session:
        version = _find_version(session, name)
    if version is None:
        return None
    try:
        listing = json.loads(store.read(version.artifact, manifest.MANIFEST_FILE))
        if manifest.is_linear(listing["files"]):
            raise LinearBase(base=name)
        config = _read_config(store, version)
    except ArtifactCorrupt as error:
        raise BaseNotFound(base=name, reason="its files are missing or damaged") from error
    digest = version.artifact.manifest_sha256
    return ResolvedBase(version.ref, config, content_id=digest, from_registry=True)


def _read_config(store: Store, version: registry.ResolvedModel) -> dict[str, Any]:
    """Return the config of a version, with its labels."""
    ref = version.artifact
    if ref.base is None:
        return parse_config(store.read(ref, f"{manifest.MERGED_DIR}/config.json"), version.ref)
    config = parse_config(store.read(ref.base, artifact_base_sharing.CONFIG_FILE), version.ref)
    return artifact_base_sharing.join_classifier_config(
        config, json.loads(store.read(ref, manifest.CLASSIFIER_FILE))
    )


def _find_version(
    session: Session, name: str, *, lock_against_deletion: bool = False
) -> registry.ResolvedModel | None:
    """Return the version a name refers to; None if it can only be a hub model."""
    try:
        return registry.resolve_model(session, name, lock_against_deletion=lock_against_deletion)
    except InvalidModelRef as error:
        raise InvalidBase(base=name[:100], at="base") from error
    except NoModelPromoted as error:
        reason = f"no version of it is in production yet; name one, such as '{name}:1'"
        raise BaseNotFound(base=name, reason=reason) from error
    except ModelNotFound as error:
        if "@" in name or ":" in name:
            raise BaseNotFound(
                base=name, reason="there is no such model in the registry"
            ) from error
        return None


def _resolve_directory(name: str, settings: Settings) -> ResolvedBase:
    """Resolve a directory inside one of the operator's folders; relative names start there."""
    if not settings.base_dirs:
        raise BaseDirectoriesDisabled(base=name[:100], at="base")
    roots = [folder.resolve() for folder in settings.base_dirs]
    try:
        paths = [(root / name).resolve() for root in roots]  # follows every symbolic link
        inside = [
            path for path, root in zip(paths, roots, strict=True) if path.is_relative_to(root)
        ]
        if not inside:
            raise BaseDirectoryNotAllowed(base=name[:100], at="base")
        directory = next((path for path in inside if path.is_dir()), None)
        if directory is None:
            raise BaseNotFound(base=name, reason="there is no such directory")
        files = [path.name for path in directory.iterdir()]
        check_has_safetensors(name, files)
        check_has_fast_tokenizer(name, files)
        config = read_config(directory, name)
        return ResolvedBase(str(directory), config, content_id=_directory_fingerprint(directory))
    except (OSError, RuntimeError) as error:  # no permission, a loop of symbolic links
        raise BaseNotFound(base=name, reason="the directory cannot be read") from error


def _directory_fingerprint(directory: Path) -> str:
    """Return a hash of file sizes and times; reading the bytes would take seconds."""
    files = sorted(path for path in directory.iterdir() if path.is_file())
    facts = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(f"{directory} {facts}".encode()).hexdigest()


def _resolve_hub(name: str, revision: str | None, settings: Settings) -> ResolvedBase:
    if not is_hub_name(name):
        raise InvalidBase(base=name[:100], at="base")
    if not is_allowed_repository(name, settings.hub_models):
        reason = (
            "it is neither in the registry nor among the allowed hub models: "
            f"{', '.join(settings.hub_models) or 'none'} (LORAWORKS_HUB_MODELS)"
        )
        raise BaseNotFound(base=name, reason=reason)
    model = resolve_hub_model(name, revision)
    check_has_safetensors(name, model.files)
    check_has_fast_tokenizer(name, model.files)
    return ResolvedBase(name, model.config, content_id=model.commit, revision=model.commit)
