"""The command-line arguments of `python -m lora_core`."""

import argparse
from pathlib import Path
from typing import get_args

from lora_core.child_protocol import EXIT_WITH_PARENT_OPTION
from lora_core.specs.task import TaskType, TaskTypeOfTarget


def build_parser(description: str | None) -> argparse.ArgumentParser:
    """Return the parser of all commands. The name of the command is in `command`."""
    parser = argparse.ArgumentParser(prog="python -m lora_core", description=description)
    commands = parser.add_subparsers(required=True, dest="command")

    train = commands.add_parser("train", help="train, evaluate and save a model")
    _add_run_arguments(train)

    predict_file = commands.add_parser("predict-file", help="predict every row of a file")
    _add_run_arguments(predict_file)

    embed_file = commands.add_parser("embed-file", help="compute the vector of every row of a file")
    _add_run_arguments(embed_file)

    inspect = commands.add_parser("inspect", help="describe and check a data file")
    _add_file_arguments(inspect)

    preview = commands.add_parser("preview", help="show some rows of a data file")
    _add_file_arguments(preview)
    preview.add_argument("--after", type=int, default=0, help="number of rows to skip")
    preview.add_argument("--limit", type=int, default=20, help="maximum number of rows")

    suspects = commands.add_parser("suspects", help="list labels that are probably wrong")
    _add_file_arguments(suspects)
    suspects.add_argument("--target", help="which of several targets to check")

    correct = commands.add_parser("correct", help="change labels in a copy of a data file")
    _add_file_arguments(correct)
    correct.add_argument("--corrections", type=Path, required=True, help="JSON file of changes")
    correct.add_argument("--out", type=Path, required=True, help="directory of the new file")

    find = commands.add_parser("find", help="list the rows of a data file with a certain text")
    _add_file_arguments(find)
    find.add_argument("--wanted", type=Path, required=True, help="JSON file with the text")

    texts = commands.add_parser("texts", help="write the whole texts of a data file as JSON lines")
    _add_file_arguments(texts)
    texts.add_argument("--out", type=Path, required=True, help="output file")

    drift = commands.add_parser(
        "drift",
        help="test whether the texts on standard input, as JSON lines with text and text_pair, are "
        "like those of a data file, or of a sample",
    )
    _add_file_arguments(drift)

    splits = commands.add_parser("splits", help="write the rows of a run, split by split")
    splits.add_argument("spec", type=Path, help="JSON spec of the run")
    splits.add_argument("--out", type=Path, required=True, help="output file")

    columns = commands.add_parser("columns", help="show columns and first rows of a data file")
    columns.add_argument("file", type=Path)
    columns.add_argument("--sheet", help="sheet of a workbook")

    predict = commands.add_parser("predict", help="predict texts with an artifact")
    predict.add_argument("artifact", type=Path)
    predict.add_argument("text", nargs="+")
    predict.add_argument(
        "--pair", nargs="+", help="second text of each pair, for a model of text pairs"
    )

    check_base = commands.add_parser("check-base", help="try a base model")
    check_base.add_argument("base", help="sample, directory, or name on the hub")
    check_base.add_argument("--revision", help="commit, tag or branch of a hub model")
    _add_format_commands(commands)
    return parser


def _add_format_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    export = commands.add_parser("export", help="export a model in the format of another library")
    export.add_argument("artifact", type=Path)
    export.add_argument("--format", choices=("onnx", "peft", "transformers"), required=True)
    export.add_argument("--out", type=Path, required=True, help="output directory")
    export.add_argument("--base", help="PEFT: base of the adapter, if it has moved")
    export.add_argument("--target", help="which of several targets to export")
    export.add_argument("--int8", action="store_true", help="ONNX: quantize the weights to int8")
    export.add_argument("--texts", metavar="FILE", help="ONNX: texts to certify an int8 model on")

    adapter = commands.add_parser("import-peft", help="import a PEFT adapter as an artifact")
    adapter.add_argument("adapter", type=Path, help="directory with adapter_config.json")
    adapter.add_argument("--out", type=Path, required=True, help="directory of the artifact")
    adapter.add_argument("--base", help="base of the adapter (default: the one in its config)")
    adapter.add_argument("--labels", nargs="+", help="names of the labels, in order")
    adapter.add_argument("--max-length", type=int, help="maximum length of a text in tokens")
    adapter.add_argument("--pairs", action="store_true", help="the model reads pairs of texts")
    adapter.add_argument(
        "--task",
        choices=get_args(TaskTypeOfTarget),
        help="what the model predicts (default: one label)",
    )

    unpack = commands.add_parser("unpack", help="unpack and check an exported model")
    unpack.add_argument("archive", type=Path, help="tar file")
    unpack.add_argument("--into", type=Path, required=True, help="empty directory")


def _add_file_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments for a data file and its columns."""
    parser.add_argument("file", type=Path)
    parser.add_argument("--text-column", default="text")
    parser.add_argument("--text-pair-column", help="column of the second text of each row")
    parser.add_argument("--label-column", default="label")
    parser.add_argument("--task", choices=get_args(TaskType), default="single_label")
    parser.add_argument("--ordered", action="store_true", help="the labels are ranks")
    parser.add_argument("--label-separator", help="between the labels of a cell")
    parser.add_argument(
        "--label-columns",
        action="append",
        metavar="COLUMN",
        help="column of 0 and 1 for one label; repeat it for each",
    )
    parser.add_argument(
        "--targets",
        metavar="NAME=TYPE,…",
        help="several targets, each from a column: stars=regression,topic; or JSON as in a spec",
    )
    parser.add_argument("--split-column")
    parser.add_argument("--sheet", help="sheet of a workbook (default: the first one with cells)")
    parser.add_argument(
        "--texts",
        dest="label_column",
        action="store_const",
        const=None,
        default="label",
        help="the file has no labels",
    )


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of every run that can be stopped and resumed."""
    parser.add_argument("spec", type=Path, help="JSON spec of the run")
    parser.add_argument("--out", type=Path, required=True, help="output directory")
    parser.add_argument(
        EXIT_WITH_PARENT_OPTION, action="store_true", help="exit at EOF of standard input"
    )
    parser.add_argument("--checkpoints", type=Path, help="directory for checkpoints")
    parser.add_argument(
        "--checkpoint-seconds",
        type=_seconds,
        default=300.0,
        help="seconds between checkpoints; 0: after every step (default: %(default)g)",
    )
    parser.add_argument("--resume", type=Path, help="directory of a checkpoint to resume from")


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < float("inf"):
        raise ValueError(text)
    return seconds
