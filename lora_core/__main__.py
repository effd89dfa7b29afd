"""`python -m lora_core train spec.json --out DIR`: a run without any service. So is `predict-file`.

Events go to standard output, one JSON object a line; everything else to standard error.
"""

import argparse
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ValidationError

from lora_core import exit_codes
from lora_core.errors import InvalidSpec, LoraCoreError, Stopped
from lora_core.events import Event, Failed
from lora_core.lifeline import Lifeline
from lora_core.process import keep_freed_memory, of_one_run, wait_passively
from lora_core.specs.predict import PredictSpec
from lora_core.specs.train import TrainSpec

if TYPE_CHECKING:
    from lora_core.training.saves import SavePlan

Spec = TypeVar("Spec", bound=BaseModel)


class Lines:
    """Writes JSON lines to what was standard output; from then on, prints go to standard error."""

    def __init__(self) -> None:
        self._file = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
        sys.stdout.flush()
        os.dup2(2, 1)

    def write(self, value: BaseModel) -> None:
        self._file.write(value.model_dump_json() + "\n")

    def on_event(self, event: Event) -> None:
        self.write(event)


def main() -> int:
    """Run one command; returns the exit status."""
    arguments = _parser().parse_args()
    wait_passively()
    command: Callable[[argparse.Namespace, Lines], None] = arguments.command
    lines = Lines()
    try:
        command(arguments, lines)
    except Stopped as error:
        sys.stderr.write(f"{error}\n")
        return exit_codes.STOPPED
    except LoraCoreError as error:
        lines.write(Failed(code=error.code, message=str(error), detail=_plain(error.detail)))
        return exit_codes.FAILED
    return 0


def _train(arguments: argparse.Namespace, lines: Lines) -> None:
    keep_freed_memory()
    lifeline = _listening(arguments)
    with _together():
        spec = read_spec(arguments.spec)
        from lora_core.training.run import run

        plan = _plan(arguments)
        out, resume = arguments.out, arguments.resume
        run(spec, out_dir=out, observer=lines, stop=lifeline, plan=plan, resume=resume)


def _predict_file(arguments: argparse.Namespace, lines: Lines) -> None:
    lifeline = _listening(arguments)
    spec = _read(arguments.spec, PredictSpec)
    from lora_core.prediction.run import run

    plan = _plan(arguments)
    out, resume = arguments.out, arguments.resume
    run(spec, out_dir=out, observer=lines, stop=lifeline, plan=plan, resume=resume)


def _listening(arguments: argparse.Namespace) -> Lifeline:
    lifeline = Lifeline()
    lifeline.listen()
    if arguments.lifeline:
        lifeline.follow_parent()
    return lifeline


def _plan(arguments: argparse.Namespace) -> "SavePlan | None":
    from lora_core.training.saves import SavePlan

    where: Path | None = arguments.checkpoints
    return SavePlan(where, arguments.checkpoint_seconds) if where is not None else None


def _together() -> AbstractContextManager[None]:
    """With the other processes of the run. One alone reads its spec before it loads torch."""
    if of_one_run() == 1:
        return nullcontext()
    from lora_core.training.ranks import joined

    return joined()


def _inspect(arguments: argparse.Namespace, lines: Lines) -> None:
    from lora_core.data.inspect import inspect, inspect_texts

    if arguments.texts:
        lines.write(inspect_texts(arguments.file, arguments.text_column))
        return
    columns = (arguments.text_column, arguments.label_column, arguments.split_column)
    lines.write(inspect(arguments.file, *columns))


def _predict(arguments: argparse.Namespace, lines: Lines) -> None:
    from lora_core.inference.predictor import Predictor

    predictor = Predictor.load(arguments.artifact)
    for text, answer in zip(arguments.text, predictor.predict(arguments.text), strict=True):
        lines.write(Answer(text=text, labels=[Score(label=n, score=s) for n, s in answer]))


def _export(arguments: argparse.Namespace, _: Lines) -> None:
    if arguments.format == "transformers":
        from lora_core.export import merged

        merged.export(arguments.artifact, arguments.out)
    else:
        from lora_core.export import peft

        peft.export(arguments.artifact, arguments.out, base=_place(arguments.base))


def _import_peft(arguments: argparse.Namespace, _: Lines) -> None:
    from lora_core.imports.peft import import_adapter

    import_adapter(
        arguments.adapter,
        arguments.out,
        base=_place(arguments.base),
        labels=arguments.labels or (),
        max_length=arguments.max_length,
    )


def _unpack(arguments: argparse.Namespace, lines: Lines) -> None:
    from lora_core.imports.archive import unpack

    directory = unpack(arguments.archive, arguments.into)  # before torch takes its time
    from lora_core.imports.check import check

    lines.write(check(directory))


def _place(base: str | None) -> str | None:
    """A directory by its full path, so that its name cannot be taken for one on the hub."""
    return str(Path(base).absolute()) if base and Path(base).is_dir() else base


class Score(BaseModel):
    """A label and its probability."""

    label: str
    score: float


class Answer(BaseModel):
    """All labels of one text, highest first."""

    text: str
    labels: list[Score]


def read_spec(path: Path) -> TrainSpec:
    """The training run that a JSON file describes. Raises `InvalidSpec`."""
    return _read(path, TrainSpec)


def _read(path: Path, kind: type[Spec]) -> Spec:
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InvalidSpec(path=path.name, problem=error.strerror) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InvalidSpec(path=path.name, problem=f"{place}: {first['msg']}") from error


def _plain(detail: dict[str, object]) -> dict[str, object]:
    return {k: v if isinstance(v, str | int | float | list) else str(v) for k, v in detail.items()}


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < float("inf"):
        raise ValueError(text)
    return seconds


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lora_core", description=__doc__)
    commands = parser.add_subparsers(required=True)

    train = commands.add_parser("train", help="train, evaluate and save a model")
    _add_run(train)
    train.set_defaults(command=_train)

    predict_file = commands.add_parser("predict-file", help="answer every row of a file")
    _add_run(predict_file)
    predict_file.set_defaults(command=_predict_file)

    inspect = commands.add_parser("inspect", help="check a data file and describe it")
    inspect.add_argument("file", type=Path)
    inspect.add_argument("--text-column", default="text")
    inspect.add_argument("--label-column", default="label")
    inspect.add_argument("--split-column")
    inspect.add_argument("--texts", action="store_true", help="there are no labels to check")
    inspect.set_defaults(command=_inspect)

    predict = commands.add_parser("predict", help="answer texts from an artifact")
    predict.add_argument("artifact", type=Path)
    predict.add_argument("text", nargs="+")
    predict.set_defaults(command=_predict)
    _doors(commands)
    return parser


def _doors(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    export = commands.add_parser("export", help="write a model in the format of another program")
    export.add_argument("artifact", type=Path)
    export.add_argument("--format", choices=("peft", "transformers"), required=True)
    export.add_argument("--out", type=Path, required=True, help="folder to write")
    export.add_argument("--base", help="what the adapter was trained on, if it lies elsewhere now")
    export.set_defaults(command=_export)

    adapter = commands.add_parser("import-peft", help="make an artifact of a PEFT adapter")
    adapter.add_argument("adapter", type=Path, help="folder with adapter_config.json")
    adapter.add_argument("--out", type=Path, required=True, help="folder of the artifact")
    adapter.add_argument("--base", help="what it was trained on (default: as its config says)")
    adapter.add_argument("--labels", nargs="+", help="names of the labels, in their order")
    adapter.add_argument("--max-length", type=int, help="tokens of the longest text")
    adapter.set_defaults(command=_import_peft)

    unpack = commands.add_parser("unpack", help="unpack an exported model and check its answers")
    unpack.add_argument("archive", type=Path, help="tar file")
    unpack.add_argument("--into", type=Path, required=True, help="empty folder")
    unpack.set_defaults(command=_unpack)


def _add_run(parser: argparse.ArgumentParser) -> None:
    """What every run takes that can be stopped and go on later."""
    parser.add_argument("spec", type=Path, help="JSON description of the run")
    parser.add_argument("--out", type=Path, required=True, help="directory of the result")
    parser.add_argument("--lifeline", action="store_true", help="stop when standard input ends")
    parser.add_argument("--checkpoints", type=Path, help="directory to save checkpoints in")
    parser.add_argument(
        "--checkpoint-seconds",
        type=_seconds,
        default=300.0,
        help="seconds between two checkpoints; 0: one after every step (default: 300)",
    )
    parser.add_argument("--resume", type=Path, help="directory of a checkpoint to go on from")


def _end() -> None:
    """One of several processes leaves without tearing torch down, which now and then aborts it."""
    if of_one_run() == 1:
        sys.exit(main())
    try:
        status = main()
    except SystemExit as left:  # without a word
        status = int(left.code or 0)
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    _end()
