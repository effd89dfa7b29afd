"""Public names are resolved to local files and back."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from app.auth.tables import LOCAL_KEY_ID
from app.database.base import new_id, now
from app.database.engines import Database
from app.datasets import files
from app.datasets.errors import DatasetNotFound
from app.datasets.tables import Dataset
from app.queue.enums import JobKind, JobState
from app.queue.fencing import ClaimedJob, Lease
from app.registry import service as registry
from app.resources import Resources, open_store
from app.settings import Settings
from app.storage import repository as artifacts
from app.storage.errors import StorageUnavailable
from app.storage.store import ArtifactRef
from lora_core import manifest
from lora_core.errors.artifact import UnsupportedTokenizer
from lora_core.specs.data import parse_sheet_suffix
from lora_core.specs.method import LoraSpec
from tests.hostile_archives import ATTACKS
from tests.job_rows import MANIFEST, SPEC, add_job, get_job
from tests.lora_artifact import make_lora_artifact
from tests.s3_server import S3Server
from tests.servers import HOST, free_port
from tests.stored_artifact import store_artifact
from tests.tiny_artifact import make_artifact
from tests.worker.test_job_runner import GOOD, run
from worker import inputs
from worker.failures import InputChanged
from worker.inputs import LocalInputs

TEXT = "text,label\ngood,1\nbad,0\n"


@pytest.fixture(params=["local", "s3"])
def settings(
    request: pytest.FixtureRequest, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """A local store and a remote one."""
    if request.param == "local":
        return settings
    s3: S3Server = request.getfixturevalue("s3")
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return settings.model_copy(update={"store_url": f"s3://{s3.new_bucket()}/prefix"})


def upload(
    resources: Resources, name: str, *, first_place: bool = False, sheet: str | None = None
) -> Dataset:
    """A dataset and its file, also at the path that the first version used."""
    dataset = Dataset(
        id=new_id(),
        created_by=LOCAL_KEY_ID,
        name=name,
        version=1,
        filename=f"{name}.csv",
        suffix=".xlsx" if sheet else ".csv",
        sha256="",
        bytes=len(TEXT),
        text_column="text",
        label_column="label",
        split_column=None,
        rows=2,
        profile={"sheet": sheet},
    )
    file = resources.settings.data_dir / name
    file.write_text(TEXT)
    dataset.sha256 = manifest.file_sha256(file)
    if first_place:
        place = files.legacy_path(resources.settings, dataset)
        place.parent.mkdir()
        file.rename(place)
    else:
        resources.store.move_file_into_store(file, files.store_key(dataset))
    with resources.database.write() as session:
        session.add(dataset)
    return dataset


def register(
    resources: Resources, directory: Path, job_id: UUID | None = UUID(int=2)
) -> ArtifactRef:
    """Register an artifact as version 1 of `sentiment`; without a job it is imported."""
    if not directory.exists():
        (directory / "merged").mkdir(parents=True)
        (directory / "merged" / "config.json").write_text("{}")
        manifest.create_and_save(directory, {"spec": SPEC, "metrics": {}})
    ref = resources.store.move_directory_into_store(directory, "jobs/earlier/a1")
    with resources.database.write() as session:
        artifact = artifacts.add_artifact(session, job_id=job_id, kind="model", ref=ref)
        registry.add_version(session, name="sentiment", artifact=artifact, manifest=MANIFEST)
    return ref


def locate(
    resources: Resources,
    *,
    source: str | dict[str, str] = "rotten-tomatoes",
    ids: dict[str, str] | None = None,
    base: str = "minilm-l6",
) -> LocalInputs:
    spec = {**SPEC, "base": base, "data": {**SPEC["data"], "source": source}}
    lease = Lease(UUID(int=1), 1, "alice", 60)
    claimed = ClaimedJob(
        lease=lease,
        kind=JobKind.TRAINING,
        spec=spec,
        dataset_ids=ids or {},
        register_as=None,
        promote_to=None,
        failure_count=0,
        furthest_step=0,
        failed_steps=frozenset(),
        waiting_code=None,
        checkpoint=None,
        time_limit_seconds=None,
        running_seconds=0,
        waited_seconds=None,
    )
    return inputs.resolve_inputs(
        resources.database,
        claimed,
        settings=resources.settings,
        store=resources.store,
        model_dir=resources.settings.work_dir / "model",
    )


def test_samples_and_packaged_bases_are_unchanged(resources: Resources) -> None:
    found = locate(resources)
    assert found.spec == SPEC
    assert found.public_names == {}


@pytest.mark.parametrize("first_place", [False, True])
def test_upload_is_resolved_to_its_file(resources: Resources, first_place: bool) -> None:
    dataset = upload(resources, "reviews", first_place=first_place)
    found = locate(resources, source="reviews:1", ids={"all": str(dataset.id)})
    file = Path(found.spec["data"]["source"])
    assert (file.name, file.read_text()) == (f"{dataset.id}.csv", TEXT)
    assert found.replace_local_paths(str(file)) == "reviews:1"
    assert {**found.spec, "data": None} == {**SPEC, "data": None}


def test_workbook_is_resolved_with_its_sheet(resources: Resources) -> None:
    dataset = upload(resources, "reviews", sheet="März / 2026")
    found = locate(resources, source="reviews:1", ids={"all": str(dataset.id)})
    source = found.spec["data"]["source"]
    file, sheet = parse_sheet_suffix(source)
    assert (Path(file).name, sheet) == (f"{dataset.id}.xlsx", "März / 2026")
    messages = [source, f"{file} is damaged", f"{dataset.id}.xlsx, row 3"]
    assert found.replace_local_paths(messages) == [
        "reviews:1",
        "reviews:1 is damaged",
        "reviews:1, row 3",
    ]
    assert found.mentions_input(messages[2])
    assert not found.mentions_input("a fault of 2026")


def test_uploads_per_split_are_resolved_next_to_a_sample(resources: Resources) -> None:
    dataset = upload(resources, "reviews")
    found = locate(
        resources,
        source={"train": "reviews:1", "test": "rotten-tomatoes"},
        ids={"train": str(dataset.id)},
    )
    assert found.spec["data"]["source"] == {
        "train": str(files.fetch_file(resources.settings, resources.store, dataset)),
        "test": "rotten-tomatoes",
    }


def test_model_version_is_resolved_to_its_artifact(resources: Resources, tmp_path: Path) -> None:
    ref = register(resources, tmp_path / "made")
    facts = manifest.verify(resources.store.local_directory(ref))
    found = locate(resources, base="sentiment:1")
    directory = found.spec["base"]
    assert directory == str(resources.settings.work_dir / "model")
    assert manifest.verify(Path(directory)) == facts
    assert found.replace_local_paths(directory) == "sentiment:1"
    name = Path(directory).name
    for message in (f"{directory} is gone.", f"No base model {name!r}.", f"{name} has changed."):
        assert found.mentions_input(message)
    for other in ("hub:acme/data1", f"hub:acme/{name}", f"hub:{name}", f"{name}-base", f"x.{name}"):
        assert not found.mentions_input(f"No data '{other}': it does not exist.")


def test_model_version_outlives_its_stored_copy(resources: Resources, tmp_path: Path) -> None:
    """Jobs read their model again after hours, in which a cache may have evicted it."""
    stored = resources.store.local_directory(register(resources, tmp_path / "made"))
    found = locate(resources, base="sentiment:1")
    shutil.rmtree(stored)
    manifest.verify(Path(found.spec["base"]))


def test_model_version_with_a_shared_base_is_put_together(
    resources: Resources, tmp_path: Path
) -> None:
    made = make_lora_artifact(tmp_path, LoraSpec(r=2))
    facts = manifest.read(made)
    row = store_artifact(resources, made, f"jobs/{UUID(int=2)}/a1", job_id=UUID(int=2))
    with resources.database.write() as session:
        registry.add_version(session, name="sentiment", artifact=row, manifest=facts)
    found = locate(resources, base="sentiment:1")
    directory = resources.settings.work_dir / "model"
    assert found.spec["base"] == str(directory)
    assert manifest.verify(directory) == facts
    assert found.replace_local_paths(found.spec["base"]) == "sentiment:1"


@pytest.mark.parametrize("settings", ["local"], indirect=True)
def test_imported_version_is_validated(resources: Resources, tmp_path: Path) -> None:
    directory = make_artifact(tmp_path / "made")
    ATTACKS["a letter becomes 200,000"](directory)
    register(resources, directory, job_id=None)
    with pytest.raises(UnsupportedTokenizer):
        locate(resources, base="sentiment:1")


@pytest.mark.parametrize("base", ["/bases/a:b", "./a:b", "google-bert/bert-base-uncased"])
def test_other_bases_are_unchanged(resources: Resources, base: str) -> None:
    assert locate(resources, base=base).spec["base"] == base


def test_files_of_the_process_are_listed_and_links_followed(
    resources: Resources, tmp_path: Path
) -> None:
    dataset = upload(resources, "reviews")
    weights, pooling, base = tmp_path / "weights", tmp_path / "pooling", tmp_path / "base"
    weights.touch()
    pooling.touch()
    (base / "1_Pooling").mkdir(parents=True)
    (base / "model.safetensors").symlink_to(weights)
    (base / "1_Pooling" / "config.json").symlink_to(pooling)
    found = locate(resources, source="reviews:1", ids={"all": str(dataset.id)}, base=str(base))
    assert set(found.files) == {Path(found.spec["data"]["source"]), base, weights, pooling}
    assert locate(resources).files == []


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

    sha256 = manifest.file_sha256
    monkeypatch.setattr(manifest, "file_sha256", digest)
    locate(resources, source="reviews:1", ids={"all": str(dataset.id)}, base="sentiment:1")
    assert {f"{dataset.id}.csv", "config.json", manifest.MANIFEST_FILE} <= set(read)


@pytest.mark.parametrize("settings", ["local"], indirect=True)
@pytest.mark.parametrize("first_place", [False, True])
def test_changed_file_is_rejected(resources: Resources, first_place: bool) -> None:
    dataset = upload(resources, "reviews", first_place=first_place)
    file = files.fetch_file(resources.settings, resources.store, dataset)
    file.write_text(file.read_text().replace("good", "nice"))
    with pytest.raises(InputChanged, match=r"reviews:1 .* Delete this version, then upload"):
        locate(resources, source="reviews:1", ids={"all": str(dataset.id)})


def test_missing_file_is_rejected(resources: Resources) -> None:
    upload(resources, "letters")  # the store is in use
    dataset = upload(resources, "reviews")
    resources.store.delete(files.store_key(dataset))
    with pytest.raises(InputChanged, match="reviews:1"):
        locate(resources, source="reviews:1", ids={"all": str(dataset.id)})


@pytest.mark.parametrize("settings", ["s3"], indirect=True)
def test_unreachable_store_is_not_a_file_error(
    resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = upload(resources, "reviews")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{HOST}:{free_port()}")
    anew = open_store(resources.settings)
    with pytest.raises(StorageUnavailable):
        locate(replace(resources, store=anew), source="reviews:1", ids={"all": str(dataset.id)})


def test_deleted_upload_is_rejected(resources: Resources) -> None:
    with pytest.raises(DatasetNotFound):
        locate(resources, source="reviews:1", ids={"all": str(new_id())})


def test_paths_are_replaced_with_public_names() -> None:
    found = LocalInputs({}, {"/data/1.csv": "reviews:1", "1.csv": "reviews:1"})
    assert found.replace_local_paths(
        {"file": "/data/1.csv", "more": ["In 1.csv, row 3", 4, None]}
    ) == {
        "file": "reviews:1",
        "more": ["In reviews:1, row 3", 4, None],
    }


def test_errors_and_artifacts_do_not_contain_local_paths(
    resources: Resources, database: Database
) -> None:
    dataset = upload(resources, "reviews")
    spec = {**SPEC, "data": {**SPEC["data"], "source": "reviews:1"}}
    ids = {"all": str(dataset.id)}
    failed = add_job(database, spec=spec, dataset_ids=ids)
    run(resources, "failed:one_class", "exit:65")
    row = get_job(database, failed)
    assert row.error_message == "reviews:1 has one label."
    assert row.error_detail == {"file": "reviews:1"}
    good = add_job(database, spec=spec, dataset_ids=ids, run_after=now())
    run(resources, *GOOD)
    with database.read() as session:
        artifact = artifacts.find_newest_model_of_job(session, good)
    assert artifact is not None
    facts = manifest.verify(resources.store.local_directory(artifact.ref))
    assert facts["spec"]["data"]["source"] == "reviews:1"
    assert str(resources.settings.data_dir) not in json.dumps(facts)
    assert get_job(database, failed).state == JobState.FAILED
