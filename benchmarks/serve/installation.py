"""A data folder with models in production: `python -m benchmarks.serve.installation FOLDER`.

The services of the application put them there, as a worker would. Prints the texts of the keys as
one line of JSON.
"""

import argparse
import json
import os
import shutil
from pathlib import Path
from uuid import uuid4

from app.auth import service as keys
from app.auth.secrets import load_or_create_pepper
from app.database import migrations
from app.registry import service as registry
from app.registry.tables import PRODUCTION
from app.resources import Resources, open_resources
from app.settings import Settings
from app.storage.staged_artifact import StagedArtifact
from app.storage.tables import MODEL_KIND
from benchmarks.serve import checkpoint
from lora_core import manifest

NAME = "reviews"  # version 1 is the trained model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--adapters", type=int, default=0, help="number of random adapters")
    parser.add_argument("--second", action="store_true", help="a random version 2")
    parser.add_argument("--keys", type=int, default=0)
    arguments = parser.parse_args()
    settings = Settings(data_dir=arguments.folder)
    migrations.upgrade(settings)
    resources = open_resources(settings)
    workshop = arguments.folder / "workshop"
    try:
        trained = workshop / "trained"
        shutil.copytree(checkpoint.artifact(), trained, copy_function=_link)
        publish(resources, trained, NAME)
        names = [f"adapter-{number}" for number in range(arguments.adapters)]
        if names or arguments.second:
            from benchmarks.serve import random_adapters  # loads torch

            for number, name in enumerate(names):
                random_adapters.save(workshop / name, number)
                publish(resources, workshop / name, name)
            if arguments.second:
                random_adapters.save(workshop / "second", number=0)
                publish(resources, workshop / "second", NAME, promote=False)
        print(json.dumps(make_keys(resources, arguments.keys)))
    finally:
        resources.close()


def publish(resources: Resources, directory: Path, name: str, *, promote: bool = True) -> None:
    """Register it as the next version of a name and promote it."""
    facts, job = manifest.read(directory), uuid4()
    new = StagedArtifact(resources.store, directory, f"jobs/{job}/a1")

    def register() -> int:
        with resources.database.write() as session:
            artifact = new.add_row(session, job_id=job, kind=MODEL_KIND)
            return registry.add_version(
                session, name=name, artifact=artifact, manifest=facts
            ).number

    number = new.retry_after_storing_base(register)
    if promote:
        with resources.database.write() as session:
            registry.move_alias(session, name=name, alias=PRODUCTION, number=number)


def make_keys(resources: Resources, count: int) -> list[str]:
    """Create API keys; returns their texts."""
    pepper, made = load_or_create_pepper(resources.settings), []
    for i in range(count):
        with resources.database.write() as session:
            made.append(keys.create_key(session, pepper=pepper, name=f"visitor {i}").text)
    return made


def _link(source: str, target: str) -> None:
    """Hard-link on the same disk, else copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


if __name__ == "__main__":
    main()
