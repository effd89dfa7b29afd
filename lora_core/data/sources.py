"""From the name of a source to rows: a sample, a hub data set, or a file."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from lora_core.data import files, hub
from lora_core.data.columns import advised
from lora_core.data.parts import Parts, by_column, with_train
from lora_core.data.rows import Columns, Row
from lora_core.errors.data import DataNotFound, MissingColumn, MissingSplit
from lora_core.hub import PREFIX
from lora_core.samples import reviews
from lora_core.specs.data import Split, divided


def read(source: str | Mapping[Split, str], columns: Columns) -> Parts:
    """The parts that the source names. One that names none has everything in `train`.

    With one source per part, a file belongs to its part as a whole, unless a split column is named.

    Raises `DataNotFound`, `MissingSplit`, `UnknownSplit`, and what the readers raise.
    """
    if isinstance(source, str):
        if source in reviews.SAMPLES:
            columns.find(source, reviews.COLUMNS)
        found = read_one(source, columns)
        return with_train(shown(source), found if isinstance(found, dict) else {Split.TRAIN: found})
    named = replace(columns, look_for_split=False)
    return with_train(
        shown(source), {part: _part(part, one, named) for part, one in source.items()}
    )


def shown(source: str | Mapping[Split, str]) -> str:
    """What an error calls a source: of a file the name, since folders are nobody's business."""
    if not isinstance(source, str):
        return "The source"
    known = source in reviews.SAMPLES or source.startswith(PREFIX)
    return source if known else Path(divided(source)[0]).name


def _part(part: Split, source: str, columns: Columns) -> list[Row]:
    """What a source holds for a part: all of it or, if it names parts itself, this one."""
    found = read_one(source, columns)
    if isinstance(found, list):
        return found
    if part not in found:
        raise MissingSplit(file=shown(source), split=part.value)
    return found[part]


def read_one(source: str, columns: Columns) -> Parts | list[Row]:
    """One source: its parts, or all rows of one that names none. Raises what the readers raise."""
    if source in reviews.SAMPLES:
        return [
            Row(number, text, label)
            for number, (text, label) in enumerate(reviews.load(source), start=1)
        ]
    if source.startswith(PREFIX):
        return hub.read(source.removeprefix(PREFIX), columns)
    name, sheet = divided(source)
    path, columns = Path(name), replace(columns, sheet=sheet)
    try:
        rows = files.read(path, columns)
    except MissingColumn as error:
        raise advised(path, columns, error) from error
    except DataNotFound as error:
        reason = f"{error.detail['reason']}; samples are {', '.join(reviews.SAMPLES)}"
        raise DataNotFound(source=path.name, reason=reason) from error
    return by_column(path.name, rows) or rows


def stamps(source: str | Mapping[Split, str]) -> tuple[object, ...]:
    """Size, time and number of each file that is named: others when it was written anew."""
    found: list[object] = []
    for name in [source] if isinstance(source, str) else source.values():
        try:
            facts = Path(divided(name)[0]).stat()
        except OSError:  # no file, or none that can be read
            continue
        found.append((name, facts.st_size, facts.st_mtime_ns, facts.st_ino))
    return tuple(found)
