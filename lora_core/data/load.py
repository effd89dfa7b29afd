"""From the name of a source to rows: a sample, a hub data set, or a file."""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from lora_core.data import files, hub
from lora_core.data.columns import advised
from lora_core.data.labels import check
from lora_core.data.records import Example, Splits
from lora_core.data.rows import Columns, Row
from lora_core.data.split import Parts, by_column, cap, draw, leaked, with_train
from lora_core.errors.data import DataNotFound, MissingColumn, MissingSplit
from lora_core.hub import PREFIX
from lora_core.samples import reviews
from lora_core.specs.data import DataSpec, Split, divided


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


# MERGED lora_core.data.load
# The one way from a description of data to examples.


def load(spec: DataSpec) -> Splits:
    """Texts and labels in three parts: given ones as they are, the others drawn from train.

    Parts that were given keep the order of their file; drawn ones are in the order of the hashes.
    The same description and data give the same splits everywhere. Raises `DataError` and, for a
    sample, `SampleMissing` or `SampleChanged`.

    The last one is remembered: cells of a sweep follow each other on the same data.
    """
    return _load(spec.model_dump_json(), stamps(spec.source))


@lru_cache(maxsize=1)
def _load(description: str, _: tuple[object, ...]) -> Splits:
    spec = DataSpec.model_validate_json(description)
    given = read(spec.source, Columns(spec.text_column, spec.label_column, spec.split_column))
    check(shown(spec.source), given)
    sizes = {Split.VALIDATION: spec.validation_size, Split.TEST: spec.test_size}
    missing = {part: size for part, size in sizes.items() if part not in given}
    parts = dict(given)
    if missing:
        parts |= draw(given[Split.TRAIN], missing, spec.split_seed)
    if spec.train_size is not None:
        parts[Split.TRAIN] = cap(
            parts[Split.TRAIN], spec.train_size, of=len(given[Split.TRAIN]), seed=spec.split_seed
        )
    labels = check(shown(spec.source), parts)
    indices = {label: i for i, label in enumerate(labels)}
    return Splits(
        labels=labels,
        leaked=leaked(given),
        drawn=frozenset(missing),
        **{
            part.value: tuple(
                Example(row.number, row.text, indices[row.label]) for row in parts[part]
            )
            for part in Split
        },
    )
