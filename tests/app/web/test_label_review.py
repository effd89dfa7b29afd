"""Pages of suspect labels and of corrected versions."""

import json
from html import unescape
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.app.label_review.conftest import WRONG, WRONG_LABELS
from tests.app.label_review.test_corrections import SETS, SMALL, TARGETS
from tests.app.web.test_datasets import HOSTILE, page, upload
from tests.lora_core.data.test_suspect_rows import texts


def cards(text: str) -> list[dict[str, Any]]:
    """Return the changes that the cards of a page would send."""
    parts = text.split('data-change="')[1:]
    return [json.loads(unescape(part.partition('"')[0])) for part in parts]


def test_suspect_labels_are_cards(client: TestClient) -> None:
    ref = upload(client, WRONG_LABELS, "a.csv")["id"]
    assert "data-load" not in page(client, f"/datasets/{ref}")
    text = page(client, f"/datasets/{ref}/suspects")
    assert {each["row"] for each in cards(text)[:3]} == set(WRONG)
    for each in cards(text):
        assert {each["label"], each["given"]} == {"pos", "neg"}
    assert f'data-corrections="/v1/datasets/{ref}/corrections"' in text
    assert "Save as version 2" in text
    assert text.count('tabindex="0"') == 1
    assert "data-load" in page(client, f"/datasets/{ref}")


def test_cards_send_what_the_api_takes(client: TestClient) -> None:
    ref = upload(client, WRONG_LABELS, "a.csv")["id"]
    changes = cards(page(client, f"/datasets/{ref}/suspects"))[:3]
    answer = client.post(f"/v1/datasets/{ref}/corrections", json={"changes": changes})
    assert answer.status_code == 201, answer.text
    new = answer.json()["id"]
    text = page(client, f"/datasets/{new}/diff")
    assert "3 labels of a:1 were changed by the API key local" in text
    assert "<td>pos</td><td>neg</td>" in text
    assert f'href="/datasets/{new}/diff"' in page(client, f"/datasets/{new}")
    old = page(client, f"/datasets/{ref}/suspects")
    assert "There is a newer version" in old
    assert "data-decide" not in old
    assert "Save as" not in old
    assert "No label of 120 rows is suspect" in page(client, f"/datasets/{new}/suspects")


def test_kinds_of_labels(client: TestClient) -> None:
    sets = "".join(
        json.dumps({"text": row.text, "label": ["x", row.label] if row.number % 7 else []}) + "\n"
        for row in texts()
    )
    ref = upload(client, sets, "sets.jsonl", task="multi_label")["id"]
    text = page(client, f"/datasets/{ref}/suspects")
    assert "Labeled <strong>no label</strong>, probably <strong>with " in text
    for each in cards(text):
        assert isinstance(each["labels"], list)
    rows = "".join(f"{row.text},{len(row.text) if row.number > 1 else 9999}\n" for row in texts())
    ref = upload(client, f"text,label\n{rows}", "numbers.csv", task="regression")["id"]
    text = page(client, f"/datasets/{ref}/suspects")
    assert cards(text)[0]["given"] == 9999
    assert "times the usual distance" in text


def test_each_target_has_a_link(client: TestClient) -> None:
    ref = upload(client, TARGETS, "a.csv", targets="topic,stars=regression")["id"]
    text = page(client, f"/datasets/{ref}")
    assert f'href="/datasets/{ref}/suspects?target=stars"' in text
    text = page(client, f"/datasets/{ref}/suspects?target=topic")
    assert "<code>topic</code>" in text
    assert all(each["target"] == "topic" for each in cards(text))


def test_other_labels_are_offered(client: TestClient) -> None:
    content = WRONG_LABELS + "".join(f"the day number {i},odd\n" for i in range(9))
    ref = upload(client, content, "a.csv")["id"]
    assert '<option value="odd">' in page(client, f"/datasets/{ref}/suspects")


def test_datasets_without_labels_have_no_section(client: TestClient) -> None:
    ref = upload(client, SMALL, "a.csv", purpose="predict")["id"]
    assert "Labels worth a second look" not in page(client, f"/datasets/{ref}")
    answer = client.get(f"/datasets/{ref}/suspects", headers={"Accept": "text/html"})
    assert answer.status_code == 422


def test_texts_and_labels_are_escaped(client: TestClient) -> None:
    content = WRONG_LABELS.replace("neg\n", f"{HOSTILE}\n").replace("film", HOSTILE)
    ref = upload(client, content, "a.csv")["id"]
    text = page(client, f"/datasets/{ref}/suspects")
    assert cards(text)
    assert HOSTILE not in text
    changes = [{"row": 2, "label": HOSTILE}]
    new = client.post(f"/v1/datasets/{ref}/corrections", json={"changes": changes}).json()["id"]
    assert HOSTILE not in page(client, f"/datasets/{new}/diff")


def test_long_diff_is_cut(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.web.label_review.MAX_CHANGES", 1)
    ref = upload(client, SETS, "a.csv", task="multi_label", label_separator=";")["id"]
    changes: list[dict[str, Any]] = [{"row": row, "labels": []} for row in (1, 2)]
    new = client.post(f"/v1/datasets/{ref}/corrections", json={"changes": changes}).json()["id"]
    shown = page(client, f"/datasets/{new}/diff")
    assert "The first 1 are shown." in shown
    assert client.get(f"/v1/datasets/{new}/diff").status_code == 200
    assert f'href="/v1/datasets/{new}/diff"' in shown


def test_sets_in_a_diff(client: TestClient) -> None:
    ref = upload(client, SETS, "a.csv", task="multi_label", label_separator=";")["id"]
    changes = [{"row": 1, "labels": []}]
    new = client.post(f"/v1/datasets/{ref}/corrections", json={"changes": changes}).json()["id"]
    assert "<td>a, b</td><td>no label</td>" in page(client, f"/datasets/{new}/diff")
