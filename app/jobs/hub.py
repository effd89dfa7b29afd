"""Hub models: which commit a name means now, which files it has, and its config."""

from dataclasses import dataclass
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

from lora_core.encoders.safety import parse_config, read_config
from lora_core.errors.base import BaseNotFound
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
