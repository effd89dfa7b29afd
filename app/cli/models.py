"""`loraworks models export` and `import`: a version leaves for other programs, or comes in."""

import tempfile
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from app.cli.client import Client
from app.cli.download import save, unpack
from app.cli.errors import Misuse
from app.cli.local import library
from app.cli.options import AsJson, JobId, Limit, connected
from app.cli.output import as_json as print_json
from app.cli.output import facts, moment, percent, say, table
from app.cli.responses import Version
from app.storage.archive import tar_stream
from lora_core import manifest
from lora_core.peft_format import CONFIG
from lora_core.specs.base import is_version


class Format(StrEnum):
    """What is written."""

    LORAWORKS = "loraworks"  # a tar file, for `models import`
    PEFT = "peft"
    TRANSFORMERS = "transformers"


ModelRef = Annotated[
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
NewName = Annotated[str, typer.Option("--name", help="Name of the model here.")]
Labels = Annotated[
    str | None, typer.Option("--labels", help="PEFT: names of the labels, in order: bad,good.")
]


@connected
def export_model(
    client: Client,
    model: ModelRef,
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
    name: NewName,
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


# MERGED app.cli.models
# `loraworks models …`

app = typer.Typer(help="Names, versions and aliases of trained models.")

PRODUCTION = "production"  # what a bare name means

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the model.")]
VersionRef = Annotated[
    str, typer.Argument(metavar="NAME:VERSION", help="A version, such as sentiment:3.")
]
Ref = Annotated[
    str, typer.Argument(metavar="NAME[:VERSION]", help="A model, or one version of it.")
]
Alias = Annotated[str, typer.Option("--alias", help="The name that moves.")]


def split_ref(ref: str) -> tuple[str, int | None]:
    """`sentiment:3` to its name and number, `sentiment` to its name. Raises `Misuse`."""
    name, colon, number = ref.partition(":")
    if colon and not (number.isascii() and number.isdigit()):
        raise Misuse(f"{ref!r} is not a version; write it like sentiment:3", "invalid_model_ref")
    return name, int(number) if colon else None


@app.command("list")
@connected
def list_models(client: Client, limit: Limit = 100, as_json: AsJson = False) -> None:
    """All models."""
    models = client.models(limit)
    if as_json:
        print_json(models)
        return
    table(
        ["model", ">versions", "aliases", "created"],
        [
            (
                model["name"],
                model["version_count"],
                ", ".join(f"{alias} → {number}" for alias, number in model["aliases"].items()),
                moment(model["created_at"]),
            )
            for model in models
        ],
        empty="No models. `loraworks train --register-as NAME` makes one.",
    )


@app.command("show")
@connected
def show_model(client: Client, name: Name, as_json: AsJson = False) -> None:
    """One model with its versions."""
    model = client.model(name)
    if as_json:
        print_json(model)
        return
    facts([("model", model["name"]), ("created", moment(model["created_at"]))])
    table(
        ["version", "method", "base", ">validation F1", ">test acc", "aliases", "job"],
        [
            (
                version["ref"],
                version["method"],
                version["base"],
                percent((version["metrics"].get("validation") or {}).get("macro_f1")),
                percent((version["metrics"].get("test") or {}).get("accuracy")),
                ", ".join(a for a, n in model["aliases"].items() if n == version["number"]),
                version["job_id"],
            )
            for version in model["versions"]
        ],
        empty="No versions.",
    )


@app.command("register")
@connected
def register(client: Client, name: Name, job: JobId, as_json: AsJson = False) -> None:
    """Make the result of a job the next version of a model."""
    version = client.register(name, job)
    print_json(version) if as_json else say(f"Registered as {version['ref']}.")


@app.command("promote")
@connected
def promote(
    client: Client, version: VersionRef, alias: Alias = PRODUCTION, as_json: AsJson = False
) -> None:
    """Move an alias to a version: this deploys it."""
    name, number = split_ref(version)
    if number is None:
        raise Misuse(f"which version of {name}? Write it like {name}:3", "invalid_model_ref")
    answer = client.promote(name, number, alias)
    print_json(answer) if as_json else say(f"{name}@{alias} is now {version}.")


@app.command("rollback")
@connected
def roll_back(
    client: Client, name: Name, alias: Alias = PRODUCTION, as_json: AsJson = False
) -> None:
    """Move an alias back to the version before."""
    answer = client.roll_back(name, alias)
    number = answer["aliases"][alias]
    print_json(answer) if as_json else say(f"{name}@{alias} is {name}:{number} again.")


@app.command("shadow")
@connected
def shadow(client: Client, name: Name, as_json: AsJson = False) -> None:
    """How NAME@shadow compares with what answers. Start one with `promote --alias shadow`."""
    pairs = client.shadow(name)
    if as_json:
        print_json(pairs)
        return
    table(
        ["answers", "shadow", ">texts", ">agreement", ">difference", ">skipped", ">failed"],
        [
            (
                pair["version"],
                pair["shadow"],
                pair["texts"],
                percent(pair["agreement"]),
                percent(pair["mean_difference"]),
                pair["skipped"],
                pair["failed"],
            )
            for pair in pairs
        ],
        empty=f"Nothing was compared yet. `loraworks models promote {name}:N --alias shadow`.",
    )


@app.command("demote")
@connected
def demote(client: Client, name: Name, alias: Alias = PRODUCTION) -> None:
    """Take an alias away. The version stays."""
    client.demote(name, alias)
    say(f"{name}@{alias} is no more.")


@app.command("delete")
@connected
def delete(client: Client, ref: Ref) -> None:
    """Delete one version, or a model with all its versions. Refused while an alias points there."""
    client.delete_model(*split_ref(ref))
    say(f"Deleted {ref}.")
