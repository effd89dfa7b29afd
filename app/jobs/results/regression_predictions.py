"""The true and the predicted numbers of a regression, read from its artifact."""

from app.queue.tables import Job
from app.storage.store import ArtifactRef, Store, read_artifact_json_lines, read_manifest
from lora_core.specs.data import Split

MAX_PREDICTED_NUMBERS = 500  # of the first texts of a split, whose order is random


def list_regression_predictions(
    store: Store, job: Job, ref: ArtifactRef, *, split: Split, target: str | None = None
) -> list[tuple[float, float]]:
    """Return (true, predicted) of the first texts of a split; none if there are no predictions.

    `target`: the one of several targets that is a number. Raises `StoredArtifactCorrupt`.
    """
    name, file = f"job {job.id}", f"predictions/{split}.jsonl"
    if file not in read_manifest(store, ref, name=name)["files"]:
        return []
    lines = read_artifact_json_lines(store, ref, file, name=name, limit=MAX_PREDICTED_NUMBERS)
    pairs = ((line["label"], line["predicted"]) for line in lines)
    if target is not None:
        pairs = ((label[target], predicted[target]) for label, predicted in pairs)
    return [(float(label), float(predicted)) for label, predicted in pairs]
