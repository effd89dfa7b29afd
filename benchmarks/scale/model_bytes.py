"""The bytes that one more LoRA version takes on disk: `python -m benchmarks.scale.model_bytes`.

Trains on the sample base with default settings, twice, and stores both as a worker does. The second
one finds its base in the store. Then the same with adapters on query and value only.
"""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

from app.database import migrations
from app.resources import Resources, open_resources
from app.settings import Settings
from app.storage.staged_artifact import StagedArtifact
from app.storage.tables import MODEL_KIND
from benchmarks.child_process import ROOT
from lora_core.specs.data import DataSpec
from lora_core.specs.method import LayerRole, LoraSpec
from lora_core.specs.train import OptimSpec, TrainSpec

TEXTS = {"train_size": 400, "validation_size": 100, "test_size": 100}


def main() -> None:
    query_value = LoraSpec(targets=(LayerRole.QUERY, LayerRole.VALUE))
    print(
        json.dumps(
            {
                "model_bytes": model_bytes(LoraSpec()),
                "query_value_model_bytes": model_bytes(query_value),
            }
        )
    )


def model_bytes(method: LoraSpec) -> int:
    """Return how much the store grows by the second of two versions that differ in their seed."""
    with TemporaryDirectory(prefix="loraworks-") as folder:
        settings = Settings(data_dir=Path(folder))
        migrations.upgrade(settings)
        resources = open_resources(settings)
        try:
            used = []
            for seed in (0, 1):
                store(resources, train(Path(folder), method, seed))
                used.append(sum(file.bytes for file in resources.store.list_files()))
        finally:
            resources.close()
    return used[1] - used[0]


def train(folder: Path, method: LoraSpec, seed: int) -> Path:
    """Train for one epoch, and return the artifact. What it learns does not change its size."""
    spec = TrainSpec(
        method=method,
        data=DataSpec(source="rotten-tomatoes", **TEXTS),
        optim=OptimSpec(epochs=1),
    )
    spec = spec.model_copy(update={"runtime": spec.runtime.model_copy(update={"seed": seed})})
    file, out = folder / f"{seed}.json", folder / f"model-{seed}"
    file.write_text(spec.model_dump_json())
    command = [sys.executable, "-m", "lora_core", "train", str(file), "--out", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return out


def store(resources: Resources, artifact: Path) -> None:
    """Store an artifact as that of a job."""
    job = uuid4()
    new = StagedArtifact(resources.store, artifact, f"jobs/{job}/a1")

    def add() -> None:
        with resources.database.write() as session:
            new.add_row(session, job_id=job, kind=MODEL_KIND)

    new.retry_after_storing_base(add)


if __name__ == "__main__":
    main()
