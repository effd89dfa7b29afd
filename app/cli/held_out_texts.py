"""The texts that a version was not trained on: the validation and test splits of its data.

A method that `auto` selected was trained on a validation split that was drawn, too.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from app.cli.labeled_rows import download_dataset_source
from lora_core import manifest
from lora_core.hf_hub import HUB_PREFIX
from lora_core.samples import reviews
from lora_core.specs.train import TrainSpec

if TYPE_CHECKING:
    from app.cli.client import Client


def write_held_out_texts(client: "Client", artifact: Path, folder: Path) -> Path:
    """Write the held-out texts of an artifact of this service to a file, and return it.

    It has the text columns of the data that the version was trained on. Uploads are downloaded to
    `folder`. Raises `RequestRejected` if one has been deleted, and a `DataError`.
    """
    from lora_core.cross_validation import trainable_examples
    from lora_core.data.load import load_splits  # slow: it loads `datasets`

    facts = manifest.read(artifact)
    spec = TrainSpec.model_validate(facts["spec"])
    source, data = spec.data.source, spec.data
    sources = {"all": source} if isinstance(source, str) else source
    local = {split: _download(client, each, folder / split) for split, each in sources.items()}
    data = data.model_copy(update={"source": local.get("all", local)})
    splits = load_splits(data, spec.task)
    held_out = splits.validation + splits.test
    if "selection" in facts["metrics"] and trainable_examples(spec, splits) != splits.train:
        held_out = splits.test
    path = folder / "held-out.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for example in held_out:
            row = {data.text_column: example.text}
            if data.text_pair_column is not None:
                row[data.text_pair_column] = example.pair or ""
            file.write(json.dumps(row) + "\n")
    return path


def _download(client: "Client", source: str, folder: Path) -> str:
    """Return a source that can be read without the service."""
    if source in reviews.SAMPLES or source.startswith(HUB_PREFIX):
        return source
    folder.mkdir()
    return download_dataset_source(client, client.get_dataset(source), folder)
