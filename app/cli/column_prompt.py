"""Files on their way to the service: asks, at a terminal, which columns hold texts and labels."""

import sys
from pathlib import Path

from app.cli.client import Client
from app.cli.errors import Misuse, Refused
from app.cli.output import console, plain
from app.cli.responses import Dataset, Json
from lora_core.specs.data import divided

EXAMPLE = 60  # characters of the cells that are shown

Answers = dict[str, str]  # text_column, label_column


def upload(client: Client, file: Path, **fields: str | None) -> Dataset:
    """Upload a file. Where it has no such columns, asks for them and sends it again.

    Raises what `Client.upload` raises.
    """
    try:
        return client.upload(file, **fields)
    except Refused as error:
        if error.code != "missing_column" or not can_ask():
            raise
    labels = fields.get("purpose") != "predict"
    return client.upload(file, **{**fields, **ask(file, fields.get("sheet"), labels=labels)})


def upload_sources(client: Client, body: Json) -> None:
    """Upload the files that a description names as its data, and put the data sets in their place.

    Raises what `upload` raises.
    """
    data = body.get("data")
    source = data.get("source") if isinstance(data, dict) else None
    if not isinstance(data, dict) or source is None:
        return
    named = {f"{what}_column": data.get(f"{what}_column") for what in ("text", "label", "split")}

    def sent(one: str) -> str:
        file, sheet = divided(one)
        if not Path(file).is_file():
            return one
        dataset = upload(client, Path(file), sheet=sheet, **named)
        console(stderr=True).print(plain(f"Uploaded {file} as {dataset['ref']}."), soft_wrap=True)
        return dataset["ref"]

    if isinstance(source, dict):
        data["source"] = {part: sent(one) for part, one in source.items()}
    else:
        data["source"] = sent(source)


def settle(body: Json) -> None:
    """Ask for columns that the file of a description without a service does not have."""
    from lora_core.data.columns import look

    data = body.get("data")
    source = data.get("source") if isinstance(data, dict) else None
    if not isinstance(data, dict) or not isinstance(source, str) or not can_ask():
        return
    file, sheet = divided(source)
    if Path(file).is_file():
        wanted = {data.get("text_column", "text"), data.get("label_column", "label")}
        if not wanted <= set(look(Path(file), sheet).columns):
            data |= ask(Path(file), sheet, labels=True)


def can_ask() -> bool:
    """Whether somebody sits at the terminal."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def ask(file: Path, sheet: str | None, *, labels: bool) -> Answers:
    """Show the columns of a file with what their first rows hold, and ask which are meant."""
    from lora_core.data.columns import look

    found = look(file, sheet)
    shown = console(stderr=True)
    shown.print(plain(f"{file.name} has these columns:"), soft_wrap=True)
    for number, (name, *cells) in enumerate(zip(found.columns, *found.rows, strict=True), start=1):
        example = plain(" | ".join(dict.fromkeys(cell for cell in cells if cell.strip())))
        if len(example) > EXAMPLE:
            example = f"{example[: EXAMPLE - 1]}…"
        shown.print(f"{number:>3}  {plain(name)}: {example}", soft_wrap=True)
    answers = {"text_column": _chosen("texts", found.columns, found.text_column)}
    if labels:
        answers["label_column"] = _chosen("labels", found.columns, found.label_column)
    return answers


def _chosen(what: str, columns: tuple[str, ...], guess: str | None) -> str:
    """The name of a column; its number is understood, too. Raises `Misuse` where input ends."""
    default = "" if guess is None else f" [{plain(guess)}]"
    while True:
        sys.stderr.write(f"Column of the {what}{default}: ")  # standard output may be JSON
        sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            raise Misuse(f"no column of the {what} was named", "missing_column")
        said = line.strip() or guess
        if said in columns:
            return said
        if said is not None and said.isdecimal() and 0 < int(said) <= len(columns):
            return columns[int(said) - 1]
        sys.stderr.write("There is no such column: give its name or its number.\n")
