"""From public names to local files and back."""

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from app.artifacts import repository as artifacts
from app.datasets.errors import DatasetNotFound
from app.datasets.files import path
from app.datasets.tables import Dataset
from app.db.base import new_id
from app.db.clock import now
from app.db.engines import Database
from app.jobs.leases import Claimed, Lease
from app.jobs.states import JobState
from app.keys.tables import LOCAL_KEY_ID
from app.registry import service as registry
from app.resources import Resources
from lora_core import manifest
from tests.job_rows import SPEC, add_job, job
from tests.worker.test_run_job import GOOD, run, stored
from worker import inputs
from worker.errors import InputChanged
from worker.inputs import Inputs


def upload(resources: Resources, name: str, text: str = "text,label\ngood,1\nbad,0\n") -> Dataset:
    """A data set and its file."""
    dataset = Dataset(
        id=new_id(),
        created_by=LOCAL_KEY_ID,
        name=name,
        version=1,
        filename=f"{name}.csv",
        suffix=".csv",
        sha256="",
        bytes=len(text),
        text_column="text",
        label_column="label",
        split_column=None,
        rows=2,
        profile={},
    )
    file = path(resources.settings, dataset)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    dataset.sha256 = manifest.sha256(file)
    with resources.database.write() as session:
        session.add(dataset)
        session.commit()
    return dataset


def register(resources: Resources, directory: Path) -> None:
    """An artifact as version 1 of `sentiment`."""
    (directory / "merged").mkdir(parents=True)
    (directory / "merged" / "config.json").write_text("{}")
    manifest.write(directory, {"spec": SPEC, "metrics": {}})
    ref = resources.store.put(directory, "jobs/earlier/a1")
    with resources.database.write() as session:
        artifact = artifacts.add(session, job_id=None, kind="model", ref=ref)
        facts: dict[str, Any] = {"job_id": None, "base": "minilm-l6", "method": "lora"}
        registry.register(session, name="sentiment", artifact_id=artifact.id, metrics={}, **facts)
        session.commit()


def locate(
    resources: Resources,
    *,
    source: str | dict[str, str] = "rotten-tomatoes",
    ids: dict[str, str] | None = None,
    base: str = "minilm-l6",
) -> Inputs:
    spec = {**SPEC, "base": base, "data": {**SPEC["data"], "source": source}}
    lease = Lease(UUID(int=1), 1, "alice", 60)
    claimed = Claimed(lease, spec, ids or {}, register_as=None, failures=0, furthest=None)
    return inputs.locate(
        resources.database, claimed, settings=resources.settings, store=resources.store
    )


def test_samples_and_packaged_bases_stay_as_they_are(resources: Resources) -> None:
    found = locate(resources)
    assert found.spec == SPEC
    assert found.names == {}


def test_an_upload_becomes_its_file(resources: Resources) -> None:
    dataset = upload(resources, "reviews")
    found = locate(resources, source="reviews:1", ids={"all": str(dataset.id)})
    assert found.spec["data"]["source"] == str(path(resources.settings, dataset))
    assert {**found.spec, "data": None} == {**SPEC, "data": None}


def test_uploads_part_by_part_become_files_beside_a_sample(resources: Resources) -> None:
    dataset = upload(resources, "reviews")
    found = locate(
        resources,
        source={"train": "reviews:1", "test": "rotten-tomatoes"},
        ids={"train": str(dataset.id)},
    )
    assert found.spec["data"]["source"] == {
        "train": str(path(resources.settings, dataset)),
        "test": "rotten-tomatoes",
    }


def test_an_own_version_becomes_its_merged_checkpoint(resources: Resources, tmp_path: Path) -> None:
    register(resources, tmp_path / "made")
    found = locate(resources, base="sentiment:1")
    assert found.spec["base"] == str(resources.store.path("jobs/earlier/a1") / "merged")
    assert found.public(found.spec["base"]) == "sentiment:1"


@pytest.mark.parametrize("base", ["/bases/a:b", "./a:b", "google-bert/bert-base-uncased"])
def test_other_bases_are_left_to_the_training(resources: Resources, base: str) -> None:
    assert locate(resources, base=base).spec["base"] == base


def test_no_transaction_is_open_while_files_are_read(
    resources: Resources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(resources, tmp_path / "made")
    dataset = upload(resources, "reviews")
    read: list[str] = []

    def digest(file: Path) -> str:
        read.append(file.name)
        assert resources.database.read_engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        return sha256(file)

    sha256 = manifest.sha256
    monkeypatch.setattr(manifest, "sha256", digest)
    locate(resources, source="reviews:1", ids={"all": str(dataset.id)}, base="sentiment:1")
    assert read == [f"{dataset.id}.csv", "config.json", manifest.MANIFEST]


def test_a_file_that_changed_after_the_upload_is_refused(resources: Resources) -> None:
    dataset = upload(resources, "reviews")
    file = path(resources.settings, dataset)
    file.write_text(file.read_text().replace("good", "nice"))
    with pytest.raises(InputChanged, match="reviews:1"):
        locate(resources, source="reviews:1", ids={"all": str(dataset.id)})
    file.unlink()
    with pytest.raises(InputChanged, match="reviews:1"):
        locate(resources, source="reviews:1", ids={"all": str(dataset.id)})


def test_an_upload_that_was_deleted_is_refused(resources: Resources) -> None:
    with pytest.raises(DatasetNotFound):
        locate(resources, source="reviews:1", ids={"all": str(new_id())})


def test_paths_become_names_again_wherever_they_stand() -> None:
    found = Inputs({}, {"/data/1.csv": "reviews:1", "1.csv": "reviews:1"})
    assert found.public({"file": "/data/1.csv", "more": ["In 1.csv, row 3", 4, None]}) == {
        "file": "reviews:1",
        "more": ["In reviews:1, row 3", 4, None],
    }


def test_neither_an_error_nor_an_artifact_shows_where_the_file_lies(
    resources: Resources, database: Database
) -> None:
    dataset = upload(resources, "reviews")
    spec = {**SPEC, "data": {**SPEC["data"], "source": "reviews:1"}}
    ids = {"all": str(dataset.id)}
    failed = add_job(database, spec=spec, dataset_ids=ids)
    run(resources, "failed:one_class", "exit:65")
    row = job(database, failed)
    assert row.error_message == "reviews:1 has one label."
    assert row.error_detail == {"file": "reviews:1"}
    add_job(database, spec=spec, dataset_ids=ids, run_after=now())
    run(resources, *GOOD)
    (directory,) = stored(resources)
    facts = manifest.verify(directory)
    assert facts["spec"]["data"]["source"] == "reviews:1"
    assert str(resources.settings.data_dir) not in json.dumps(facts)
    assert job(database, failed).state == JobState.FAILED
