"""Labelled texts for `loraworks evaluate`: of a file, a sample, or a data set of the service."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from app.cli.client import Client
from app.cli.errors import Misuse
from lora_core.data.rows import Columns, Row
from lora_core.errors.data import MissingSplit
from lora_core.specs.data import ENDINGS, DataSpec, Split, divided


@dataclass(frozen=True)
class Labelled:
    """Rows, and what they are a part of; None: they are all that there is."""

    rows: list[Row]
    part: Split | None


def read(client: Client, data: str, columns: Columns, split: Split | None) -> Labelled:
    """The rows that `data` means.

    Without `split` it is the test part, where the data names parts or is a sample; else all rows.
    Parts that are not named are drawn as a training with default settings draws them. Raises a
    `DataError`, `Misuse` for a data set without labels, and `Refused` for the name of none.
    """
    from lora_core.hub import PREFIX
    from lora_core.samples import reviews

    sample = data in reviews.SAMPLES
    if sample or data.startswith(PREFIX) or is_file(data):
        return _part(data, columns, split, sample=sample)
    dataset = client.dataset(data)
    if dataset["label_column"] is None:
        told = f"{dataset['ref']} was uploaded with purpose=predict, so it has no labels"
        raise Misuse(told, "no_labels")
    of_upload = replace(
        columns,
        text=dataset["text_column"],
        label=dataset["label_column"],
        split=dataset["split_column"],
    )
    with tempfile.TemporaryDirectory(prefix="loraworks-") as work:
        file = Path(work, Path(dataset["filename"]).name)
        with client.content(dataset["ref"]) as pieces, file.open("xb") as opened:
            opened.writelines(pieces)
        source = f"{file}#{dataset['sheet']}" if dataset["sheet"] else str(file)
        return _part(source, of_upload, split, sample=False)


def is_file(data: str) -> bool:
    """Whether it looks like a file rather than the name of a data set."""
    file, _ = divided(data)
    return "/" in data or file.lower().endswith(ENDINGS) or Path(file).is_file()


def _part(source: str, columns: Columns, split: Split | None, *, sample: bool) -> Labelled:
    from lora_core.data import sources
    from lora_core.data.split import draw

    found = sources.read_one(source, columns)
    wanted = split or Split.TEST
    if isinstance(found, dict):
        if wanted not in found:
            raise MissingSplit(file=sources.shown(source), split=wanted)
        return Labelled(found[wanted], wanted)
    if split is None and not sample:
        return Labelled(found, None)
    usual = DataSpec()
    sizes = {Split.VALIDATION: usual.validation_size, Split.TEST: usual.test_size}
    return Labelled(draw(found, sizes, usual.split_seed)[wanted], wanted)
