"""The diagnosis of a dataset is stored with it, and can be requested later."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from starlette.testclient import TestClient

from app.auth.service import CreatedKey
from app.database.engines import Database
from app.datasets import repository
from app.datasets.files import FileInspector, SelectedColumns
from app.datasets.tables import Dataset
from app.sandbox import runner
from app.sandbox.runner import SandboxResult
from app.settings import Settings
from lora_core import child_protocol
from lora_core.errors.data import DataTooLarge
from tests.app.datasets.conftest import REVIEWS, Upload

LEAKING = "text,label,split\n" + "".join(
    f"sentence{i} word{i} end{i},{'pos' if i % 2 else 'neg'},{'train' if i % 4 < 2 else 'test'}\n"
    for i in range(48)
)
LEAKING += "sentence0 word0 end0,neg,test\n"


# Valid, and enough rows for a learning curve.
MANY = "text,label\n" + "".join(
    f"sentence{i} word{i} {('dull', 'fine')[i % 2] if i % 5 else 'odd'},{('neg', 'pos')[i % 2]}\n"
    for i in range(300)
)

READING = (
    "encoding",
    "separator",
    "sheet",
    "blank_rows",
)  # keys that describe how the file was read


def remove_diagnosis(database: Database, ref: str) -> None:
    """Simulate an upload by an older version, without diagnosis and reading parameters."""
    with database.write() as session:
        dataset = repository.resolve_dataset(session, ref)
        profile = dict(dataset.profile)
        for name in ("diagnosis", *READING):
            del profile[name]
        dataset.profile = profile


def codes(dataset: dict[str, Any]) -> list[str]:
    return [finding["code"] for finding in dataset["diagnosis"]["findings"]]


def test_an_upload_is_diagnosed(client: TestClient, upload: Upload) -> None:
    dataset = upload(LEAKING, "films.csv").json()
    assert codes(dataset) == ["leaked", "few_rows", "duplicates"]
    diagnosis = dataset["diagnosis"]
    assert diagnosis["findings"][0] == {
        "code": "leaked",
        "level": "error",
        "count": 1,
        "message": "Texts that occur in two splits: 1 row of test in train.",
        "advice": diagnosis["findings"][0]["advice"],
        "examples": [
            {
                "rows": [
                    {"row": 1, "text": "sentence0 word0 end0", "label": "neg", "split": "train"},
                    {"row": 49, "text": "sentence0 word0 end0", "label": "neg", "split": "test"},
                ],
                "similarity": None,
            }
        ],
    }
    assert diagnosis["balance"]["labels"]["neg"] == {
        "count": 25, "share": 25 / 49, "splits": {"train": 12, "test": 13},
    }  # fmt: skip
    assert diagnosis["tokens"]["truncated"]["512"] == 0
    assert "diagnosis" not in dataset["profile"]
    assert client.get("/v1/datasets/films").json() == dataset
    assert dataset["findings"] == {"error": 1, "warning": 2}
    assert diagnosis["more_labels"]["code"] == "too_few"


def test_unlabeled_texts_are_diagnosed(upload: Upload) -> None:
    dataset = upload("text\na b c\na b c\n", "inbox.csv", purpose="predict").json()
    assert codes(dataset) == ["duplicates"]
    assert dataset["diagnosis"]["balance"] is None
    assert dataset["diagnosis"]["more_labels"]["code"] == "no_labels"


def test_the_learning_curve_is_stored_with_the_diagnosis(
    client: TestClient, upload: Upload
) -> None:
    dataset = upload(MANY, "many.csv").json()
    found = dataset["diagnosis"]["more_labels"]
    assert (found["code"], found["basis"], found["texts"]) == ("measured", "linear", 300)
    assert [each["texts"] for each in found["gains"]] == [600, 1200]
    assert dataset["findings"] == {}
    assert client.get("/v1/datasets/many").json() == dataset


@pytest.mark.slow  # the small forms are below
@pytest.mark.usefixtures("in_child")
def test_a_timeout_during_the_learning_curve_keeps_the_rest(
    upload: Upload, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_child = runner.run_lora_core_sandboxed

    def stopped_early(*arguments: Any, **limits: Any) -> SandboxResult:
        """The child is stopped before its last line."""
        ended = run_child(*arguments, **limits)
        lines = ended.stdout.splitlines(keepends=True)
        assert len(lines) == 3
        return SandboxResult(None, b"".join(lines[:-1]), ended.stderr)

    monkeypatch.setattr(runner, "run_lora_core_sandboxed", stopped_early)
    dataset = upload(MANY, "many.csv").json()
    assert dataset["diagnosis"]["more_labels"] is None
    assert dataset["findings"] == {}


def test_an_upload_of_an_older_version_is_diagnosed_on_request(
    client: TestClient, upload: Upload, database: Database
) -> None:
    fresh = upload(LEAKING, "films.csv").json()
    remove_diagnosis(database, "films")
    old = client.get("/v1/datasets/films").json()
    profile = {name: each for name, each in fresh["profile"].items() if name not in READING}
    checked = {**fresh, "profile": profile}
    assert old == {**checked, "diagnosis": None, "findings": None}
    response = client.post("/v1/datasets/films/check")
    assert (response.status_code, response.json()) == (200, checked)
    assert client.get("/v1/datasets/films:1").json() == checked


def test_example_texts_and_labels_are_deleted_with_the_dataset(
    client: TestClient, upload: Upload, database: Database
) -> None:
    dataset = upload(LEAKING + "word49,Pos,train\n", "films.csv").json()
    assert [set(each) for each in dataset["profile"]["similar_labels"]] == [{"pos", "Pos"}]
    assert client.delete("/v1/datasets/films").status_code == 204
    with database.read() as session:
        row = session.get(Dataset, UUID(dataset["id"]))
        assert row is not None
        assert row.profile["rows"] == 50
        for removed in ("sentence0", "pos", "Pos"):
            assert removed not in f"{row.profile} {row.overview}"


def test_a_deleted_dataset_cannot_be_checked(client: TestClient, upload: Upload) -> None:
    dataset = upload().json()
    client.delete(f"/v1/datasets/{dataset['id']}")
    for call in (client.post("/v1/datasets/a/check"), client.get("/v1/datasets/a/rows")):
        assert (call.status_code, call.json()["code"]) == (404, "dataset_not_found")


def test_a_damaged_file_cannot_be_checked(
    client: TestClient, upload: Upload, settings: Settings
) -> None:
    upload()
    [file] = settings.artifacts_dir.rglob("*.csv")
    file.write_bytes(b"other")
    for call in (client.post("/v1/datasets/a/check"), client.get("/v1/datasets/a/rows")):
        assert (call.status_code, call.json()["code"]) == (409, "dataset_damaged")


def test_check_requires_the_write_scope(
    anonymous_client: TestClient, new_key: Callable[..., CreatedKey]
) -> None:
    reader = {"Authorization": f"Bearer {new_key('datasets:read').text}"}
    assert anonymous_client.post("/v1/datasets/a/check", headers=reader).status_code == 403
    assert anonymous_client.get("/v1/datasets/a/rows", headers=reader).status_code == 404
    assert anonymous_client.get("/v1/datasets/a/rows").status_code == 401


def test_the_api_describes_a_diagnosis(described: dict[str, Any]) -> None:
    schemas = described["components"]["schemas"]
    assert schemas["Finding"]["properties"]["level"]["$ref"].endswith("/Severity")
    assert schemas["Severity"]["enum"] == ["error", "warning", "info"]
    shown = schemas["DatasetView"]["properties"]["diagnosis"]
    assert {"$ref": "#/components/schemas/DataReport"} in shown["anyOf"]


PROFILE = b'{"rows": 2}\n'


@pytest.fixture
def inspection(settings: Settings) -> FileInspector:
    """An inspection whose child process is replaced."""
    return FileInspector(
        settings.data_dir / "x.csv", "a.csv", SelectedColumns("text", "label", None), settings
    )


@pytest.mark.parametrize(
    "ended",
    [
        SandboxResult(None, PROFILE, ""),
        SandboxResult(None, PROFILE + b'{"rows": 2, "fin', ""),
        SandboxResult(1, PROFILE, "MemoryError"),
        SandboxResult(-11, PROFILE, ""),
    ],
)
def test_a_profile_without_diagnosis_if_only_the_diagnosis_exceeded_limits(
    inspection: FileInspector, monkeypatch: pytest.MonkeyPatch, ended: SandboxResult
) -> None:
    monkeypatch.setattr(runner, "run_lora_core_sandboxed", lambda *_, **__: ended)
    assert inspection.profile() == {"rows": 2, "diagnosis": None}


def test_a_requested_diagnosis_that_exceeds_limits_is_an_error(
    inspection: FileInspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        runner, "run_lora_core_sandboxed", lambda *_, **__: SandboxResult(None, PROFILE, "")
    )
    with pytest.raises(DataTooLarge, match=r"a\.csv.*time needed"):
        inspection.diagnose()


def test_an_unreadable_file_is_an_error(
    inspection: FileInspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = (
        b'{"kind": "failed", "code": "empty_data", "message": "", "detail": {"file": "x.csv"}}\n'
    )
    monkeypatch.setattr(
        runner,
        "run_lora_core_sandboxed",
        lambda *_, **__: SandboxResult(child_protocol.EXIT_FAILED, lines, ""),
    )
    for ask in (inspection.profile, inspection.diagnose):
        with pytest.raises(Exception, match=r"a\.csv has no rows"):
            ask()


def test_hostile_texts_are_returned_unchanged(upload: Upload) -> None:
    hostile = '<img src=x onerror=alert(1)> \\u202e "'
    content = REVIEWS + "".join(
        f'"{hostile.replace(chr(34), chr(34) * 2)}",pos\n' for _ in range(2)
    )
    dataset = upload(content, "a.csv").json()
    [finding] = [each for each in dataset["diagnosis"]["findings"] if each["code"] == "duplicates"]
    assert finding["examples"][0]["rows"][0]["text"] == hostile
