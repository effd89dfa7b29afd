"""Run one command without the service, such as `python -m lora_core train spec.json --out DIR`.

Events go to standard output, one JSON object per line; everything else to standard error.
"""

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from lora_core import child_protocol
from lora_core.arguments import build_parser
from lora_core.atomic_files import check_new_directory
from lora_core.child_protocol import ParentStopSignal
from lora_core.data.label_readers import LabelFormat, list_target_columns
from lora_core.data.rows import ColumnSelection
from lora_core.errors import LoraCoreError
from lora_core.errors.artifact import SecondTextCountMismatch
from lora_core.errors.spec import InvalidSpec
from lora_core.errors.training import CheckpointMismatch, StopRequested
from lora_core.events import Event, Failed
from lora_core.hf_hub import hide_token_from_environment
from lora_core.process_settings import (
    disable_gc_then_freeze_imports,
    is_rank_zero,
    limit_openmp_spinning,
    retain_freed_memory,
    set_dumpable,
    torchrun_world_size,
)
from lora_core.specs.embed import EmbedSpec
from lora_core.specs.method import AutoSpec, LinearSpec
from lora_core.specs.predict import PredictSpec, ScoredOutput, TextPrediction
from lora_core.specs.task import SeveralTargetsSpec
from lora_core.specs.text_input import text_or_pair, text_to_dict
from lora_core.specs.train import TrainSpec
from lora_core.specs.validation_problems import first_problem_location_and_message

if TYPE_CHECKING:
    from lora_core.training.checkpoint_schedule import CheckpointSettings

_InputT = TypeVar("_InputT", bound=BaseModel)


class ExclusiveStdoutJsonWriter:
    """Writes JSON lines to standard output, and redirects all other output to standard error."""

    def __init__(self) -> None:
        self._file = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
        sys.stdout.flush()
        os.dup2(2, 1)

    def write(self, value: BaseModel) -> None:
        self._file.write(child_protocol.format_json_line(value) + "\n")

    def on_event(self, event: Event) -> None:
        self.write(event)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, by default that of `sys.argv`; return its exit status."""
    arguments = build_parser(__doc__).parse_args(argv)
    if hide_token_from_environment():
        set_dumpable(False)  # other processes of this user cannot read it
    limit_openmp_spinning()
    writer = ExclusiveStdoutJsonWriter()
    try:
        _COMMANDS[arguments.command](arguments, writer)
    except StopRequested as error:
        sys.stderr.write(f"{error}\n")
        return child_protocol.EXIT_STOPPED
    except LoraCoreError as error:
        writer.write(Failed(code=error.code, message=str(error), detail=_json_ready(error.detail)))
        return child_protocol.EXIT_FAILED
    return 0


def _train(arguments: argparse.Namespace, writer: ExclusiveStdoutJsonWriter) -> None:
    retain_freed_memory()
    parent = _connect_parent(arguments)
    with _process_group():
        spec = read_input(arguments.spec, TrainSpec)
        check_new_directory(arguments.out)
        out, resume = arguments.out, arguments.resume
        if isinstance(spec.method, LinearSpec):
            if resume is not None:
                raise CheckpointMismatch(
                    path=resume.name, what="the method linear has no checkpoints"
                )
            if is_rank_zero():  # a linear model needs only one process
                with disable_gc_then_freeze_imports():
                    from lora_core.training.linear import train_linear

                train_linear(spec, out_dir=out, observer=writer, stop=parent)
            return
        with disable_gc_then_freeze_imports():
            from lora_core.training.auto import train_auto
            from lora_core.training.encoder import train_encoder

        checkpoint_settings = _checkpoint_settings(arguments)
        train = train_auto if isinstance(spec.method, AutoSpec) else train_encoder
        train(
            spec,
            out_dir=out,
            observer=writer,
            stop=parent,
            checkpoint_settings=checkpoint_settings,
            resume=resume,
        )


def _predict_file(arguments: argparse.Namespace, writer: ExclusiveStdoutJsonWriter) -> None:
    parent = _connect_parent(arguments)
    spec = read_input(arguments.spec, PredictSpec)
    with disable_gc_then_freeze_imports():
        from lora_core.batch_prediction import predict_file

    checkpoint_settings = _checkpoint_settings(arguments)
    out, resume = arguments.out, arguments.resume
    predict_file(
        spec,
        out_dir=out,
        observer=writer,
        stop=parent,
        checkpoint_settings=checkpoint_settings,
        resume=resume,
    )


def _embed_file(arguments: argparse.Namespace, writer: ExclusiveStdoutJsonWriter) -> None:
    parent = _connect_parent(arguments)
    spec = read_input(arguments.spec, EmbedSpec)
    with disable_gc_then_freeze_imports():
        from lora_core.embed_file import embed_file

    embed_file(
        spec,
        out_dir=arguments.out,
        observer=writer,
        stop=parent,
        checkpoint_settings=_checkpoint_settings(arguments),
        resume=arguments.resume,
    )


def _connect_parent(arguments: argparse.Namespace) -> ParentStopSignal:
    parent = ParentStopSignal()
    parent.install_signal_handlers()
    if arguments.exit_with_parent:
        parent.start_exit_on_parent_eof()
    return parent


def _checkpoint_settings(arguments: argparse.Namespace) -> "CheckpointSettings | None":
    from lora_core.training.checkpoint_schedule import CheckpointSettings

    directory: Path | None = arguments.checkpoints
    if directory is None:
        return None
    return CheckpointSettings(directory, arguments.checkpoint_seconds)


def _process_group() -> AbstractContextManager[None]:
    """Join the other processes of the run. A single process does not need torch for that."""
    if torchrun_world_size() == 1:
        return nullcontext()
    from lora_core.distributed import process_group

    return process_group()


def _inspect(arguments: argparse.Namespace, writer: ExclusiveStdoutJsonWriter) -> None:
    from lora_core.data import file_inspection
    from lora_core.data.file_inspection import build_profile

    data = file_inspection.read_contents(arguments.file, _columns(arguments))
    writer.write(build_profile(data))  # first, in case the checks run out of time or memory
    from lora_core.data.checks import check_data

    report = check_data(data)
    writer.write(report)  # first, in case the learning curve runs out of time or memory
    if report.more_labels is None:
        from lora_core.data.learning_curve import add_learning_curve_to_report

        writer.write(add_learning_curve_to_report(report, data))


def _preview(arguments: argparse.Namespace, writer: ExclusiveStdoutJsonWriter) -> None:
    from lora_core.data.file_inspection import preview_rows

    writer.write(
        preview_rows(
            arguments.file, _columns(arguments), after=arguments.after, limit=arguments.limit
        )
    )


def _suspects(arguments: argparse.Namespace, writer: ExclusiveStdoutJsonWriter) -> None:
    from lora_core.data.file_inspection import read_contents
    from lora_core.data.suspect_rows import find_suspect_rows

    contents = read_contents(arguments.file, _columns(arguments))
    writer.write(find_suspect_rows(contents, arguments.target))


def _correct(arguments: argparse.Namespace, writer: ExclusiveStdoutJsonWriter) -> None:
    from lora_core.data.corrections import write_corrected_file
    from lora_core.data.label_review_schemas import CorrectionPlan

    corrections = read_input(arguments.corrections, CorrectionPlan)
    writer.write(
        write_corrected_file(arguments.file, _columns(arguments), corrections, arguments.out)
    )


def _find(arguments: argparse.Namespace, writer: ExclusiveStdoutJsonWriter) -> None:
    from lora_core.data.file_inspection import WantedText, find_rows_by_text

    wanted = read_input(arguments.wanted, WantedText)
    writer.write(find_rows_by_text(arguments.file, _columns(arguments), wanted))


def _texts(arguments: argparse.Namespace, writer: ExclusiveStdoutJsonWriter) -> None:
    from lora_core.data.file_inspection import extract_texts_to_jsonl

    writer.write(extract_texts_to_jsonl(arguments.file, _columns(arguments), arguments.out))


def _drift(arguments: argparse.Namespace, writer: ExclusiveStdoutJsonWriter) -> None:
    from lora_core.data.drift import measure_text_drift, read_training_texts
    from lora_core.specs.drift import RecentText

    recent = [RecentText.model_validate_json(line).input for line in sys.stdin.buffer]
    training = read_training_texts(arguments.file, _columns(arguments))
    writer.write(measure_text_drift(training, recent))


def _splits(arguments: argparse.Namespace, writer: ExclusiveStdoutJsonWriter) -> None:
    from lora_core.data.write_split_rows import write_split_rows

    writer.write(write_split_rows(read_input(arguments.spec, TrainSpec), arguments.out))


def _columns(arguments: argparse.Namespace) -> ColumnSelection:
    return ColumnSelection(
        arguments.text_column,
        arguments.label_column,
        arguments.split_column,
        pair=arguments.text_pair_column,
        sheet=arguments.sheet,
        label_format=_label_format(arguments),
    )


def _label_format(arguments: argparse.Namespace) -> LabelFormat:
    """Raises `InvalidSpec`."""
    if arguments.targets is not None:
        try:
            task = SeveralTargetsSpec.model_validate({"targets": arguments.targets})
        except ValidationError as error:
            field, problem = first_problem_location_and_message(error, SeveralTargetsSpec)
            raise InvalidSpec(path="--targets", problem=f"{field}: {problem}") from error
        return LabelFormat(task.type, targets=list_target_columns(task))
    return LabelFormat(
        arguments.task,
        arguments.label_separator,
        tuple(arguments.label_columns) if arguments.label_columns else None,
        arguments.ordered,
    )


def _columns_command(arguments: argparse.Namespace, writer: ExclusiveStdoutJsonWriter) -> None:
    from lora_core.data.file_inspection import read_file_layout

    writer.write(read_file_layout(arguments.file, arguments.sheet))


def _predict(arguments: argparse.Namespace, writer: ExclusiveStdoutJsonWriter) -> None:
    with disable_gc_then_freeze_imports():
        from lora_core.inference.load import load_predictor

    predictor = load_predictor(arguments.artifact)
    pairs = arguments.pair or [None] * len(arguments.text)
    if len(pairs) != len(arguments.text):
        raise SecondTextCountMismatch(texts=len(arguments.text), pairs=len(pairs))
    texts = [text_or_pair(text, pair) for text, pair in zip(arguments.text, pairs, strict=True)]
    items: Any = predictor.encode(texts)  # of the one kind that it takes itself
    outputs = predictor.decode_outputs(predictor.forward(items))
    for text, of_text in zip(texts, outputs, strict=True):
        labels = [ScoredOutput(**output.to_json()) for output in of_text]
        writer.write(TextPrediction(**text_to_dict(text), labels=labels))


def _check_base(arguments: argparse.Namespace, writer: ExclusiveStdoutJsonWriter) -> None:
    with disable_gc_then_freeze_imports():
        from lora_core.base_model_check import run_base_model_check

    base = _absolute_directory(arguments.base) or ""
    writer.write(run_base_model_check(base, arguments.revision))


def _export(arguments: argparse.Namespace, writer: ExclusiveStdoutJsonWriter) -> None:
    if arguments.int8 and arguments.format != "onnx":
        build_parser(__doc__).error("--int8 needs --format onnx")
    if arguments.texts and not arguments.int8:
        build_parser(__doc__).error("--texts needs --int8")
    if arguments.base and arguments.format != "peft":
        build_parser(__doc__).error("--base needs --format peft")
    if arguments.format == "onnx":
        _export_onnx(arguments, writer)
        return
    with disable_gc_then_freeze_imports():
        from lora_core.export import hugging_face

    if arguments.format == "transformers":
        hugging_face.export_merged(arguments.artifact, arguments.out, target=arguments.target)
    else:
        base = _absolute_directory(arguments.base)
        hugging_face.export_adapter(
            arguments.artifact, arguments.out, base=base, target=arguments.target
        )


def _export_onnx(arguments: argparse.Namespace, writer: ExclusiveStdoutJsonWriter) -> None:
    with disable_gc_then_freeze_imports():
        from lora_core.export import onnx

    artifact, texts = arguments.artifact, None
    if arguments.int8:
        texts = (
            onnx.read_int8_certification_texts(artifact, arguments.texts) if arguments.texts else []
        )
    certificate = onnx.export_onnx(
        artifact, arguments.out, target=arguments.target, int8_texts=texts
    )
    writer.write(certificate)


def _import_peft(arguments: argparse.Namespace, _: ExclusiveStdoutJsonWriter) -> None:
    from lora_core import peft_format

    peft_format.read_adapter_config(
        arguments.adapter
    )  # reports errors before the slow import of torch
    with disable_gc_then_freeze_imports():
        from lora_core.model_imports.peft import import_adapter

    import_adapter(
        arguments.adapter,
        arguments.out,
        base=_absolute_directory(arguments.base),
        labels=arguments.labels or (),
        max_length=arguments.max_length,
        pairs=arguments.pairs,
        task=arguments.task,
    )


def _unpack(arguments: argparse.Namespace, writer: ExclusiveStdoutJsonWriter) -> None:
    from lora_core.model_imports.archive import unpack_archive

    directory = unpack_archive(arguments.archive, arguments.into)  # before the slow import of torch
    with disable_gc_then_freeze_imports():
        from lora_core.model_imports.check import check_imported_model

    writer.write(check_imported_model(directory))


def _absolute_directory(base: str | None) -> str | None:
    """Return a directory by its full path, so that its name is not taken for one on the hub."""
    return str(Path(base).absolute()) if base and Path(base).is_dir() else base


def read_input(path: Path, kind: type[_InputT]) -> _InputT:
    """Read the input of a command, such as a spec, from a JSON file. Raises `InvalidSpec`."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InvalidSpec(path=path.name, problem=error.strerror) from error
    except ValidationError as error:
        field, problem = first_problem_location_and_message(error, kind)
        raise InvalidSpec(path=path.name, problem=f"{field}: {problem}") from error


def _json_ready(detail: dict[str, object]) -> dict[str, object]:
    return {k: v if isinstance(v, str | int | float | list) else str(v) for k, v in detail.items()}


def main_and_exit(argv: Sequence[str] | None = None) -> NoReturn:
    """Exit without tearing down torch, which takes a second and sometimes aborts the process."""
    try:
        status = main(argv)
    except SystemExit as error:  # exit without a message
        status = int(error.code or 0)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


_COMMANDS: Mapping[str, Callable[[argparse.Namespace, ExclusiveStdoutJsonWriter], None]] = {
    "train": _train,
    "predict-file": _predict_file,
    "embed-file": _embed_file,
    "inspect": _inspect,
    "preview": _preview,
    "suspects": _suspects,
    "correct": _correct,
    "find": _find,
    "texts": _texts,
    "drift": _drift,
    "splits": _splits,
    "columns": _columns_command,
    "predict": _predict,
    "check-base": _check_base,
    "export": _export,
    "import-peft": _import_peft,
    "unpack": _unpack,
}


if __name__ == "__main__":
    main_and_exit()
