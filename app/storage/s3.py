"""A store in a bucket of an object store that speaks S3."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import obstore
import structlog
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import S3Store

from app.storage.errors import ArtifactExists, StorageRefused, StorageUnavailable
from app.storage.store import (
    OUR_OWN,
    OWNER,
    PROBE,
    ArtifactRef,
    Store,
    StoredFile,
    check_any_key,
    check_copy,
    check_file_key,
    check_key,
    describe,
)
from app.storage.verified_cache import Cache
from lora_core import manifest
from lora_core.errors.artifact import ArtifactCorrupt
from lora_core.failpoints import reach

CLAIM = ".claim"  # no file of an artifact begins with a dot
PART_BYTES = 8 * 2**20
PARTS_AT_ONCE = 4
CREATE_TRIES = 3


class RemoteStore(Store):
    """Objects under `<prefix>/<key>/`, named as the files of a local store are.

    Several objects cannot appear at once, so the manifest comes last: a directory without one is
    not there. Before any file comes the claim, made create-only with the digest of the manifest:
    from then on nobody else puts other bytes under the key, and a put that was broken off can be
    repeated.
    """

    def __init__(self, bucket: str, prefix: str, *, cache: Cache) -> None:
        super().__init__()
        self._bucket = bucket
        self._prefix = prefix
        self._cache = cache

    def put(self, directory: Path, key: str) -> ArtifactRef:
        ref = describe(directory, check_key(key))
        self._claim(ref)
        with explained():
            for name in manifest.read(directory)["files"]:
                self._upload(directory / name, f"{key}/{name}")
            reach("store_files_written")
            listed = (directory / manifest.MANIFEST).read_bytes()
            if self._create(f"{key}/{manifest.MANIFEST}", listed) != listed:
                raise ArtifactExists(key=key)
        shutil.rmtree(directory, ignore_errors=True)
        return ref

    def path(self, ref: ArtifactRef) -> Path:
        return self._cache.entry(
            check_key(ref.key),
            ref.manifest_sha256,
            fetch=partial(self._fetch_directory, ref.key),
            verify=partial(check_copy, ref=ref),
        )

    def verified(self, ref: ArtifactRef) -> Path:
        return self.path(ref)  # that is verified already

    def _content(self, name: str) -> bytes:
        with explained():
            content = self._read(name)
        if content is None:
            raise _missing(name)
        return content

    def put_file(self, path: Path, key: str) -> None:
        with explained():
            if self._read(check_file_key(key), head=True) is not None:
                raise ArtifactExists(key=key)
            self._upload(path, key)
        path.unlink(missing_ok=True)

    def file(self, key: str, sha256: str) -> Path:
        name = PurePosixPath(check_file_key(key)).name

        def fetch(directory: Path) -> None:
            self._download(key, directory / name)

        def verify(directory: Path) -> None:
            if manifest.sha256(directory / name) != sha256:
                raise ArtifactCorrupt(path=name, problem="the file has changed")

        return self._cache.entry(key, sha256, fetch=fetch, verify=verify) / name

    def delete(self, key: str) -> None:
        check_any_key(key)
        with explained():
            names = [file.name for file in self._list(key)]
            first = f"{key}/{manifest.MANIFEST}"  # without it the rest is not there
            claim = f"{key}/{CLAIM}"
            for some in ([key, first], [name for name in names if name != claim], [claim]):
                obstore.delete(self._talk, some)

    def files(self) -> Iterator[StoredFile]:
        with explained():
            yield from (file for file in self._list(None) if file.name not in OUR_OWN)

    def owner(self, candidate: str | None) -> str | None:
        with explained():
            if candidate is not None:
                return self._create(OWNER, candidate.encode()).decode()
            there = self._read(OWNER)
            return None if there is None else there.decode()

    def now(self) -> float:
        with explained():
            obstore.put(self._talk, PROBE, b"")
            return obstore.head(self._talk, PROBE)["last_modified"].timestamp()

    @cached_property
    def _talk(self) -> S3Store:
        return client(self._bucket, self._prefix, TALK)

    @cached_property
    def _fetch(self) -> S3Store:
        return client(self._bucket, self._prefix, FETCH)

    @cached_property
    def _send(self) -> S3Store:
        return client(self._bucket, self._prefix, SEND)

    def _claim(self, ref: ArtifactRef) -> None:
        """Raises `ArtifactExists` if the key belongs to other bytes."""
        ours = ref.manifest_sha256.encode()
        with explained():
            if self._create(f"{ref.key}/{CLAIM}", ours) != ours:
                raise ArtifactExists(key=ref.key)

    def _create(self, name: str, content: bytes) -> bytes:
        """Make a small object unless it is there. Returns what is there then.

        S3 also refuses a write because another one, or a deletion, was under way. That came to
        nothing perhaps, so the object is read before it counts as there.
        """
        for _ in range(CREATE_TRIES):
            with suppress(AlreadyExistsError):
                obstore.put(self._talk, name, content, mode="create")
                return content
            there = self._read(name)
            if there is not None:
                return there
        raise StorageUnavailable(reason="another process writes to the same place")

    def _fetch_directory(self, key: str, target: Path) -> None:
        self._download(f"{key}/{manifest.MANIFEST}", target / manifest.MANIFEST)
        for name in manifest.read(target)["files"]:
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise ArtifactCorrupt(path=key, problem="manifest.json names a file outside")
            self._download(f"{key}/{name}", target / name)

    def _upload(self, path: Path, name: str) -> None:
        obstore.put(self._send, name, path, chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE)

    def _download(self, name: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with explained(), target.open("wb") as file:
                for piece in obstore.get(self._fetch, name).stream(PART_BYTES):
                    file.write(piece)
        except FileNotFoundError as error:
            raise _missing(name) from error

    def _read(self, name: str, *, head: bool = False) -> bytes | None:
        """A small object; None if there is none."""
        try:
            answer = obstore.get(self._talk, name, options={"head": head})
            return b"" if head else bytes(answer.bytes())
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise
            return None

    def _list(self, key: str | None) -> Iterator[StoredFile]:
        for page in obstore.list(self._talk, key):
            for found in page:
                at = found["last_modified"].timestamp()
                yield StoredFile(found["path"], found["size"], at)


def _missing(name: str) -> ArtifactCorrupt:
    return ArtifactCorrupt(path=name, problem=f"{PurePosixPath(name).name} is missing")


# MERGED app.storage.s3
# How a bucket is reached, and what its errors mean to us.

if TYPE_CHECKING:
    from obstore.store import RetryConfig

# A few tries within seconds: whoever waits longer does so where it can be seen.
_RETRIES: "RetryConfig" = {
    "max_retries": 3,
    "retry_timeout": timedelta(seconds=5),
    "backoff": {
        "init_backoff": timedelta(milliseconds=100),
        "max_backoff": timedelta(seconds=1),
        "base": 2,
    },
}
# How long a request may take: small things are quick or not at all, a line may be slow but not
# silent. A large file is sent in requests of a few MB each.
TALK = {"connect_timeout": "3s", "timeout": "5s"}
FETCH = {"connect_timeout": "3s", "read_timeout": "10s", "timeout": "1day"}
SEND = {"connect_timeout": "3s", "timeout": "2min"}

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w{1,64})</Code>")
# Of the 4xx. A conflict is with another write to the same place, which will be over soon.
_PASSING = {408, 409, 429}
_PASSING_CODES = {"RequestTimeout"}  # comes as 400
_NO_KEYS = ("Missing AccessKey", "Missing Secret")
_METADATA = ("/latest/api/token", "/latest/meta-data")  # who has no key asks the machine for one
_NO_CREDENTIALS = "no credentials, set AWS_ACCESS_KEY_ID and the secret"
_MISTAKES = ("builder error", "incorrectly configured region")

log = structlog.get_logger(__name__)


def client(bucket: str, prefix: str, patience: Any) -> S3Store:
    """A client with the patience of `TALK`, `FETCH` or `SEND`.

    Credentials and endpoint come from `AWS_…`. Raises `StorageRefused` if half of them is missing.
    """
    with explained():  # as `client_options` they would put aside AWS_ALLOW_HTTP and its like
        return S3Store(bucket, prefix=prefix or None, retry_config=_RETRIES, config=patience)


@contextmanager
def explained() -> Iterator[None]:
    """Errors of the bucket as ours. A missing object stays a `FileNotFoundError`."""
    try:
        yield
    except FileNotFoundError as error:
        if "NoSuchBucket" not in str(error):
            raise
        raise StorageRefused(reason="there is no such bucket") from error
    except BaseError as error:
        text = str(error)
        log.warning("the store cannot be used", error=text.split("\n\nDebug source")[0])
        raise _meaning(error, text) from error


def _meaning(error: BaseError, text: str) -> StorageRefused | StorageUnavailable:
    status, code = _STATUS.search(text), _CODE.search(text)
    if any(words in text for words in _NO_KEYS):
        return StorageRefused(reason=_NO_CREDENTIALS)
    if any(words in text for words in _MISTAKES):
        return StorageRefused(reason="wrong endpoint or region, or http without AWS_ALLOW_HTTP")
    keyless = any(words in text for words in _METADATA)
    if status is None:
        reason = "no connection, or no answer in time"
        return StorageUnavailable(reason=f"{_NO_CREDENTIALS}; {reason}" if keyless else reason)
    number = int(status[1])
    reason = f"status {number}" + (f", {code[1]}" if code else "")
    passing = number in _PASSING or (code is not None and code[1] in _PASSING_CODES)
    refused = isinstance(error, PermissionDeniedError | UnauthenticatedError)
    if refused or (400 <= number < 500 and not passing):
        return StorageRefused(reason=_NO_CREDENTIALS if keyless else reason)
    return StorageUnavailable(reason=reason)
