"""`python -m lora_core train spec.json --out DIR`: a run without any service. So is `predict-file`.

Events go to standard output, one JSON object a line; everything else to standard error.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ValidationError

from lora_core import child_protocol
from lora_core.arguments import parser
from lora_core.child_protocol import Lifeline
from lora_core.data.rows import Columns
from lora_core.errors import LoraCoreError
from lora_core.errors.spec import InvalidSpec
from lora_core.errors.training import CheckpointMismatch, Stopped
from lora_core.events import Event, Failed
from lora_core.process import (
    importing,
    is_first_of_run,
    keep_freed_memory,
    of_one_run,
    start_anew,
    wait_passively,
)
from lora_core.specs.method import AutoSpec, LinearSpec
from lora_core.specs.predict import Answer, PredictSpec, Score
from lora_core.specs.train import TrainSpec
from lora_core.specs.validation import first_fault

if TYPE_CHECKING:
    from lora_core.training.checkpoint_schedule import SavePlan

Spec = TypeVar("Spec", bound=BaseModel)


class Lines:
    """Writes JSON lines to what was standard output; from then on, prints go to standard error."""

    def __init__(self) -> None:
        self._file = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
        sys.stdout.flush()
        os.dup2(2, 1)

    def write(self, value: BaseModel) -> None:
        self._file.write(value.model_dump_json(ensure_ascii=True) + "\n")

    def on_event(self, event: Event) -> None:
        self.write(event)


def main() -> int:
    """Run one command; returns the exit status."""
    arguments = parser(__doc__).parse_args()
    wait_passively()
    lines = Lines()
    try:
        _COMMANDS[arguments.command](arguments, lines)
    except Stopped as error:
        sys.stderr.write(f"{error}\n")
        return child_protocol.STOPPED
    except LoraCoreError as error:
        lines.write(Failed(code=error.code, message=str(error), detail=_plain(error.detail)))
        return child_protocol.FAILED
    return 0


def _train(arguments: argparse.Namespace, lines: Lines) -> None:
    keep_freed_memory()
    lifeline = _listening(arguments)
    with _together():
        _train_one(arguments, lines, lifeline)
    while arguments.more:
        order = json.loads(lifeline.next_line())
        following = parser(__doc__).parse_args(["train", *order])
        start_anew(following.place)
        _train_one(following, lines, lifeline)


def _train_one(arguments: argparse.Namespace, lines: Lines, lifeline: Lifeline) -> None:
    spec = read_spec(arguments.spec)
    out, resume = arguments.out, arguments.resume
    if isinstance(spec.method, LinearSpec):
        if resume is not None:
            raise CheckpointMismatch(path=resume.name, what="the method linear saves none")
        if is_first_of_run():  # of several processes one is enough
            with importing():
                from lora_core.training import linear

            linear.run(spec, out_dir=out, observer=lines, stop=lifeline)
        return
    with importing():
        from lora_core.training import auto
        from lora_core.training.run import run

    plan = _plan(arguments)
    train = auto.run if isinstance(spec.method, AutoSpec) else run
    train(spec, out_dir=out, observer=lines, stop=lifeline, plan=plan, resume=resume)


def _predict_file(arguments: argparse.Namespace, lines: Lines) -> None:
    lifeline = _listening(arguments)
    spec = _read(arguments.spec, PredictSpec)
    with importing():
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
    from lora_core.training.checkpoint_schedule import SavePlan

    where: Path | None = arguments.checkpoints
    return SavePlan(where, arguments.checkpoint_seconds) if where is not None else None


def _together() -> AbstractContextManager[None]:
    """With the other processes of the run. One alone reads its spec before it loads torch."""
    if of_one_run() == 1:
        return nullcontext()
    from lora_core.distributed import joined

    return joined()


def _inspect(arguments: argparse.Namespace, lines: Lines) -> None:
    from lora_core.data import contents
    from lora_core.data.profile import describe

    found = contents.read(arguments.file, _columns(arguments))
    lines.write(describe(found))  # it stands, should the diagnosis run out of time or memory
    from lora_core.data.checks import diagnose

    diagnosis = diagnose(found)
    lines.write(diagnosis)  # so does this, should the learning curve
    if diagnosis.more_labels is None:
        from lora_core.data.learning_curve import complete

        lines.write(complete(diagnosis, found))


def _preview(arguments: argparse.Namespace, lines: Lines) -> None:
    from lora_core.data.preview import preview

    lines.write(
        preview(arguments.file, _columns(arguments), after=arguments.after, limit=arguments.limit)
    )


def _columns(of: argparse.Namespace) -> Columns:
    return Columns(of.text_column, of.label_column, of.split_column, sheet=of.sheet)


def _look(arguments: argparse.Namespace, lines: Lines) -> None:
    from lora_core.data.columns import look

    lines.write(look(arguments.file, arguments.sheet))


def _predict(arguments: argparse.Namespace, lines: Lines) -> None:
    with importing():
        from lora_core.inference.load import load

    predictor = load(arguments.artifact)
    for text, answer in zip(arguments.text, predictor.predict(arguments.text), strict=True):
        lines.write(Answer(text=text, labels=[Score(label=n, score=s) for n, s in answer]))


def _export(arguments: argparse.Namespace, _: Lines) -> None:
    with importing():
        from lora_core.export import merged, peft

    if arguments.format == "transformers":
        merged.export(arguments.artifact, arguments.out)
    else:
        peft.export(arguments.artifact, arguments.out, base=_place(arguments.base))


def _import_peft(arguments: argparse.Namespace, _: Lines) -> None:
    from lora_core import peft_format

    peft_format.read_config(arguments.adapter)  # what is wrong there, before torch takes its time
    with importing():
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
    with importing():
        from lora_core.imports.check import check

    lines.write(check(directory))


def _place(base: str | None) -> str | None:
    """A directory by its full path, so that its name cannot be taken for one on the hub."""
    return str(Path(base).absolute()) if base and Path(base).is_dir() else base


def read_spec(path: Path) -> TrainSpec:
    """The training run that a JSON file describes. Raises `InvalidSpec`."""
    return _read(path, TrainSpec)


def _read(path: Path, kind: type[Spec]) -> Spec:
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InvalidSpec(path=path.name, problem=error.strerror) from error
    except ValidationError as error:
        place, fault = first_fault(error, kind)
        raise InvalidSpec(path=path.name, problem=f"{place}: {fault}") from error


def _plain(detail: dict[str, object]) -> dict[str, object]:
    return {k: v if isinstance(v, str | int | float | list) else str(v) for k, v in detail.items()}


def _end() -> None:
    """Leave without tearing torch down: that takes a second, and now and then aborts a process."""
    try:
        status = main()
    except SystemExit as left:  # without a word
        status = int(left.code or 0)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


_COMMANDS: Mapping[str, Callable[[argparse.Namespace, Lines], None]] = {
    "train": _train,
    "predict-file": _predict_file,
    "inspect": _inspect,
    "preview": _preview,
    "columns": _look,
    "predict": _predict,
    "export": _export,
    "import-peft": _import_peft,
    "unpack": _unpack,
}


if __name__ == "__main__":
    _end()
