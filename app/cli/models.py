"""`loraworks models …`"""

import tempfile
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.errors import UsageError
from app.cli.files import save_verified_archive, unpack_artifact
from app.cli.local_subprocess import run_lora_core
from app.cli.options import AsJson, JobId, Limit, with_client
from app.cli.output import (
    format_metric,
    format_percent,
    format_predicted_score,
    format_time,
    print_fields,
    print_json,
    print_line,
    print_table,
    print_warning,
)
from lora_core import manifest
from lora_core.export.model_settings import read_exported_model_settings
from lora_core.export.onnx_certificate import OnnxCertificate, read_onnx_certificate
from lora_core.peft_format import CONFIG_FILE
from lora_core.specs.data import parse_sheet_suffix
from lora_core.specs.fields import looks_like_model_version
from lora_core.specs.task import TaskTypeOfTarget
from lora_core.tasks.metric_info import METRICS, metric_names_of_summary

if TYPE_CHECKING:
    from app.cli.client import Client
    from app.feedback.schemas import LiveEstimate
    from app.registry.schemas import VersionView


class ExportFormatChoice(StrEnum):
    """The format of an exported version."""

    LORAWORKS = "loraworks"  # tar file for `models import`
    PEFT = "peft"
    TRANSFORMERS = "transformers"
    ONNX = "onnx"


ModelRef = Annotated[
    str, typer.Argument(metavar="MODEL", help="Model: name (in production), name@alias or name:3.")
]
Out = Annotated[
    Path | None,
    typer.Option("--out", help="File or folder to write. Default: from the model's name."),
]
FormatOption = Annotated[
    ExportFormatChoice,
    typer.Option(
        "--format",
        help="loraworks: tar file for `models import`; peft: the adapter; transformers, onnx: the "
        "merged model.",
    ),
]
Base = Annotated[
    str | None,
    typer.Option("--base", help="PEFT: local path of the adapter's base model."),
]
Source = Annotated[
    Path,
    typer.Argument(
        metavar="FILE", help="File from `models export`, model folder, or PEFT adapter.",
        exists=True,
    ),
]  # fmt: skip
NewName = Annotated[str, typer.Option("--name", help="Name of the imported model.")]
TargetOption = Annotated[
    str | None,
    typer.Option("--target", help="Which of several targets to export to another program."),
]
Int8 = Annotated[
    bool,
    typer.Option(
        "--int8",
        help="ONNX: quantize the weights to int8. Refused unless 99.5% of the labels stay the "
        "same.",
    ),
]
CertifiedTexts = Annotated[
    str | None,
    typer.Option(
        "--texts",
        metavar="FILE",
        help="ONNX: at least 500 texts to certify an int8 model on. Default: the validation and "
        "test texts of its data that it was not trained on.",
    ),
]
Labels = Annotated[
    str | None, typer.Option("--labels", help="PEFT: label names in order, such as bad,good.")
]
Pairs = Annotated[
    bool,
    typer.Option(
        "--pairs",
        help="PEFT: the model reads pairs of texts. Not needed for a folder from `models export`.",
    ),
]
ImportedTask = Annotated[
    TaskTypeOfTarget | None,
    typer.Option(
        "--task",
        help="PEFT: what the model predicts, unless it is one label. Not needed for a folder from "
        "`models export`.",
    ),
]


@with_client
def export_model(  # noqa: PLR0913 - one parameter per option
    client: "Client",
    model: ModelRef,
    out: Out = None,
    export_format: FormatOption = ExportFormatChoice.LORAWORKS,
    base: Base = None,
    target: TargetOption = None,
    int8: Int8 = False,
    texts: CertifiedTexts = None,
    as_json: AsJson = False,
) -> None:
    """Export a model version for another installation or program."""
    if (int8 or texts) and export_format is not ExportFormatChoice.ONNX:
        raise UsageError("--int8 and --texts need --format onnx", "wrong_options")
    if base and export_format is not ExportFormatChoice.PEFT:
        raise UsageError("--base needs --format peft", "wrong_options")
    if texts and not int8:
        raise UsageError("--texts needs --int8", "wrong_options")
    if texts and not Path(parse_sheet_suffix(texts)[0]).is_file():
        raise UsageError(f"file {texts} does not exist", "no_file")
    version = resolve_version(client, model)
    stem = version.ref.replace(":", "-")
    if export_format is ExportFormatChoice.LORAWORKS:
        if target is not None:
            raise UsageError("--target needs --format transformers, peft or onnx", "wrong_options")
        path = out or Path(f"{stem}.tar")
        with client.download_artifact(version.artifact_id) as chunks:
            save_verified_archive(chunks, path)
        _print_export(version.ref, export_format, path, as_json=as_json)
        return
    path = out or Path(f"{stem}-{export_format}")
    with tempfile.TemporaryDirectory(prefix="loraworks-") as folder:
        artifact = _download(client, version, Path(folder) / stem)  # errors have its name
        options = ["--target", target] if target else []
        if export_format is ExportFormatChoice.PEFT:
            options += _base_options(client, version, base, artifact)
        if int8:
            options += ["--int8", *_text_options(client, version, texts, artifact)]
        run_lora_core(
            "export", str(artifact), "--format", export_format, "--out", str(path), *options
        )
    _print_export(version.ref, export_format, path, as_json=as_json)


def _print_export(
    ref: str, export_format: ExportFormatChoice, path: Path, *, as_json: bool
) -> None:
    is_ours = export_format is ExportFormatChoice.LORAWORKS
    thresholds = {} if is_ours else read_exported_model_settings(path).thresholds
    certificate = read_onnx_certificate(path) if export_format is ExportFormatChoice.ONNX else None
    if as_json:
        answer = {"ref": ref, "format": export_format, "path": str(path)}
        certified = {"certificate": certificate} if certificate else {}
        print_json({**answer, "thresholds": thresholds or None, **certified})
        return
    print_line(f"Exported {ref} to {path}.")
    if certificate:
        print_line(_describe_certificate(certificate))
    if thresholds:
        listed = ", ".join(f"{label} {value:.4g}" for label, value in thresholds.items())
        print_warning(
            f"{export_format} knows no thresholds of labels. To predict as loraworks does, apply "
            f"those in {path / manifest.USAGE_FILE}: {listed}."
        )


@with_client
def import_model(  # noqa: PLR0913 - one parameter per option
    client: "Client",
    source: Source,
    name: NewName,
    base: Base = None,
    labels: Labels = None,
    pairs: Pairs = False,
    task: ImportedTask = None,
    as_json: AsJson = False,
) -> None:
    """Import a model as the next version of NAME. Its stored predictions are recomputed."""
    with tempfile.TemporaryDirectory(prefix="loraworks-") as work:
        options = ["--base", base] if base else []
        options += ["--labels", *labels.split(",")] if labels else []
        options += ["--pairs"] if pairs else []
        options += ["--task", task] if task else []
        if options and not (source / CONFIG_FILE).is_file():
            raise UsageError(
                f"--base, --labels, --pairs and --task are for PEFT adapters; {source} is not one",
                "wrong_options",
            )
        archive = source if source.is_file() else _pack(source, Path(work), options)
        version = client.import_version(name, archive)
    if as_json:
        print_json(version)
    else:
        print_line(
            f"Imported {version.ref}. Deploy it with `loraworks models promote {version.ref}`."
        )


def resolve_version(client: "Client", ref: str) -> "VersionView":
    """Return the version that a reference denotes now. Raises `UsageError`, `RequestRejected`."""
    name, colon, number = ref.partition(":")
    name, at, alias = name.partition("@")
    model = client.get_model(name)
    version_number = (
        number if colon else str(model.aliases.get(alias if at else PRODUCTION_ALIAS, ""))
    )
    for version in model.versions:
        if str(version.number) == version_number:
            return version
    available = ", ".join(version.ref for version in model.versions)
    raise UsageError(
        f"{name} has no version {ref}; its versions are {available}", "model_not_found"
    )


def _describe_certificate(certificate: OnnxCertificate) -> str:
    """Return one line about how close ONNX Runtime comes to the predictions of loraworks."""
    difference = f"{certificate.largest_difference:.2g}"
    if certificate.tolerance is not None:
        difference += f" (accepted: {certificate.tolerance:.2g})"
    labels = ""
    if certificate.equal_labels is not None:
        labels = f", and {format_percent(certificate.equal_labels)} have the same labels"
    return (
        f"ONNX Runtime {certificate.versions['onnxruntime']}, {certificate.precision}: on "
        f"{certificate.texts} texts outputs differ by at most {difference}{labels}."
    )


def _base_options(
    client: "Client", version: "VersionView", base: str | None, artifact: Path
) -> list[str]:
    """Return the option for the base of an adapter: an artifact without its `base/` (format 1) may
    have been trained on a version, which only the service has."""
    has_base = (artifact / manifest.BASE_DIR).is_dir()
    if base is None and not has_base and version.base and looks_like_model_version(version.base):
        base_version = resolve_version(client, version.base)
        base = str(_download(client, base_version, artifact.with_name("base")))
    return ["--base", base] if base else []


def _text_options(
    client: "Client", version: "VersionView", texts: str | None, artifact: Path
) -> list[str]:
    """Return the option for the texts that an int8 model is certified on: by default, those of its
    data that it was not trained on."""
    if texts is None and version.job_id is not None:
        from app.cli.held_out_texts import write_held_out_texts  # slow, and only needed here

        texts = str(write_held_out_texts(client, artifact, artifact.parent))
    return ["--texts", texts] if texts else []


def _download(client: "Client", version: "VersionView", folder: Path) -> Path:
    with client.download_artifact(version.artifact_id) as chunks:
        unpack_artifact(chunks, folder)
    return folder


def _pack(source: Path, work: Path, options: list[str]) -> Path:
    """Pack a model folder into an archive; convert a PEFT adapter first, with these options.

    Raises `UsageError`.
    """
    if (source / CONFIG_FILE).is_file():
        model_dir = work / "model"
        run_lora_core("import-peft", str(source), "--out", str(model_dir), *options)
        source = model_dir
    elif not (source / manifest.MANIFEST_FILE).is_file():
        raise UsageError(
            f"{source} is not a model: it contains neither {manifest.MANIFEST_FILE} nor "
            f"{CONFIG_FILE}",
            "no_model",
        )
    from app.storage.store import tar_stream  # slow, and only needed here

    names = [manifest.MANIFEST_FILE, *manifest.verify(source)["files"]]
    entries = ((name, source / name) for name in names)
    archive = work / "model.tar"
    with archive.open("xb") as file:
        file.writelines(tar_stream(entries, prefix="model", modified=time.time()))
    return archive


app = typer.Typer(help="Manage the versions and aliases of trained models.")

PRODUCTION_ALIAS = "production"  # denoted by a name without alias or version

Name = Annotated[str, typer.Argument(metavar="NAME", help="Model name.")]
VersionRef = Annotated[
    str, typer.Argument(metavar="NAME:VERSION", help="Model version, such as sentiment:3.")
]
Ref = Annotated[str, typer.Argument(metavar="NAME[:VERSION]", help="Model, or one version of it.")]
Alias = Annotated[str, typer.Option("--alias", help="Alias to move.")]
AliasToRemove = Annotated[str, typer.Option("--alias", help="Alias to remove.")]
Days = Annotated[
    float,
    typer.Option("--days", min=0.01, max=400, help="Only predictions of the last days."),
]


def split_name_and_version(ref: str) -> tuple[str, int | None]:
    """Split `sentiment:3` into name and number, or `sentiment` into name and None.

    Raises `UsageError`.
    """
    name, colon, number = ref.partition(":")
    if colon and not (number.isascii() and number.isdigit()):
        raise UsageError(
            f"{ref!r} is not a model version; write it like sentiment:3", "invalid_model_ref"
        )
    return name, int(number) if colon else None


@app.command("list")
@with_client
def list_models(client: "Client", limit: Limit = 100, as_json: AsJson = False) -> None:
    """List models."""
    models = client.list_models(limit)
    if as_json:
        print_json(models)
        return
    print_table(
        ["model", ">versions", "aliases", "created"],
        [
            (
                model.name,
                model.version_count,
                ", ".join(f"{alias} → {number}" for alias, number in model.aliases.items()),
                format_time(model.created_at),
            )
            for model in models
        ],
        empty="No models. Create one with `loraworks train --register-as NAME`.",
    )


@app.command("show")
@with_client
def show_model(client: "Client", name: Name, as_json: AsJson = False) -> None:
    """Show a model and its versions."""
    model = client.get_model(name)
    if as_json:
        print_json(model)
        return
    print_fields([("model", model.name), ("created", format_time(model.created_at))])
    metrics = {metric_names_of_summary(version.metrics)[0] for version in model.versions}
    column = METRICS[metrics.pop()].short if len(metrics) == 1 else "result"
    print_table(
        ["version", "method", "base", f">validation {column}", f">test {column}", "aliases", "job"],
        [
            (
                version.ref,
                version.method,
                version.base,
                _format_metric(version, "validation"),
                _format_metric(version, "test"),
                ", ".join(a for a, n in model.aliases.items() if n == version.number),
                version.job_id,
            )
            for version in model.versions
        ],
        empty="No versions.",
    )


def _format_metric(version: "VersionView", split: str) -> str:
    name = metric_names_of_summary(version.metrics)[0]
    return format_metric(name, (version.metrics.get(split) or {}).get(name))


@app.command("register")
@with_client
def register(client: "Client", name: Name, job: JobId, as_json: AsJson = False) -> None:
    """Register the result of a job as the next version of a model."""
    version = client.register_version(name, job)
    print_json(version) if as_json else print_line(f"Registered {version.ref}.")


@app.command("promote")
@with_client
def promote(
    client: "Client", version: VersionRef, alias: Alias = PRODUCTION_ALIAS, as_json: AsJson = False
) -> None:
    """Move an alias to a version. This deploys the version."""
    name, number = split_name_and_version(version)
    if number is None:
        raise UsageError(f"missing version of {name}; write it like {name}:3", "invalid_model_ref")
    answer = client.move_alias(name, number, alias)
    print_json(answer) if as_json else print_line(f"Moved alias {name}@{alias} to {version}.")


@app.command("rollback")
@with_client
def roll_back(
    client: "Client", name: Name, alias: Alias = PRODUCTION_ALIAS, as_json: AsJson = False
) -> None:
    """Move an alias back to its previous version."""
    answer = client.roll_back_alias(name, alias)
    number = answer.aliases[alias]
    print_json(answer) if as_json else print_line(
        f"Moved alias {name}@{alias} back to {name}:{number}."
    )


@app.command("live-accuracy")
@with_client
def list_live_accuracy(
    client: "Client", name: Name, days: Days = 30.0, as_json: AsJson = False
) -> None:
    """Estimate the accuracy on live traffic, from feedback on random samples of it.

    Start with `loraworks feedback review`. Corrections are feedback on other texts; people report
    errors, so they estimate nothing.
    """
    versions = client.list_live_accuracy(name, days)
    if as_json:
        print_json(versions)
        return
    print_table(
        ["version", "metric", "estimate", "with scores", ">labeled", ">drawn", "corrections"],
        [
            (
                each.version if each.target is None else f"{each.version} {each.target}",
                each.estimate.metric if each.estimate else None,
                _format_interval(each.estimate),
                _format_interval(each.with_scores),
                each.labeled,
                each.sampled,
                f"{each.corrections.changed} of {each.corrections.texts} changed",
            )
            for each in versions
        ],
        empty=f"No feedback on predictions of {name}. Start with `loraworks feedback review "
        f"{name}`.",
    )


def _format_interval(estimate: "LiveEstimate | None") -> str | None:
    if estimate is None:
        return None
    value, low, high = (
        format_metric(estimate.metric, each)
        for each in (estimate.value, estimate.low, estimate.high)
    )
    return f"{value} ({low} to {high})"


@app.command("shadow")
@with_client
def list_shadow_comparisons(client: "Client", name: Name, as_json: AsJson = False) -> None:
    """Compare NAME@shadow with the serving version. Start with `promote --alias shadow`."""
    pairs = client.list_shadow_comparisons(name)
    if as_json:
        print_json(pairs)
        return
    print_table(
        ["serving", "shadow", ">texts", ">agreement", ">difference", ">skipped", ">failed"],
        [
            (
                pair.version,
                pair.shadow,
                pair.texts,
                format_percent(pair.agreement),
                format_predicted_score(pair.task, pair.mean_difference),
                pair.skipped,
                pair.failed,
            )
            for pair in pairs
        ],
        empty=f"No comparisons yet. Start with `loraworks models promote {name}:N --alias shadow`.",
    )


@app.command("demote")
@with_client
def delete_alias(client: "Client", name: Name, alias: AliasToRemove = PRODUCTION_ALIAS) -> None:
    """Remove an alias. The version is kept."""
    client.delete_alias(name, alias)
    print_line(f"Removed alias {name}@{alias}.")


@app.command("delete")
@with_client
def delete(client: "Client", ref: Ref) -> None:
    """Delete a version, or a model with all its versions.

    Rejected while an alias points to it, or an unfinished job reads it.
    """
    client.delete_model_or_version(*split_name_and_version(ref))
    print_line(f"Deleted {ref}.")
