"""What the commands of `python -m lora_core` take."""

import argparse
from pathlib import Path


def parser(description: str | None) -> argparse.ArgumentParser:
    """Of all commands. What it parses holds the name of one in `command`."""
    made = argparse.ArgumentParser(prog="python -m lora_core", description=description)
    commands = made.add_subparsers(required=True, dest="command")

    train = commands.add_parser("train", help="train, evaluate and save a model")
    _add_run(train)
    train.add_argument(
        "--more",
        action="store_true",
        help="with --lifeline: then wait for further orders, a line of standard input each, which "
        "is the JSON list of their arguments; their directory and log are those of --place",
    )
    train.add_argument("--place", type=Path, help="of a further order: where it works")

    predict_file = commands.add_parser("predict-file", help="answer every row of a file")
    _add_run(predict_file)

    inspect = commands.add_parser("inspect", help="check a data file, describe and diagnose it")
    _add_file(inspect)

    preview = commands.add_parser("preview", help="some rows of a data file")
    _add_file(preview)
    preview.add_argument("--after", type=int, default=0, help="the row before the first")
    preview.add_argument("--limit", type=int, default=20, help="rows at most")

    columns = commands.add_parser("columns", help="the columns of a data file, and its first rows")
    columns.add_argument("file", type=Path)
    columns.add_argument("--sheet", help="of a workbook")

    predict = commands.add_parser("predict", help="answer texts from an artifact")
    predict.add_argument("artifact", type=Path)
    predict.add_argument("text", nargs="+")
    _doors(commands)
    return made


def _doors(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    export = commands.add_parser("export", help="write a model in the format of another program")
    export.add_argument("artifact", type=Path)
    export.add_argument("--format", choices=("peft", "transformers"), required=True)
    export.add_argument("--out", type=Path, required=True, help="folder to write")
    export.add_argument("--base", help="what the adapter was trained on, if it lies elsewhere now")

    adapter = commands.add_parser("import-peft", help="make an artifact of a PEFT adapter")
    adapter.add_argument("adapter", type=Path, help="folder with adapter_config.json")
    adapter.add_argument("--out", type=Path, required=True, help="folder of the artifact")
    adapter.add_argument("--base", help="what it was trained on (default: as its config says)")
    adapter.add_argument("--labels", nargs="+", help="names of the labels, in their order")
    adapter.add_argument("--max-length", type=int, help="tokens of the longest text")

    unpack = commands.add_parser("unpack", help="unpack an exported model and check its answers")
    unpack.add_argument("archive", type=Path, help="tar file")
    unpack.add_argument("--into", type=Path, required=True, help="empty folder")


def _add_file(parser: argparse.ArgumentParser) -> None:
    """A data file and its columns."""
    parser.add_argument("file", type=Path)
    parser.add_argument("--text-column", default="text")
    parser.add_argument("--label-column", default="label")
    parser.add_argument("--split-column")
    parser.add_argument("--sheet", help="of a workbook (default: the first with any cells)")
    parser.add_argument(
        "--texts",
        dest="label_column",
        action="store_const",
        const=None,
        default="label",
        help="there are no labels",
    )


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
        help="seconds between two checkpoints; 0: one after every step (default: %(default)g)",
    )
    parser.add_argument("--resume", type=Path, help="directory of a checkpoint to go on from")


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < float("inf"):
        raise ValueError(text)
    return seconds
