"""The options of `loraworks train`: each is a place in the description of a run.

Only what is given is sent, so that the defaults stand in one place, `lora_core.specs`.
"""

import inspect
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from app.cli.errors import Misuse
from app.cli.responses import Json
from lora_core.specs.method import Head, MethodName, Role, Variant
from lora_core.specs.pooling import Pooling
from lora_core.specs.presets import Preset
from lora_core.specs.task import ClassWeights
from lora_core.specs.train import HeadInit, SelectBy


def _sizes(text: str) -> int | float:
    """`4000` is a count of texts, `0.2` a share of them."""
    try:
        return int(text) if text.isdigit() else float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is neither a count nor a share") from None


def _roles(values: list[str]) -> list[str]:
    """Repeated or with commas; `all` means every linear layer of a block."""
    roles = [role for value in values for role in value.split(",")]
    if "all" in roles:
        return [role.value for role in Role]
    if unknown := [role for role in roles if role not in list(Role)]:
        known = ", ".join(Role)
        raise typer.BadParameter(f"{unknown[0]!r} is not one of: {known}, all")
    return roles


def _numbers(text: str) -> list[int]:
    """`0,1,5`"""
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a list of numbers like 0,1,5") from None


def _source(values: list[str]) -> str | dict[str, str]:
    """One source, or one for each part: `train=a.csv`, `test=b.csv`."""
    parts = dict(value.split("=", 1) for value in values if "=" in value)
    if not parts:
        return values[-1]
    if len(parts) < len(values):
        raise typer.BadParameter("give one source, or PART=SOURCE for each part")
    return parts


def _flag(kind: Any, *names: str, group: str, text: str, **more: Any) -> Any:
    return Annotated[kind, typer.Option(*names, help=text, rich_help_panel=group, **more)]


Count = int | None
Number = float | None
Word = str | None
Words = list[str] | None

METHOD, LORA, DATA, TRAINING, RUN = "Method", "LoRA", "Data", "Training", "Computing"

# place in the description → option
FLAGS: dict[str, Any] = {
    "preset": _flag(
        Preset | None, "--preset", group=METHOD, text="Many settings at once; options override it."
    ),
    "method.type": _flag(
        MethodName | None,
        "--method",
        group=METHOD,
        text="How it is trained. Default: auto, the best of several.",
    ),
    "base": _flag(
        Word, "--base", group=METHOD, text="minilm-l6, a hub name, or a model: name, name:3."
    ),
    "pooling": _flag(
        Pooling | None, "--pooling", group=METHOD, text="What the head reads. Default: by the base."
    ),
    "head_init": _flag(
        HeadInit | None,
        "--head-init",
        group=METHOD,
        text="What the head starts from. Default: of LoRA the probe.",
    ),
    "method.blocks": _flag(
        Count, "--blocks", group=METHOD, text="baseline: also train the last so many blocks."
    ),
    "method.C": _flag(
        Number, "--c", group=METHOD, text="linear, probe: inverse strength of the regularization."
    ),
    "method.ngram_range": _flag(
        Word,
        "--ngram-range",
        group=METHOD,
        metavar="MIN,MAX",
        text="linear: words in a term. Default: 1,2.",
    ),
    "method.class_weight": _flag(
        Literal["balanced"] | None,
        "--class-weight",
        group=METHOD,
        text="linear, probe: every label counts as much as any other.",
    ),
    "method.time_budget": _flag(
        Count, "--time-budget", group=METHOD, text="auto: seconds that all of it may take, about."
    ),
    "method.min_df": _flag(
        Count, "--min-df", group=METHOD, text="linear: texts that a term must occur in."
    ),
    "method.r": _flag(Count, "--r", "--lora-r", group=LORA, text="Rank."),
    "method.alpha": _flag(Number, "--alpha", "--lora-alpha", group=LORA, text="Scale."),
    "method.variant": _flag(Variant | None, "--variant", group=LORA, text="Kind of LoRA layer."),
    "method.targets": _flag(
        Words,
        "--target",
        group=LORA,
        metavar="ROLE",
        text="query, key, value, projection, mlp; repeated or with commas; all for every one.",
    ),
    "method.layers": _flag(
        Word, "--layers", group=LORA, metavar="0,1,…", text="Only these blocks. Default: all."
    ),
    "method.dropout": _flag(Number, "--dropout", group=LORA, text="Dropout before the adapters."),
    "method.head": _flag(Head | None, "--head", group=LORA, text="What happens to the head."),
    "data.source": _flag(
        Words,
        "--data",
        group=DATA,
        metavar="SOURCE",
        text="rotten-tomatoes, imdb, hub:NAME, an uploaded data set, or a file (of a workbook "
        "a.xlsx#Sheet); PART=SOURCE, repeated, for given parts.",
    ),
    "data.text_column": _flag(Word, "--text-column", group=DATA, text="Column of the texts."),
    "data.label_column": _flag(Word, "--label-column", group=DATA, text="Column of the labels."),
    "data.split_column": _flag(
        Word, "--split-column", group=DATA, text="Column that names the part of each row."
    ),
    "data.train_size": _flag(
        Word, "--train-size", group=DATA, metavar="SIZE", text="Count (4000) or share (0.5)."
    ),
    "data.validation_size": _flag(
        Word, "--validation-size", group=DATA, metavar="SIZE", text="Count or share."
    ),
    "data.test_size": _flag(
        Word, "--test-size", group=DATA, metavar="SIZE", text="Count or share."
    ),
    "data.split_seed": _flag(Count, "--split-seed", group=DATA, text="Another split."),
    "data.max_length": _flag(Count, "--max-length", group=DATA, text="Tokens a text is cut at."),
    "optim.epochs": _flag(Count, "--epochs", group=TRAINING, text="Passes over the data."),
    "optim.learning_rate": _flag(
        Number, "--learning-rate", "--lr", group=TRAINING, text="Default: by method and base."
    ),
    "optim.batch_size": _flag(Count, "--batch-size", group=TRAINING, text="Texts an update."),
    "task.class_weights": _flag(
        ClassWeights | None, "--class-weights", group=TRAINING, text="Weight of each class."
    ),
    "stop.select_by": _flag(
        SelectBy | None, "--select-by", group=TRAINING, text="Picks the best checkpoint."
    ),
    "stop.patience": _flag(
        Count, "--patience", group=TRAINING, text="Evaluations without a better one, then stop."
    ),
    "runtime.seed": _flag(Count, "--seed", group=RUN, text="Seed of all that is random."),
    "runtime.device": _flag(Word, "--device", group=RUN, text="auto, cpu, cuda, cuda:1."),
    "runtime.precision": _flag(
        Literal["auto", "fp32", "bf16"] | None, "--precision", group=RUN, text="Of the sums."
    ),
}

_READ: dict[str, Callable[[Any], Any]] = {
    "method.targets": _roles,
    "method.layers": _numbers,
    "method.ngram_range": _numbers,
    "data.source": _source,
    "data.train_size": _sizes,
    "data.validation_size": _sizes,
    "data.test_size": _sizes,
}


def option_names(flag: Any) -> tuple[str, ...]:
    """`--r`, `--lora-r`. In an annotation typer has the first of them as the default."""
    option = flag.__metadata__[0]
    return (option.default, *option.param_decls)


def _parameter(place: str) -> str:
    return place.replace(".", "_")


@contextmanager
def described(spec: Path | None = None, **values: Any) -> Iterator[Json]:
    """The body made from the file and the options; options win."""
    body = overlaid(read_object(spec) if spec else {}, values)
    check_finite(body)
    yield body


def overlaid(body: Json, values: Mapping[str, Any]) -> Json:
    """The description of a run with the values of options in it. Raises `Misuse`."""
    if not isinstance(body.get("method", {}), dict):
        raise Misuse(
            "it holds no description of a run: 'method' is no JSON object", "malformed_json"
        )
    kind = values["method_type"]
    if kind is not None and body.get("method", {}).get("type") != kind:
        body["method"] = {"type": kind}  # settings of another method say nothing about this one
    for place in FLAGS:
        value = values[_parameter(place)]
        if value is not None and value != []:
            _put(body, place, _READ.get(place, lambda given: given)(value))
    if "method" in body:  # options of LoRA alone name it well enough
        budget = "time_budget" in body["method"]
        body["method"].setdefault("type", "auto" if budget else "lora")
    return body


def check_finite(body: Json) -> None:
    """Raises `Misuse`."""
    try:
        json.dumps(body, allow_nan=False)
    except ValueError:
        raise Misuse("a number is not finite (nan or infinity)", "not_finite") from None


SpecFile = Annotated[
    Path | None,
    typer.Option("--spec", help="A JSON body, - for standard input. Options override it."),
]


def signature(**more: Any) -> inspect.Signature:
    """All options of a run, then those given here, by parameter."""
    kinds = {**{_parameter(place): kind for place, kind in FLAGS.items()}, **more}
    return inspect.Signature(
        [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
            for name, kind in kinds.items()
        ]
    )


described.__signature__ = signature(spec=SpecFile)  # type: ignore[attr-defined]


def read_object(file: Path) -> Json:
    """A JSON object, `-` for standard input. Raises `Misuse`."""
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
        body = json.loads(text)
    except ValueError as error:
        raise Misuse(f"{file} is not JSON: {error}", "malformed_json") from error
    if not isinstance(body, dict):
        raise Misuse(f"{file} holds no description, a JSON object", "malformed_json")
    return body


def _put(body: Json, place: str, value: Any) -> None:
    *path, name = place.split(".")
    for part in path:
        body = body.setdefault(part, {})
        if not isinstance(body, dict):
            raise Misuse(f"{part!r} in the file is no JSON object", "malformed_json")
    body[name] = value
