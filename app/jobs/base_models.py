"""Hub models: which commit a name means now, which files it has, and its config."""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from httpx2 import HTTPError
from huggingface_hub import CacheNotFound, HfApi, constants, hf_hub_url, scan_cache_dir
from huggingface_hub.errors import (
    EntryNotFoundError,
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
from app.jobs.errors import BaseDirectoriesOff, BaseOutside, InvalidBase, RevisionMismatch
from app.registry import service as registry
from app.registry.errors import InvalidModelRef, ModelNotFound, NoModelPromoted
from app.settings import Settings
from app.storage.store import Store
from lora_core import manifest
from lora_core.encoders.safety import check_code, check_weights, parse_config, read_config
from lora_core.errors.artifact import ArtifactCorrupt
from lora_core.errors.base import BaseNotFound
from lora_core.hub import is_hub_name
from lora_core.samples import minilm
from lora_core.specs.base import is_directory
from lora_core.specs.pooling import FILE as POOLING_FILE

TIMEOUT_SECONDS = 5

# Whatever keeps us from the hub: no network, its own failure, or HF_HUB_OFFLINE.
_UNREACHABLE = (HTTPError, OSError)


@dataclass(frozen=True)
class HubModel:
    """One commit of a repository."""

    commit: str
    files: tuple[str, ...]
    config: dict[str, Any]


def look_up(name: str, revision: str | None) -> HubModel:
    """The commit that `revision`, else the main branch, means now.

    When the hub does not answer, the local cache does. Raises `BaseNotFound`, `BrokenBase`.
    """
    try:
        return _ask(name, revision)
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        reason = "the hub has no such model or revision, or it is private or gated"
        raise BaseNotFound(base=name, reason=reason) from error
    except EntryNotFoundError as error:
        raise BaseNotFound(base=name, reason="it has no config.json") from error
    except _UNREACHABLE as error:
        if isinstance(error, HfHubHTTPError) and error.response.status_code < 500:
            reason = f"the hub answers {error.response.status_code}"
            raise BaseNotFound(base=name, reason=reason) from error
        if (cached := _from_cache(name, revision)) is not None:
            return cached
        reason = "the hub cannot be reached and it is not in the local cache"
        raise BaseNotFound(base=name, reason=reason) from error


def _ask(name: str, revision: str | None) -> HubModel:
    info = HfApi().model_info(name, revision=revision, timeout=TIMEOUT_SECONDS)
    if info.sha is None:
        raise BaseNotFound(base=name, reason="the hub tells no commit")
    files = tuple(file.rfilename for file in info.siblings or ())
    pooling = _fetch(name, info.sha, POOLING_FILE) if POOLING_FILE in files else None
    config = parse_config(_fetch(name, info.sha, "config.json"), name, pooling=pooling)
    return HubModel(info.sha, files, config)


def _fetch(name: str, commit: str, file: str) -> bytes:
    # Not `hf_hub_download`: while the hub is away it tries again for half a minute.
    url = hf_hub_url(name, file, revision=commit)
    answer = get_session().get(url, headers=build_hf_headers(), timeout=TIMEOUT_SECONDS)
    hf_raise_for_status(answer)
    return answer.content


def _from_cache(name: str, revision: str | None) -> HubModel | None:
    """The revision, else what was the main branch, else what was fetched last."""
    try:
        repositories = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        return None
    found = [
        commit
        for repository in repositories
        if repository.repo_type == "model" and repository.repo_id == name
        for commit in repository.revisions
        if revision in (None, commit.commit_hash)
        and (commit.snapshot_path / "config.json").is_file()
    ]
    if not found:
        return None
    best = max(found, key=lambda commit: ("main" in commit.refs, commit.last_modified))
    return HubModel(
        commit=best.commit_hash,
        files=tuple(file.file_name for file in best.files),
        config=read_config(best.snapshot_path, name),
    )


# MERGED app.jobs.base_models
# From the name of a base to its config, before anything is promised to the caller.

_OWN_NAME = re.compile(r"[a-z0-9-]{1,64}([@:][a-z0-9-]{1,64})?")


@dataclass(frozen=True)
class Base:
    """A base that was looked at. `name` is what the spec keeps: it means the same for ever."""

    name: str
    config: dict[str, Any]
    content: str  # names its bytes: another one has another
    revision: str | None = None  # commit of a hub model
    own: bool = False  # a version of this installation


def find(
    name: str | None,
    revision: str | None,
    *,
    database: Database,
    store: Store,
    settings: Settings,
) -> Base | None:
    """Look a base up; call it outside a transaction, since it may ask the hub.

    None: the method has no base, so there is nothing to look up.

    Raises `InvalidBase`, `BaseDirectoriesOff`, `BaseOutside`, `RevisionMismatch`, and the kinds of
    `lora_core.errors.base.BaseError`.
    """
    if name is None:
        return None
    base = _local(name, database=database, store=store, settings=settings)
    if base is None:
        base = _from_hub(name, revision, settings)
    elif revision is not None:
        raise RevisionMismatch(base=base.name, revision=revision, at="base_revision")
    check_code(base.name, base.config)
    return base


def check_there(session: Session, base: Base | None) -> None:
    """A version may have been deleted since it was looked up. Raises `BaseNotFound`."""
    if base is not None and base.own:
        _version(session, base.name)


def check_name(session: Session, name: str) -> None:
    """The same for the base that an earlier job names."""
    if _OWN_NAME.fullmatch(name):
        _version(session, name)


def _local(name: str, *, database: Database, store: Store, settings: Settings) -> Base | None:
    if name == minilm.NAME:
        return Base(name, minilm.config(), content=minilm.REVISION)
    if is_directory(name):
        return _from_directory(name, settings)
    if not _OWN_NAME.fullmatch(name):
        return None
    with database.read() as session:
        version = _version(session, name)
    if version is None:
        return None
    try:
        listing = json.loads(store.read(version.artifact, manifest.MANIFEST))
        if manifest.is_linear(listing["files"]):
            reason = "it is a linear model, which has no encoder to train"
            raise BaseNotFound(base=name, reason=reason)
        content = store.read(version.artifact, f"{manifest.MERGED}/config.json")
    except ArtifactCorrupt as error:
        raise BaseNotFound(base=name, reason="its files are missing or damaged") from error
    config, digest = parse_config(content, name), version.artifact.manifest_sha256
    return Base(version.ref, config, content=digest, own=True)


def _version(session: Session, name: str) -> registry.Resolved | None:
    """What a name means in the registry; None if it can only be a hub model."""
    try:
        return registry.resolve(session, name)
    except InvalidModelRef as error:
        raise InvalidBase(base=name[:100], at="base") from error
    except NoModelPromoted as error:
        reason = f"no version of it is in production yet; say which, such as '{name}:1'"
        raise BaseNotFound(base=name, reason=reason) from error
    except ModelNotFound as error:
        if "@" in name or ":" in name:
            raise BaseNotFound(base=name, reason="this installation has no such model") from error
        return None


def _from_directory(name: str, settings: Settings) -> Base:
    """A directory below one of the operator's folders; a relative name starts there."""
    if not settings.base_dirs:
        raise BaseDirectoriesOff(base=name[:100], at="base")
    roots = [folder.resolve() for folder in settings.base_dirs]
    try:
        places = [(root / name).resolve() for root in roots]  # follows every link
        inside = [place for place, root in zip(places, roots, strict=True)
                  if place.is_relative_to(root)]  # fmt: skip
        if not inside:
            raise BaseOutside(base=name[:100], at="base")
        directory = next((place for place in inside if place.is_dir()), None)
        if directory is None:
            raise BaseNotFound(base=name, reason="there is no such directory")
        check_weights(name, (path.name for path in directory.iterdir()))
        config = read_config(directory, name)
        return Base(str(directory), config, content=_stamps(directory))
    except (OSError, RuntimeError) as error:  # no right to look, a loop of links
        raise BaseNotFound(base=name, reason="the directory cannot be read") from error


def _stamps(directory: Path) -> str:
    """Sizes and times of the files: their bytes would take seconds to read."""
    files = sorted(path for path in directory.iterdir() if path.is_file())
    facts = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(f"{directory} {facts}".encode()).hexdigest()


def _from_hub(name: str, revision: str | None, settings: Settings) -> Base:
    if not is_hub_name(name):
        raise InvalidBase(base=name[:100], at="base")
    if name not in settings.hub_models:
        reason = (
            "it is no model of this installation and not among the hub models that it uses: "
            f"{', '.join(settings.hub_models) or 'none'} (LORAWORKS_HUB_MODELS)"
        )
        raise BaseNotFound(base=name, reason=reason)
    model = look_up(name, revision)
    check_weights(name, model.files)
    return Base(name, model.config, content=model.commit, revision=model.commit)
