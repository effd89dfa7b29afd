"""The options of `loraworks train`. Each one sets a field of the spec of a run.

Only options that are given are sent, so that defaults are defined in one place,
`lora_core.specs`.
"""

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from app.cli.errors import UsageError
from app.cli.output import Json
from app.cli.text_files import read_text_file
from lora_core.specs.data import LongTexts
from lora_core.specs.method import HeadMode, LayerRole, LoraVariant, MethodName
from lora_core.specs.pooling import Pooling
from lora_core.specs.task import ClassWeights, LossName, TaskType, parse_targets
from lora_core.specs.train import HeadInit, Preset, SelectBy


def _parse_size(text: str) -> int | float:
    """Parse `4000` as a number of texts, `0.2` as a fraction of them."""
    try:
        return int(text) if text.isdigit() else float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is neither a count nor a fraction") from None


def _parse_roles(values: list[str]) -> list[str]:
    """Parse roles, repeated or separated by commas; `all` is every linear layer of a block."""
    roles = [role for value in values for role in value.split(",")]
    if "all" in roles:
        return [role.value for role in LayerRole]
    if unknown := [role for role in roles if role not in list(LayerRole)]:
        known = ", ".join(LayerRole)
        raise typer.BadParameter(f"{unknown[0]!r} is not one of: {known}, all")
    return roles


def _parse_integers(text: str) -> list[int]:
    """Parse `0,1,5`."""
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a list of numbers like 0,1,5") from None


def _parse_names(text: str) -> list[str]:
    """Parse `toxic,insult`."""
    return text.split(",")


def _parse_source(values: list[str]) -> str | dict[str, str]:
    """Parse one source, or one per split: `train=a.csv`, `test=b.csv`."""
    sources = dict(value.split("=", 1) for value in values if "=" in value)
    if not sources:
        return values[-1]
    if len(sources) < len(values):
        raise typer.BadParameter("give one source, or SPLIT=SOURCE for each split")
    return sources


def _parse_targets(text: str) -> dict[str, Any]:
    try:
        return parse_targets(text)
    except ValueError as error:
        raise typer.BadParameter(f"--targets: {error}") from error


def _spec_option(annotation: Any, *names: str, panel: str, text: str, **extra: Any) -> Any:
    return Annotated[annotation, typer.Option(*names, help=text, rich_help_panel=panel, **extra)]


OptionalInt = int | None
OptionalFloat = float | None
OptionalStr = str | None
OptionalStrList = list[str] | None

# Panels of the help text.
METHOD_PANEL = "Method"
LORA_PANEL = "LoRA"
DATA_PANEL = "Data"
TRAINING_PANEL = "Training"
COMPUTE_PANEL = "Compute"

# spec field → option
SPEC_OPTIONS: dict[str, Any] = {
    "preset": _spec_option(
        Preset | None,
        "--preset",
        panel=METHOD_PANEL,
        text="Predefined settings. Options override them.",
    ),
    "method.type": _spec_option(
        MethodName | None,
        "--method",
        panel=METHOD_PANEL,
        text="Training method. Default: auto, the best of several; lora for sweeps.",
    ),
    "base": _spec_option(
        OptionalStr,
        "--base",
        panel=METHOD_PANEL,
        text="Base model: minilm-l6, a hub name, or a registered model: name, name:3.",
    ),
    "pooling": _spec_option(
        Pooling | None,
        "--pooling",
        panel=METHOD_PANEL,
        text="Pooling before the head. Default depends on the base.",
    ),
    "head_init": _spec_option(
        HeadInit | None,
        "--head-init",
        panel=METHOD_PANEL,
        text="Initial weights of the head. Default for LoRA: the probe.",
    ),
    "method.blocks": _spec_option(
        OptionalInt,
        "--blocks",
        panel=METHOD_PANEL,
        text="baseline: number of last blocks that are also trained.",
    ),
    "method.C": _spec_option(
        OptionalFloat,
        "--c",
        panel=METHOD_PANEL,
        text="linear, probe: inverse regularization strength.",
    ),
    "method.ngram_range": _spec_option(
        OptionalStr,
        "--ngram-range",
        panel=METHOD_PANEL,
        metavar="MIN,MAX",
        text="linear: range of n-gram lengths. Default: 1,2.",
    ),
    "method.class_weight": _spec_option(
        Literal["balanced"] | None,
        "--class-weight",
        panel=METHOD_PANEL,
        text="linear, probe: give all labels equal weight.",
    ),
    "method.time_budget": _spec_option(
        OptionalInt,
        "--time-budget",
        panel=METHOD_PANEL,
        text="auto: approximate time limit in seconds.",
    ),
    "method.min_df": _spec_option(
        OptionalInt,
        "--min-df",
        panel=METHOD_PANEL,
        text="linear: minimum number of texts that contain a term.",
    ),
    "method.r": _spec_option(OptionalInt, "--r", "--lora-r", panel=LORA_PANEL, text="LoRA rank."),
    "method.alpha": _spec_option(
        OptionalFloat, "--alpha", "--lora-alpha", panel=LORA_PANEL, text="LoRA alpha (scaling)."
    ),
    "method.variant": _spec_option(
        LoraVariant | None, "--variant", panel=LORA_PANEL, text="LoRA variant."
    ),
    "method.targets": _spec_option(
        OptionalStrList,
        "--target",
        panel=LORA_PANEL,
        metavar="ROLE",
        text="Layers with adapters: query, key, value, projection, mlp, or all. Repeatable, or "
        "separated by commas.",
    ),
    "method.layers": _spec_option(
        OptionalStr,
        "--layers",
        panel=LORA_PANEL,
        metavar="0,1,…",
        text="Blocks with adapters. Default: all.",
    ),
    "method.dropout": _spec_option(
        OptionalFloat, "--dropout", panel=LORA_PANEL, text="Dropout before adapters."
    ),
    "method.head": _spec_option(
        HeadMode | None, "--head", panel=LORA_PANEL, text="How the head is trained."
    ),
    "data.source": _spec_option(
        OptionalStrList,
        "--data",
        panel=DATA_PANEL,
        metavar="SOURCE",
        text="rotten-tomatoes, imdb, hub:NAME or hub:NAME:CONFIG, an uploaded dataset, or a file "
        "(a.xlsx#Sheet for a sheet). SPLIT=SOURCE, repeatable, for given splits.",
    ),
    "data.text_column": _spec_option(
        OptionalStr, "--text-column", panel=DATA_PANEL, text="Text column."
    ),
    "data.text_pair_column": _spec_option(
        OptionalStr,
        "--text-pair-column",
        panel=DATA_PANEL,
        text="Column of the second text, for a task on pairs of texts.",
    ),
    "data.label_column": _spec_option(
        OptionalStr, "--label-column", panel=DATA_PANEL, text="Label column."
    ),
    "data.label_separator": _spec_option(
        OptionalStr,
        "--label-separator",
        panel=DATA_PANEL,
        text="multi_label: what separates the labels in a cell, such as ';'.",
    ),
    "data.label_columns": _spec_option(
        OptionalStr,
        "--label-columns",
        panel=DATA_PANEL,
        metavar="A,B,…",
        text="multi_label: one column of 0 and 1 for each label.",
    ),
    "data.split_column": _spec_option(
        OptionalStr,
        "--split-column",
        panel=DATA_PANEL,
        text="Column with the split of each row.",
    ),
    "data.train_size": _spec_option(
        OptionalStr,
        "--train-size",
        panel=DATA_PANEL,
        metavar="SIZE",
        text="Number of texts (4000) or fraction (0.5).",
    ),
    "data.validation_size": _spec_option(
        OptionalStr,
        "--validation-size",
        panel=DATA_PANEL,
        metavar="SIZE",
        text="Number of texts or fraction.",
    ),
    "data.test_size": _spec_option(
        OptionalStr,
        "--test-size",
        panel=DATA_PANEL,
        metavar="SIZE",
        text="Number of texts or fraction.",
    ),
    "data.split_seed": _spec_option(
        OptionalInt, "--split-seed", panel=DATA_PANEL, text="Seed of the split."
    ),
    "data.max_length": _spec_option(
        OptionalInt,
        "--max-length",
        panel=DATA_PANEL,
        text="Tokens per text; longer texts are truncated.",
    ),
    "data.long_texts": _spec_option(
        LongTexts | None,
        "--long-texts",
        panel=DATA_PANEL,
        text="Truncate longer texts (cut), or read them in overlapping windows (windows).",
    ),
    "optim.epochs": _spec_option(
        OptionalInt, "--epochs", panel=TRAINING_PANEL, text="Number of epochs."
    ),
    "optim.learning_rate": _spec_option(
        OptionalFloat,
        "--learning-rate",
        "--lr",
        panel=TRAINING_PANEL,
        text="Learning rate. Default depends on method and base.",
    ),
    "optim.batch_size": _spec_option(
        OptionalInt, "--batch-size", panel=TRAINING_PANEL, text="Texts per update."
    ),
    "task.type": _spec_option(
        TaskType | None,
        "--task",
        panel=DATA_PANEL,
        text="What is predicted: one label (default), any number of labels, a number, or several "
        "targets (--targets).",
    ),
    "task.targets": _spec_option(
        OptionalStr,
        "--targets",
        panel=DATA_PANEL,
        metavar="NAME=TYPE,…",
        text="Several targets, each from a column: stars=regression,topic,flags=multi_label. "
        "NAME=TYPE:COLUMN for another column; or JSON.",
    ),
    "task.ordered": _spec_option(
        bool | None,
        "--ordered",
        panel=DATA_PANEL,
        text="The labels are ranks, such as one to five stars.",
    ),
    "task.class_weights": _spec_option(
        ClassWeights | None,
        "--class-weights",
        panel=TRAINING_PANEL,
        text="Class weights of the loss.",
    ),
    "task.loss": _spec_option(
        LossName | None,
        "--loss",
        panel=TRAINING_PANEL,
        text="Loss of a task with labels. focal: what is easy counts less.",
    ),
    "task.focal_gamma": _spec_option(
        OptionalFloat,
        "--focal-gamma",
        panel=TRAINING_PANEL,
        text="How much less: (1 - p)^gamma. Default: 2.",
    ),
    "task.tune_thresholds": _spec_option(
        bool | None,
        "--tune-thresholds",
        panel=TRAINING_PANEL,
        text="One of several labels: tune a threshold of each for the best macro F1.",
    ),
    "stop.select_by": _spec_option(
        SelectBy | None,
        "--select-by",
        panel=TRAINING_PANEL,
        text="Metric that selects the best checkpoint.",
    ),
    "stop.patience": _spec_option(
        OptionalInt,
        "--patience",
        panel=TRAINING_PANEL,
        text="Stop after this many evaluations without improvement.",
    ),
    "runtime.seed": _spec_option(OptionalInt, "--seed", panel=COMPUTE_PANEL, text="Random seed."),
    "runtime.device": _spec_option(
        OptionalStr,
        "--device",
        panel=COMPUTE_PANEL,
        text="Device: auto, cpu, cuda; of a local training also one GPU, such as cuda:1.",
    ),
    "runtime.precision": _spec_option(
        Literal["auto", "fp32", "bf16"] | None,
        "--precision",
        panel=COMPUTE_PANEL,
        text="Numeric precision.",
    ),
}

_PARSERS: dict[str, Callable[[Any], Any]] = {
    "method.targets": _parse_roles,
    "method.layers": _parse_integers,
    "method.ngram_range": _parse_integers,
    "data.source": _parse_source,
    "data.label_columns": _parse_names,
    "task.targets": _parse_targets,
    "data.train_size": _parse_size,
    "data.validation_size": _parse_size,
    "data.test_size": _parse_size,
}


def option_spellings(flag: Any) -> tuple[str, ...]:
    """Return the names of an option: `--r`, `--lora-r`. Typer stores the first as the default."""
    option = flag.__metadata__[0]
    return (option.default, *option.param_decls)


def _parameter_name(field: str) -> str:
    return field.replace(".", "_")


@contextmanager
def spec_from_options(spec: Path | None = None, **values: Any) -> Iterator[Json]:
    """Yield the body built from the spec file and the options; options override the file."""
    body = apply_options(read_json_object(spec) if spec else {}, values)
    check_finite(body)
    yield body


def apply_options(body: Json, values: Mapping[str, Any]) -> Json:
    """Return the spec with the values of options applied. Raises `UsageError`."""
    if not isinstance(body.get("method", {}), dict):
        raise UsageError("not a spec of a run: 'method' is not a JSON object", "malformed_json")
    annotation = values["method_type"]
    if annotation is not None and body.get("method", {}).get("type") != annotation:
        body["method"] = {"type": annotation}  # settings of another method do not apply
    for field in SPEC_OPTIONS:
        value = values[_parameter_name(field)]
        if value is not None and value != []:
            _set_field(body, field, _PARSERS.get(field, lambda value: value)(value))
    if "method" in body:  # LoRA options imply the method
        budget = "time_budget" in body["method"]
        body["method"].setdefault("type", "auto" if budget else "lora")
    return body


def check_finite(body: Any) -> None:
    """Raise `UsageError` if a number is not finite."""
    try:
        json.dumps(body, allow_nan=False)
    except ValueError:
        raise UsageError("a number is not finite (nan or infinity)", "not_finite") from None


SpecFile = Annotated[
    Path | None,
    typer.Option(
        "--spec", help="JSON file with a spec, - for standard input. Options override it."
    ),
]


def options_signature(**extra: Any) -> inspect.Signature:
    """Return a signature with all options of a run, followed by `extra`."""
    kinds = {
        **{_parameter_name(field): annotation for field, annotation in SPEC_OPTIONS.items()},
        **extra,
    }
    return inspect.Signature(
        [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
            )
            for name, annotation in kinds.items()
        ]
    )


spec_from_options.__signature__ = options_signature(spec=SpecFile)  # type: ignore[attr-defined]


def read_json_object(file: Path) -> Json:
    """Read a JSON object from a file, or from standard input for `-`. Raises `UsageError`."""
    try:
        body = json.loads(read_text_file(file))
    except ValueError as error:
        raise UsageError(f"{file} is not JSON: {error}", "malformed_json") from error
    if not isinstance(body, dict):
        raise UsageError(f"{file} does not contain a JSON object", "malformed_json")
    return body


def _set_field(body: Json, field: str, value: Any) -> None:
    *path, name = field.split(".")
    for segment in path:
        body = body.setdefault(segment, {})
        if not isinstance(body, dict):
            raise UsageError(f"{segment!r} in the file is not a JSON object", "malformed_json")
    body[name] = value
