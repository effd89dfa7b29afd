"""Corrected versions: the file, where it comes from, what is kept, and what is rejected."""

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.label_review import service
from app.settings import Settings
from tests.app.label_review.conftest import WRONG, WRONG_LABELS, Upload
from tests.app.label_review.test_suspects import listed
from tests.app.test_audit import AuditLines, audit_lines

__all__ = ["audit_lines"]

SMALL = "text,label\n" + "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(20))
SETS = "text,label\n" + "".join(f"text {i},{('a;b', 'b', '')[i % 3]}\n" for i in range(20))
NUMBERS = "text,label\n" + "".join(f"text {i},{i}\n" for i in range(20))
TARGETS = "text,topic,stars\n" + "".join(f"text {i},{'ab'[i % 2]},{i}\n" for i in range(20))


def correct(client: TestClient, ref: str = "a:1", headers: Any = None, **body: Any) -> Any:
    return client.post(f"/v1/datasets/{ref}/corrections", json=body, headers=headers)


def created(answer: Any) -> dict[str, Any]:
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def content(client: TestClient, ref: str) -> str:
    return client.get(f"/v1/datasets/{ref}/content").text


def test_a_corrected_version(client: TestClient, upload: Upload) -> None:
    first = upload(SMALL, "My texts.csv", name="a").json()
    answer = correct(client, changes=[{"row": 3, "label": "b"}, {"row": 1, "label": "b"}], keep=[2])
    diff = created(answer)
    assert answer.headers["Location"] == f"/v1/datasets/{diff['id']}"
    assert (diff["ref"], diff["corrected_from"], diff["kept"]) == ("a:2", "a:1", 1)
    assert diff["changes"] == [
        {"row": 1, "before": "a", "after": "b"},
        {"row": 3, "before": "a", "after": "b"},
    ]
    assert (diff["corrected_by"], diff["filename"]) == ("local", "My texts.csv")
    assert client.get("/v1/datasets/a:2/diff").json() == diff
    text = SMALL.replace("text 0,a", "text 0,b").replace("text 2,a", "text 2,b")
    assert content(client, "a") == text
    assert content(client, "a:1") == SMALL
    second = client.get("/v1/datasets/a").json()
    assert second["sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert (second["labels"], second["bytes"]) == ({"a": 8, "b": 12}, len(text))
    unchanged = {"text_column", "label_column", "rows", "title", "task", "split_column", "filename"}
    assert {name: second[name] for name in unchanged} == {name: first[name] for name in unchanged}


def test_corrections_of_suspect_labels(client: TestClient, upload: Upload) -> None:
    upload(WRONG_LABELS)
    found = listed(client)["data"][:3]
    changes = [
        {"row": each["row"], "label": each["proposed"], "given": each["given"]} for each in found
    ]
    created(correct(client, changes=changes))
    assert not {each["row"] for each in listed(client, "a:2")["data"]} & set(WRONG)


def test_kept_labels_are_not_listed_again(client: TestClient, upload: Upload) -> None:
    upload(WRONG_LABELS)
    before = listed(client)
    answer = correct(client, keep=[WRONG[0]])
    assert answer.status_code == 200
    kept = answer.json()
    assert (kept["ref"], kept["corrected_from"], kept["changes"]) == ("a:1", None, [])
    assert kept["kept"] == 1
    after = listed(client)
    assert WRONG[0] not in {each["row"] for each in after["data"]}
    assert (after["kept"], after["found"]) == (1, before["found"])
    # in a later version with other row numbers neither
    header, *rows = WRONG_LABELS.splitlines(keepends=True)
    upload("".join([header, *reversed(rows)]))
    later = listed(client, "a:2")
    assert later["kept"] == 1
    assert 121 - WRONG[0] not in {each["row"] for each in later["data"]}
    # unless the label changes
    other = {"pos": "neg", "neg": "pos"}
    label = rows[WRONG[0] - 1].strip().rsplit(",")[-1]
    created(correct(client, "a:2", changes=[{"row": 121 - WRONG[0], "label": other[label]}]))
    assert listed(client, "a:3")["kept"] == 0


def test_repeating_keeps_is_harmless(client: TestClient, upload: Upload) -> None:
    upload(SMALL)
    for _ in range(2):
        assert correct(client, keep=[1, 2]).status_code == 200


@pytest.mark.parametrize(
    ("text", "fields", "changes", "after", "diff"),
    [
        (SETS, {"task": "multi_label", "label_separator": ";"},
         [{"row": 2, "labels": ["b", "a", "b"]}, {"row": 4, "labels": [], "given": ["b", "a"]}],
         SETS.replace("text 1,b", "text 1,a;b").replace("text 3,a;b", "text 3,"),
         [{"row": 2, "before": ["b"], "after": ["a", "b"]},
          {"row": 4, "before": ["a", "b"], "after": []}]),
        (NUMBERS, {"task": "regression"}, [{"row": 2, "value": 4.5, "given": 1}],
         NUMBERS.replace("text 1,1\n", "text 1,4.5\n"), [{"row": 2, "before": 1.0, "after": 4.5}]),
        (TARGETS, {"targets": "topic,stars=regression"},
         [{"row": 2, "target": "topic", "label": "a"}, {"row": 2, "target": "stars", "value": 7}],
         TARGETS.replace("text 1,b,1\n", "text 1,a,7\n"),
         [{"row": 2, "target": "stars", "before": 1.0, "after": 7.0},
          {"row": 2, "target": "topic", "before": "b", "after": "a"}]),
    ],
)  # fmt: skip
def test_kinds_of_labels(
    client: TestClient, upload: Upload, text: str, fields: Any, changes: Any, after: str, diff: Any
) -> None:
    upload(text, **fields)
    assert created(correct(client, changes=changes))["changes"] == diff
    assert content(client, "a:2") == after
    assert client.get("/v1/datasets/a:2").json()["task"] == client.get(
        "/v1/datasets/a:1"
    ).json()["task"]  # fmt: skip


def test_kept_targets(client: TestClient, upload: Upload) -> None:
    upload(TARGETS, targets="topic,stars=regression")
    assert correct(client, keep=[1, {"row": 2, "target": "topic"}]).json()["kept"] == 3


def test_a_workbook_becomes_a_csv_file(client: TestClient, upload: Upload, tmp_path: Any) -> None:
    import xlsxwriter

    path = tmp_path / "a.xlsx"
    with xlsxwriter.Workbook(path) as workbook:
        sheet = workbook.add_worksheet("Data")
        for i in range(21):
            sheet.write_row(i, 0, ["text", "label"] if i == 0 else [f"text {i}", "ab"[i % 2]])
    upload(path, "Texts.xlsx", name="a", sheet="Data")
    diff = created(correct(client, changes=[{"row": 1, "label": "a"}]))
    assert diff["filename"] == "Texts.csv"
    assert content(client, "a:2").startswith("\ufefftext,label\r\ntext 1,a\r\n")
    assert created(correct(client, "a:2", changes=[{"row": 1, "label": "b"}]))["ref"] == "a:3"


def test_a_new_label(client: TestClient, upload: Upload) -> None:
    upload(SMALL)
    changes = [{"row": 1, "label": " c "}, {"row": 2, "label": "c"}]
    answer = correct(client, changes=changes)
    assert (answer.status_code, answer.json()["code"]) == (422, "label_not_in_dataset")
    assert answer.json()["errors"][0]["at"] == "changes.0.label"
    assert "labels are a, b" in answer.json()["detail"]
    created(correct(client, changes=changes, new_label=True))
    assert client.get("/v1/datasets/a").json()["labels"] == {"a": 9, "b": 9, "c": 2}


REJECTED: tuple[tuple[dict[str, Any], str], ...] = (
    ({"changes": [{"row": 21, "label": "a"}]}, "row_not_found"),
    ({"keep": [21]}, "row_not_found"),
    ({"changes": [{"row": 1, "label": "a"}]}, "label_unchanged"),
    ({"changes": [{"row": 1, "value": 3}]}, "wrong_kind_of_label"),
    ({"changes": [{"row": 1, "labels": ["b"]}]}, "wrong_kind_of_label"),
    ({"changes": [{"row": 1, "label": "b", "target": "x"}]}, "dataset_target_not_found"),
    ({"keep": [{"row": 1, "target": "x"}]}, "dataset_target_not_found"),
    ({}, "validation_failed"),
    ({"changes": [], "keep": []}, "validation_failed"),
    ({"changes": [{"row": 1}]}, "validation_failed"),
    ({"changes": [{"row": 1, "label": " "}]}, "validation_failed"),
    ({"changes": [{"row": 1, "label": "b", "value": 1}]}, "validation_failed"),
    ({"changes": [{"row": 0, "label": "b"}]}, "validation_failed"),
    ({"changes": [{"row": 1, "label": "b"}] * 2}, "validation_failed"),
    ({"keep": [1, 1]}, "validation_failed"),
    ({"keep": [1], "changes": [{"row": 1, "label": "b"}]}, "validation_failed"),
    ({"keep": list(range(1, 1002))}, "validation_failed"),
)


def test_rejected_corrections(
    client: TestClient, upload: Upload, stored_files: Callable[[], list[str]]
) -> None:
    upload(SMALL)
    before = stored_files()
    for body, code in REJECTED:
        answer = correct(client, **body)
        assert (answer.status_code, answer.json()["code"]) == (422, code), answer.text
        assert answer.json()["detail"].endswith(".")
        assert stored_files() == before
    assert client.get("/v1/datasets/a").json()["version"] == 1


def test_a_dataset_that_could_not_be_trained_on_is_rejected(
    client: TestClient, upload: Upload
) -> None:
    upload("text,label\nx,a\ny,b\n")
    answer = correct(client, changes=[{"row": 2, "label": "a"}])
    assert (answer.status_code, answer.json()["code"]) == (422, "one_class")


def test_datasets_without_labels(client: TestClient, upload: Upload) -> None:
    ref = upload(SMALL, purpose="predict").json()["ref"]
    for body in ({"changes": [{"row": 1, "label": "b"}]}, {"keep": [1]}):
        answer = correct(client, ref, **body)
        assert (answer.status_code, answer.json()["code"]) == (422, "dataset_without_labels")


def test_unknown_and_deleted_datasets(client: TestClient, upload: Upload) -> None:
    assert correct(client, keep=[1]).json()["code"] == "dataset_not_found"
    upload(SMALL)
    created(correct(client, changes=[{"row": 1, "label": "b"}]))
    client.delete("/v1/datasets/a:1")
    assert correct(client, keep=[1]).status_code == 404
    assert client.get("/v1/datasets/a:2/diff").json()["corrected_from"] == "a:1"


def test_an_uploaded_version_has_no_diff(client: TestClient, upload: Upload) -> None:
    upload(SMALL)
    answer = client.get("/v1/datasets/a/diff")
    assert (answer.status_code, answer.json()["code"]) == (404, "dataset_not_corrected")


def test_a_stale_version_is_rejected(client: TestClient, upload: Upload) -> None:
    upload(SMALL)
    created(correct(client, changes=[{"row": 1, "label": "b"}]))
    answer = correct(client, "a:1", changes=[{"row": 3, "label": "b"}])
    assert (answer.status_code, answer.json()["code"]) == (409, "dataset_version_stale")
    assert "a:2 is" in answer.json()["detail"]
    assert correct(client, "a:1", keep=[3]).status_code == 409


def run_before_storing(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Do something between the reading of a dataset and the storing of its new version."""
    original = service._new_version

    def make_and_act(*args: Any) -> Any:
        made = original(*args)
        act()
        return made

    monkeypatch.setattr(service, "_new_version", make_and_act)


def test_a_version_that_becomes_stale_meanwhile(
    client: TestClient,
    upload: Upload,
    stored_files: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    upload(SMALL)
    run_before_storing(monkeypatch, lambda: upload(SMALL + "more,a\n"))
    answer = correct(client, changes=[{"row": 3, "label": "b"}])
    assert (answer.status_code, answer.json()["code"]) == (409, "dataset_version_stale")
    assert client.get("/v1/datasets/a").json()["rows"] == 21
    assert len(stored_files()) == 2


def forget(client: TestClient, text: str) -> None:
    answer = client.post("/v1/forget", json={"text": text, "search_datasets": False})
    assert answer.status_code == 200, answer.text


@pytest.mark.usefixtures("in_child")
def test_forgotten_texts_are_left_out(client: TestClient, upload: Upload) -> None:
    upload(SMALL)
    forget(client, " text 4 ")
    forget(client, "text 7")
    diff = created(
        correct(client, changes=[{"row": 3, "label": "b"}, {"row": 5, "label": "b", "given": "x"}])
    )
    assert diff["forgotten_rows"] == [5, 8]
    assert [each["row"] for each in diff["changes"]] == [3]
    assert client.get("/v1/datasets/a:2/diff").json() == diff
    expected = SMALL.replace("text 2,a", "text 2,b").replace("text 4,a", "").replace("text 7,b", "")
    assert content(client, "a") == expected
    assert client.get("/v1/datasets/a").json()["rows"] == 18
    third = created(correct(client, "a:2", changes=[{"row": 3, "label": "a"}]))
    assert third["forgotten_rows"] == []


def test_pairs_with_a_forgotten_text_are_left_out(client: TestClient, upload: Upload) -> None:
    rows = "".join(f"one {i},two {i},{'ab'[i % 2]}\n" for i in range(20))
    upload("text,text_pair,label\n" + rows, text_pair_column="text_pair")
    forget(client, "two 5")
    diff = created(correct(client, changes=[{"row": 1, "label": "b"}]))
    assert diff["forgotten_rows"] == [6]
    assert "two 5" not in content(client, "a")


def test_a_text_that_is_forgotten_meanwhile(
    client: TestClient,
    upload: Upload,
    stored_files: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    upload(SMALL)
    run_before_storing(monkeypatch, lambda: forget(client, "text 4"))
    answer = correct(client, changes=[{"row": 3, "label": "b"}])
    assert (answer.status_code, answer.json()["code"]) == (409, "text_forgotten_meanwhile")
    assert client.get("/v1/datasets/a").json()["version"] == 1
    assert len(stored_files()) == 1
    monkeypatch.undo()
    assert created(correct(client, changes=[{"row": 3, "label": "b"}]))["forgotten_rows"] == [5]


def test_a_name_alone_needs_the_labels_that_were_seen(client: TestClient, upload: Upload) -> None:
    upload(SMALL)
    change = {"row": 1, "label": "b"}
    for body in ({"changes": [change]}, {"keep": [1]},
                 {"changes": [{**change, "given": "a"}], "keep": [2]}):  # fmt: skip
        answer = correct(client, "a", **body)
        assert (answer.status_code, answer.json()["code"]) == (422, "dataset_version_required")
    created(correct(client, "a", changes=[{**change, "given": "a"}]))


def test_a_row_with_another_label_than_was_seen(client: TestClient, upload: Upload) -> None:
    upload(SMALL)
    answer = correct(client, changes=[{"row": 1, "label": "b", "given": "b"}])
    assert (answer.status_code, answer.json()["code"]) == (409, "label_differs")
    assert "'a', not 'b'" in answer.json()["detail"]


def test_an_idempotency_key(client: TestClient, upload: Upload) -> None:
    upload(SMALL)
    headers = {"Idempotency-Key": "once"}
    changes = [{"row": 1, "label": "b"}]
    first = correct(client, headers=headers, changes=changes)
    again = correct(client, headers=headers, changes=changes)
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["Location"] == first.headers["Location"]
    assert client.get("/v1/datasets/a").json()["version"] == 2
    other = correct(client, "a:2", headers=headers, changes=changes)
    assert other.json()["code"] == "idempotency_key_reused"


def test_an_idempotency_key_for_kept_labels(client: TestClient, upload: Upload) -> None:
    upload(SMALL)
    headers = {"Idempotency-Key": "once"}
    answers = [correct(client, headers=headers, keep=[1]) for _ in range(2)]
    assert [each.status_code for each in answers] == [200, 200]
    assert answers[0].json() == answers[1].json()


def test_the_quota_of_the_key(
    client: TestClient, upload: Upload, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(SMALL)
    state = client.app.state  # type: ignore[attr-defined]
    limited = settings.model_copy(update={"max_upload_bytes_per_key": len(SMALL) + 10})
    _use(state, limited, monkeypatch)
    answer = correct(client, changes=[{"row": 1, "label": "b"}])
    assert (answer.status_code, answer.json()["code"]) == (413, "key_upload_quota_exceeded")


def _use(state: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    from app.datasets import service as dataset_service

    original = dataset_service.check_quota
    monkeypatch.setattr(
        dataset_service,
        "check_quota",
        lambda session, dataset, _: original(session, dataset, settings),
    )


def test_the_limit_of_kept_labels(
    client: TestClient, upload: Upload, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MAX_KEPT_LABELS", 2)
    upload(SMALL)
    for _ in range(2):  # labels that are kept already do not count again
        assert correct(client, keep=[1, 2]).status_code == 200
    answer = correct(client, keep=[3])
    assert (answer.status_code, answer.json()["code"]) == (422, "too_many_kept_labels")


def test_other_columns_and_their_order_stay(client: TestClient, upload: Upload) -> None:
    lines = [
        json.dumps({"id": i, "label": "ab"[i % 2], "text": f"text {i}", "split": split})
        for i, split in enumerate(["train"] * 16 + ["test"] * 4)
    ]
    upload("\n".join(lines), "a.jsonl")
    created(correct(client, changes=[{"row": 20, "label": "a"}]))
    *unchanged, last = content(client, "a:2").splitlines()
    assert unchanged == lines[:-1]
    assert last == lines[-1].replace('"b"', '"a"')
    assert client.get("/v1/datasets/a").json()["split_column"] == "split"


def test_audit_lines(client: TestClient, upload: Upload, audit_lines: AuditLines) -> None:
    upload(SMALL)
    audit_lines()
    correct(client, keep=[1])
    created(correct(client, changes=[{"row": 2, "label": "a"}]))
    kept, corrected = audit_lines()
    assert (kept["action"], kept["dataset"], kept["kept"]) == ("labels_kept", "a:1", 1)
    assert (corrected["action"], corrected["dataset"]) == ("labels_corrected", "a:2")
    assert (corrected["source"], corrected["changes"]) == ("a:1", 1)
