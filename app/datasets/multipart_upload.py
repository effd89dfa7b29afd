"""Multipart uploads, streamed to disk: counted and hashed, never in memory as a whole."""

import hashlib
import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import anyio
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request

from app.datasets import files
from app.datasets.errors import MalformedUpload, UploadTooLarge
from app.settings import Settings

_MAX_FIELDS = 16
_MAX_FIELD_BYTES = 400_000  # the longest fields of `UploadFields`, in UTF-8


@dataclass(frozen=True)
class Upload:
    """A received file, and the form fields sent with it."""

    path: Path
    filename: str
    sha256: str
    bytes: int
    fields: dict[str, str]


@asynccontextmanager
async def temporary_upload_dir(settings: Settings) -> AsyncIterator[Path]:
    """Create a directory for a file to receive, and remove it after the block.

    To free the space of a large file takes long, so a thread does it.
    """
    directory = files.create_temporary_upload_dir(settings)
    try:
        yield directory
    finally:
        with anyio.CancelScope(shield=True):
            await run_in_threadpool(shutil.rmtree, directory, ignore_errors=True)


async def receive_upload(request: Request, *, path: Path, limit: int) -> Upload:
    """Write the part `file` of the body to `path`, at most `limit` bytes.

    Raises `MalformedUpload`, `UploadTooLarge`, and the `OSError` of a full disk. The caller then
    removes what was written.
    """
    media_type, options = parse_options_header(request.headers.get("content-type"))
    if media_type != b"multipart/form-data" or not options.get(b"boundary"):
        raise MalformedUpload(problem="the content type is not multipart/form-data")
    try:
        with path.open("xb") as file:
            form = _UploadForm(file, limit)
            await _parse_stream(request, form, options[b"boundary"])
            await run_in_threadpool(_sync_to_disk, file)
    except FormParserError as error:
        raise MalformedUpload(problem="the multipart body is malformed") from error
    except ClientDisconnect as error:
        raise MalformedUpload(problem="the connection ended before the end of the file") from error
    return Upload(
        path=path,
        filename=form.finished_filename(),
        sha256=form.digest.hexdigest(),
        bytes=form.size,
        fields={name: _decode(name, value) for name, value in form.fields.items()},
    )


async def _parse_stream(request: Request, form: "_UploadForm", boundary: bytes) -> None:
    parser = MultipartParser(
        boundary,
        {
            "on_part_begin": form.on_part_begin,
            "on_header_field": form.on_header_field,
            "on_header_value": form.on_header_value,
            "on_header_end": form.on_header_end,
            "on_headers_finished": form.on_headers_finished,
            "on_part_data": form.on_part_data,
            "on_end": form.on_end,
        },
    )
    async for chunk in request.stream():
        await run_in_threadpool(parser.write, chunk)  # writes to disk, so off the event loop
    parser.finalize()


@dataclass
class _UploadForm:
    """Callbacks of the parser. The part `file` is written to disk, the others are fields."""

    file: BinaryIO
    limit: int
    fields: dict[str, bytearray] = field(default_factory=dict)
    filename: str | None = None
    size: int = 0  # bytes of the file so far
    complete: bool = False

    def __post_init__(self) -> None:
        self.digest = hashlib.sha256()
        self._header = bytearray()
        self._value = bytearray()
        self._disposition = b""
        self._field: bytearray | None = None  # None: the bytes belong to the file

    def on_part_begin(self) -> None:
        self._disposition = b""

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = _decode("a field name", options.get(b"name", b""))
        if b"filename" in options:
            if name != "file" or self.filename is not None:
                raise MalformedUpload(problem="there is a file besides the part 'file'")
            self.filename = _decode("the file name", options[b"filename"])
            self._field = None
            return
        if not name or name in self.fields or len(self.fields) == _MAX_FIELDS:
            raise MalformedUpload(problem="a field has no name, is repeated, or is one too many")
        self._field = self.fields[name] = bytearray()

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._field is not None:
            self._field += data[start:end]
            if len(self._field) > _MAX_FIELD_BYTES:
                raise MalformedUpload(problem=f"a field is longer than {_MAX_FIELD_BYTES} bytes")
            return
        self.size += end - start
        if self.size > self.limit:
            raise UploadTooLarge(limit=self.limit)
        chunk = memoryview(data)[start:end]
        self.file.write(chunk)
        self.digest.update(chunk)

    def on_end(self) -> None:
        self.complete = True

    def finished_filename(self) -> str:
        """Return the file name once the whole body has been parsed."""
        if not self.complete:
            raise MalformedUpload(problem="the last boundary is missing")
        # Some clients send a full path. The name is displayed, never used as a path.
        name = re.split(r"[/\\]", self.filename or "")[-1]
        shown = "".join(character for character in name if character.isprintable())[-255:]
        if not shown:
            raise MalformedUpload(problem="there is no file, or it has no name")
        return shown


def _sync_to_disk(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _decode(what: str, value: bytes | bytearray) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedUpload(problem=f"{what} is not UTF-8") from error
