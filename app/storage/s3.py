"""A store in a bucket of an S3-compatible object store."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import obstore
import obstore.store
import structlog
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    UnauthenticatedError,
)

from app.storage.errors import ArtifactExists, StorageRefused, StorageUnavailable
from app.storage.store import (
    CHECKPOINTS_PREFIX,
    OWNER_FILE,
    PROBE_FILE,
    RESERVED_FILES,
    ArtifactRef,
    Store,
    StoredFile,
    check_any_key,
    check_directory_key,
    check_file_key,
    verify_and_build_ref,
    verify_directory,
)
from app.storage.verified_cache import VerifiedCache
from lora_core import manifest
from lora_core.errors.artifact import ArtifactCorrupt
from lora_core.failpoints import failpoint

if TYPE_CHECKING:
    from obstore.store import RetryConfig

# First parts of all keys but those of checkpoints.
_OTHER_KINDS = ("jobs", "predictions", "vectors", "uploads", "imports", "bases")
_CLAIM_NAME = ".claim"  # no file of an artifact begins with a dot
PART_BYTES = 8 * 2**20
MAX_CONCURRENT_PARTS = 4
MAX_CREATE_ATTEMPTS = 3


# Only a few retries within seconds: callers that can wait longer retry visibly.
_RETRY_CONFIG: "RetryConfig" = {
    "max_retries": 3,
    "retry_timeout": timedelta(seconds=5),
    "backoff": {
        "init_backoff": timedelta(milliseconds=100),
        "max_backoff": timedelta(seconds=1),
        "base": 2,
    },
}
# Request timeouts: small objects are fast or fail; a download may be slow but must not stall. A
# large file is uploaded in requests of a few MB each.
METADATA_TIMEOUTS = {"connect_timeout": "3s", "timeout": "5s"}
DOWNLOAD_TIMEOUTS = {"connect_timeout": "3s", "read_timeout": "10s", "timeout": "1day"}
UPLOAD_TIMEOUTS = {"connect_timeout": "3s", "timeout": "2min"}

_STATUS_PATTERN = re.compile(r"status code: (\d{3})")
_CODE_PATTERN = re.compile(r"<Code>(\w{1,64})</Code>")
# Retryable 4xx. A 409 means that another write to the same key is in progress.
_TRANSIENT_STATUSES = {408, 409, 429}
_TRANSIENT_CODES = {"RequestTimeout"}  # has status 400
_MISSING_CREDENTIALS = ("Missing AccessKey", "Missing Secret")
# Without credentials, the client requests them from the instance metadata service.
_INSTANCE_METADATA_PATHS = ("/latest/api/token", "/latest/meta-data")
_NO_CREDENTIALS = "no credentials, set AWS_ACCESS_KEY_ID and the secret"
_CONFIGURATION_ERRORS = ("builder error", "incorrectly configured region")

log = structlog.get_logger(__name__)


class S3Store(Store):
    """Stores objects under `<prefix>/<key>/`, with the same names as a local store.

    Several objects cannot appear atomically, so the manifest is uploaded last: a directory without
    one does not exist. The first object is the claim, created only if absent, with the digest of
    the manifest. From then on, no other process can put different bytes under the key, and an
    interrupted put can be repeated.
    """

    def __init__(self, bucket: str, prefix: str, *, cache: VerifiedCache) -> None:
        super().__init__()
        self._bucket = bucket
        self._prefix = prefix
        self._cache = cache

    def move_directory_into_store(self, directory: Path, key: str) -> ArtifactRef:
        ref = verify_and_build_ref(directory, check_directory_key(key))
        self._claim(ref)
        with translate_s3_errors():
            for name in manifest.read(directory)["files"]:
                self._upload(directory / name, f"{key}/{name}")
            failpoint("store_files_written")
            manifest_bytes = (directory / manifest.MANIFEST_FILE).read_bytes()
            if self._create(f"{key}/{manifest.MANIFEST_FILE}", manifest_bytes) != manifest_bytes:
                raise ArtifactExists(key=key)
        shutil.rmtree(directory, ignore_errors=True)
        return ref

    def local_directory(self, ref: ArtifactRef) -> Path:
        return self._cache.get(
            check_directory_key(ref.key),
            ref.manifest_sha256,
            fetch=partial(self._download_directory, ref.key),
            verify=partial(verify_directory, ref=ref),
        )

    def verified_directory(self, ref: ArtifactRef) -> Path:
        return self.local_directory(ref)  # the cache verifies it

    def _read_file(self, name: str) -> bytes:
        with translate_s3_errors():
            content = self._read(name)
        if content is None:
            raise self._missing_error(name)
        return content

    def move_file_into_store(self, path: Path, key: str) -> None:
        with translate_s3_errors():
            if self._read(check_file_key(key), head=True) is not None:
                raise ArtifactExists(key=key)
            self._upload(path, key)
        path.unlink(missing_ok=True)

    def verified_file(self, key: str, sha256: str) -> Path:
        name = PurePosixPath(check_file_key(key)).name

        def fetch(directory: Path) -> None:
            self._download(key, directory / name)

        def verify(directory: Path) -> None:
            if manifest.file_sha256(directory / name) != sha256:
                raise ArtifactCorrupt(path=name, problem="the file has changed")

        return self._cache.get(key, sha256, fetch=fetch, verify=verify) / name

    def delete(self, key: str) -> None:
        check_any_key(key)
        with translate_s3_errors():
            names = [file.name for file in self._list(key)]
            first = f"{key}/{manifest.MANIFEST_FILE}"  # without it, the directory does not exist
            claim = f"{key}/{_CLAIM_NAME}"
            for batch in ([key, first], [name for name in names if name != claim], [claim]):
                obstore.delete(self._metadata_client, batch)

    def list_files(self) -> Iterator[StoredFile]:
        with translate_s3_errors():
            yield from (file for file in self._list(None) if file.name not in RESERVED_FILES)

    def get_or_set_owner(self, candidate: str | None) -> str | None:
        with translate_s3_errors():
            if candidate is not None:
                return self._create(OWNER_FILE, candidate.encode()).decode()
            owner = self._read(OWNER_FILE)
            return None if owner is None else owner.decode()

    def read_clock(self) -> float:
        with translate_s3_errors():
            obstore.put(self._metadata_client, PROBE_FILE, b"")
            return obstore.head(self._metadata_client, PROBE_FILE)["last_modified"].timestamp()

    @cached_property
    def _metadata_client(self) -> obstore.store.S3Store:
        return create_client(self._bucket, self._prefix, METADATA_TIMEOUTS)

    @cached_property
    def _download_client(self) -> obstore.store.S3Store:
        return create_client(self._bucket, self._prefix, DOWNLOAD_TIMEOUTS)

    @cached_property
    def _upload_client(self) -> obstore.store.S3Store:
        return create_client(self._bucket, self._prefix, UPLOAD_TIMEOUTS)

    def _claim(self, ref: ArtifactRef) -> None:
        """Claim the key for these bytes. Raises `ArtifactExists` if other bytes have claimed it."""
        digest = ref.manifest_sha256.encode()
        with translate_s3_errors():
            if self._create(f"{ref.key}/{_CLAIM_NAME}", digest) != digest:
                raise ArtifactExists(key=ref.key)

    def _create(self, name: str, content: bytes) -> bytes:
        """Create a small object unless it exists, and return the content that is stored then.

        S3 also rejects a write while another write or a deletion is in progress, which may fail.
        So the object only counts as existing if it can be read.
        """
        for _ in range(MAX_CREATE_ATTEMPTS):
            with suppress(AlreadyExistsError):
                obstore.put(self._metadata_client, name, content, mode="create")
                return content
            existing = self._read(name)
            if existing is not None:
                return existing
        raise StorageUnavailable(reason="another process is writing to the same key")

    def _download_directory(self, key: str, target: Path) -> None:
        self._download(f"{key}/{manifest.MANIFEST_FILE}", target / manifest.MANIFEST_FILE)
        for name in manifest.read(target)["files"]:
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise ArtifactCorrupt(
                    path=key, problem="manifest.json lists a file outside the directory"
                )
            self._download(f"{key}/{name}", target / name)

    def _upload(self, path: Path, name: str) -> None:
        obstore.put(
            self._upload_client,
            name,
            path,
            chunk_size=PART_BYTES,
            max_concurrency=MAX_CONCURRENT_PARTS,
        )

    def _download(self, name: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with translate_s3_errors(), target.open("wb") as file:
                for chunk in obstore.get(self._download_client, name).stream(PART_BYTES):
                    file.write(chunk)
        except FileNotFoundError as error:
            raise self._missing_error(name) from error

    def _read(self, name: str, *, head: bool = False) -> bytes | None:
        """Return a small object, or None if it does not exist. With `head`, return no content."""
        try:
            result = obstore.get(self._metadata_client, name, options={"head": head})
            return b"" if head else bytes(result.bytes())
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise
            return None

    def _list(self, key: str | None) -> Iterator[StoredFile]:
        for page in obstore.list(self._metadata_client, key):
            for meta in page:
                yield StoredFile(meta["path"], meta["size"], meta["last_modified"].timestamp())

    def _missing_error(self, name: str) -> ArtifactCorrupt | StorageRefused:
        """Return the error for a missing object.

        If there is no other object of its kind, the bucket or the prefix may be the wrong one. A
        wrong one is not recognized once anything of the kind was written to it.
        Checkpoints count as deleted if anything else is stored, as in a local store.
        """
        kind = name.partition("/")[0]
        others = _OTHER_KINDS if kind == CHECKPOINTS_PREFIX else ()
        with translate_s3_errors():
            if not any(any(self._list(each)) for each in (kind, *others)):
                return StorageRefused(reason=f"nothing is stored under {kind}/")
        return ArtifactCorrupt(path=name, problem=f"{PurePosixPath(name).name} is missing")


def create_client(bucket: str, prefix: str, timeouts: Any) -> obstore.store.S3Store:
    """Create a client with `METADATA_TIMEOUTS`, `DOWNLOAD_TIMEOUTS` or `UPLOAD_TIMEOUTS`.

    Credentials and endpoint come from `AWS_…`. Raises `StorageRefused` if one half of the
    credentials is missing.
    """
    with translate_s3_errors():
        # As `client_options`, the timeouts would override AWS_ALLOW_HTTP and similar variables.
        return obstore.store.S3Store(
            bucket, prefix=prefix or None, retry_config=_RETRY_CONFIG, config=timeouts
        )


@contextmanager
def translate_s3_errors() -> Iterator[None]:
    """Raise errors of obstore as errors of the store, but keep `FileNotFoundError`."""
    try:
        yield
    except FileNotFoundError as error:
        if "NoSuchBucket" not in str(error):
            raise
        raise StorageRefused(reason="there is no such bucket") from error
    except BaseError as error:
        text = str(error)
        log.warning("the store cannot be used", error=text.split("\n\nDebug source")[0])
        raise _to_storage_error(error, text) from error


def _to_storage_error(error: BaseError, text: str) -> StorageRefused | StorageUnavailable:
    status, code = _STATUS_PATTERN.search(text), _CODE_PATTERN.search(text)
    if any(phrase in text for phrase in _MISSING_CREDENTIALS):
        return StorageRefused(reason=_NO_CREDENTIALS)
    if any(phrase in text for phrase in _CONFIGURATION_ERRORS):
        return StorageRefused(reason="wrong endpoint or region, or http without AWS_ALLOW_HTTP")
    without_credentials = any(path in text for path in _INSTANCE_METADATA_PATHS)
    if status is None:
        reason = "no connection, or no response in time"
        if without_credentials:
            reason = f"{_NO_CREDENTIALS}; {reason}"
        return StorageUnavailable(reason=reason)
    number = int(status[1])
    reason = f"status {number}" + (f", {code[1]}" if code else "")
    transient = number in _TRANSIENT_STATUSES or (code is not None and code[1] in _TRANSIENT_CODES)
    denied = isinstance(error, PermissionDeniedError | UnauthenticatedError)
    if denied or (400 <= number < 500 and not transient):
        return StorageRefused(reason=_NO_CREDENTIALS if without_credentials else reason)
    return StorageUnavailable(reason=reason)
