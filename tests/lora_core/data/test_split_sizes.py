"""Sizes that are refused before the rows are read are those that the run would refuse."""

import random
from pathlib import Path

import pytest

from lora_core.data import file_inspection
from lora_core.data.file_inspection import build_profile
from lora_core.data.load import load_splits
from lora_core.data.rows import ColumnSelection
from lora_core.data.split import DatasetCounts, check_split_sizes
from lora_core.errors.data import DataError, TooFewRows
from lora_core.specs.data import DataSpec, Split


def random_spec(draw: random.Random, path: Path) -> DataSpec:
    sizes = [1, 2, 3, 5, 0.1, 0.2, 0.4]
    return DataSpec(
        source=str(path),
        train_size=draw.choice([None, None, 1, 2, 4, 0.1, 0.5, 0.7, 0.8]),
        validation_size=draw.choice(sizes),
        test_size=draw.choice(sizes),
        split_seed=draw.randrange(10),
    )


def is_refused_by_size(path: Path, spec: DataSpec) -> bool:
    """Whether the profile of the file is enough to refuse the spec."""
    profile = build_profile(file_inspection.read_contents(path, ColumnSelection()))
    predicted = DatasetCounts(
        profile.rows, len(profile.labels), profile.duplicates, profile.conflicting_duplicates
    )
    try:
        check_split_sizes(spec, [Split.VALIDATION, Split.TEST], predicted)
    except TooFewRows:
        return True
    return False


def is_refused(spec: DataSpec) -> bool:
    try:
        load_splits(spec)
    except TooFewRows:
        return True
    except DataError:  # other reasons
        return False
    return False


@pytest.mark.parametrize("texts", [1000, 6, 3])
def test_feasible_sizes_are_never_refused(tmp_path: Path, texts: int) -> None:
    draw = random.Random(texts)
    path = tmp_path / "few.csv"
    refused = 0
    for _ in range(300):
        numbers = [draw.randrange(texts) for _ in range(draw.randint(2, 12))]
        rows = [f"text {n},{draw.choice('aab')}" for n in numbers] + ["one,a", "two,b"]
        path.write_text("\n".join(["text,label", *rows]) + "\n")
        spec = random_spec(draw, path)
        predicted = is_refused_by_size(path, spec)
        refused += predicted
        assert not predicted or is_refused(spec), (rows, spec)
        if len(set(numbers)) == len(numbers):
            assert predicted == is_refused(spec), (rows, spec)
    assert 30 < refused < 270


def test_error_reports_available_and_requested_texts() -> None:
    with pytest.raises(TooFewRows) as caught:
        check_split_sizes(
            DataSpec(), [Split.VALIDATION, Split.TEST], DatasetCounts(rows=4, labels=3)
        )
    assert str(caught.value) == (
        "4 distinct texts are not enough for 1 for test, 1 for validation, 3 for train (at least "
        "one per label). Request fewer or add data."
    )
