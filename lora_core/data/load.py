"""The one way from a description of data to examples."""

from functools import lru_cache

from lora_core.data.labels import check
from lora_core.data.records import Example, Splits
from lora_core.data.rows import Columns
from lora_core.data.sources import read, shown, stamps
from lora_core.data.split import cap, draw, leaked
from lora_core.specs.data import DataSpec, Split


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
