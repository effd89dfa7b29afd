"""`loraworks models export` and `import`: a version leaves for other programs, or comes in."""

import tempfile
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from app.cli.answers import Version
from app.cli.client import Client
from app.cli.download import save, unpack
from app.cli.errors import Misuse
from app.cli.library import library
from app.cli.options import AsJson, connected
from app.cli.output import as_json as print_json
from app.cli.output import say
from app.cli.registry import PRODUCTION
from app.storage.archive import tar_stream
from lora_core import manifest
from lora_core.peft_format import CONFIG
from lora_core.specs.base import is_version


class Format(StrEnum):
    """What is written."""

    LORAWORKS = "loraworks"  # a tar file, for `models import`
    PEFT = "peft"
    TRANSFORMERS = "transformers"


Ref = Annotated[
    str, typer.Argument(metavar="MODEL", help="name (its production), name@alias or name:3.")
]
Out = Annotated[
    Path | None, typer.Option("--out", help="File or folder to write. Default: from the name.")
]
As = Annotated[
    Format,
    typer.Option(
        "--format",
        help="loraworks: a tar file for `models import`; peft: the adapter; transformers: the "
        "merged model.",
    ),
]
Base = Annotated[
    str | None,
    typer.Option("--base", help="PEFT: what the adapter was trained on, if it is elsewhere here."),
]
Source = Annotated[
    Path,
    typer.Argument(
        metavar="FILE", help="A file of `models export`, a model folder, or a PEFT adapter.",
        exists=True,
    ),
]  # fmt: skip
Name = Annotated[str, typer.Option("--name", help="Name of the model here.")]
Labels = Annotated[
    str | None, typer.Option("--labels", help="PEFT: names of the labels, in order: bad,good.")
]


@connected
def export_model(
    client: Client,
    model: Ref,
    out: Out = None,
    form: As = Format.LORAWORKS,
    base: Base = None,
    as_json: AsJson = False,
) -> None:
    """Write a version to this machine, for another installation or another program."""
    version = find_version(client, model)
    stem = version["ref"].replace(":", "-")
    if form is Format.LORAWORKS:
        place = out or Path(f"{stem}.tar")
        with client.archive(version["artifact_id"]) as pieces:
            save(pieces, place)
    else:
        place = out or Path(f"{stem}-{form}")
        with tempfile.TemporaryDirectory(prefix="loraworks-") as work:
            _convert(client, version, form, place, base, Path(work))
    if as_json:
        print_json({"ref": version["ref"], "format": form, "path": str(place)})
    else:
        say(f"{version['ref']} is in {place}.")


@connected
def import_model(
    client: Client,
    source: Source,
    name: Name,
    base: Base = None,
    labels: Labels = None,
    as_json: AsJson = False,
) -> None:
    """Make a model from elsewhere the next version of NAME. Its kept answers are computed again."""
    with tempfile.TemporaryDirectory(prefix="loraworks-") as work:
        archive = source if source.is_file() else _packed(source, Path(work), base, labels)
        version = client.import_version(name, archive)
    if as_json:
        print_json(version)
    else:
        say(f"Imported as {version['ref']}. `loraworks models promote` puts it into production.")


def find_version(client: Client, ref: str) -> Version:
    """What a reference means now. Raises `Misuse`, `Refused`."""
    name, colon, number = ref.partition(":")
    name, at, alias = name.partition("@")
    model = client.model(name)
    wanted = number if colon else str(model["aliases"].get(alias if at else PRODUCTION, ""))
    for version in model["versions"]:
        if str(version["number"]) == wanted:
            return version
    known = ", ".join(version["ref"] for version in model["versions"])
    raise Misuse(f"{ref} names no version of {name}; there are {known}", "model_not_found")


def _convert(
    client: Client, version: Version, form: Format, out: Path, base: str | None, work: Path
) -> None:
    artifact = _download(client, version, work / "artifact")
    if form is Format.TRANSFORMERS:
        library("export", str(artifact), "--format", form, "--out", str(out))
        return
    if (
        base is None and version["base"] and is_version(version["base"])
    ):  # known to the service alone
        origin = find_version(client, version["base"])
        base = str(_download(client, origin, work / "base") / manifest.MERGED)
    more = ["--base", base] if base else []
    library("export", str(artifact), "--format", form, "--out", str(out), *more)


def _download(client: Client, version: Version, folder: Path) -> Path:
    with client.archive(version["artifact_id"]) as pieces:
        unpack(pieces, folder)
    return folder


def _packed(source: Path, work: Path, base: str | None, labels: str | None) -> Path:
    """A model folder as an archive; a PEFT adapter is made one first. Raises `Misuse`."""
    if (source / CONFIG).is_file():
        made = work / "model"
        more = ["--base", base] if base else []
        more += ["--labels", *labels.split(",")] if labels else []
        library("import-peft", str(source), "--out", str(made), *more)
        source = made
    elif not (source / manifest.MANIFEST).is_file():
        raise Misuse(
            f"{source} holds neither {manifest.MANIFEST} nor {CONFIG}; it is no model", "no_model"
        )
    names = [manifest.MANIFEST, *manifest.verify(source)["files"]]
    archive = work / "model.tar"
    with archive.open("xb") as file:
        file.writelines(tar_stream(source, names, folder="model", modified=time.time()))
    return archive
