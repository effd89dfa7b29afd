"""Labeling pages. Their scripts are tested in tests/browser."""

import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from starlette.testclient import TestClient

from app.auth.service import CreatedKey
from app.database.engines import Database
from app.jobs import repository as jobs
from app.web import form_options
from tests.app.web.html_elements import elements, visible_text

PAGE = {"Accept": "text/html"}
HOSTILE = "<img src=x onerror=alert(1)>"
TEXTS = "text\n" + "".join(f"film {i} {HOSTILE}\n" for i in range(9))
PAIRS = "text,claim\n" + "".join(f"film {i},claim {i}\n" for i in range(3))


def upload(client: TestClient, content: str = TEXTS, **fields: str) -> str:
    form = {"name": "pile", "purpose": "predict", **fields}
    answer = client.post("/v1/datasets", files={"file": ("pile.csv", content)}, data=form)
    assert answer.status_code == 201, answer.text
    ref: str = answer.json()["ref"]
    return ref


def create(client: TestClient, **fields: Any) -> None:
    body = {"name": "films", "dataset": "pile", "labels": ["bad", HOSTILE], **fields}
    answer = client.post("/v1/labeling", json=body)
    assert answer.status_code == 201, answer.text


def say(client: TestClient, row: int, **answer: Any) -> None:
    sent = client.put(f"/v1/labeling/films/texts/{row}", json=answer)
    assert sent.status_code == 200, sent.text


def page(client: TestClient, path: str = "", **headers: str) -> str:
    shown = client.get(f"/labeling{path}", headers=PAGE | headers)
    assert shown.status_code == 200, shown.text
    assert HOSTILE not in shown.text
    return shown.text


def script_data(html: str) -> Any:
    """Return what the script that labels texts starts with."""
    [data] = [
        each.get("data-project") for each in elements(html, "div") if each.get("data-project")
    ]
    return json.loads(data or "")


def button(html: str, identifier: str) -> Any:
    [found] = [each for each in elements(html, "button") if each.get("id") == identifier]
    return found


@pytest.fixture
def project(client: TestClient) -> None:
    upload(client)
    create(client)


def test_first_visit_explains_what_it_is_for(client: TestClient) -> None:
    text = page(client)
    assert "A model learns from texts with labels." in visible_text(text)
    assert 'href="/guide/how-to/label.md"' in text
    assert 'href="/datasets"' in text
    assert "new_labeling.js" not in text  # there is nothing to choose yet


def test_form_offers_datasets_without_labels(client: TestClient) -> None:
    refs = [upload(client), upload(client, TEXTS + "one more\n")]
    labeled = "text,label\ngood,pos\nbad,neg\nfine,pos\nawful,neg\n"
    client.post("/v1/datasets", files={"file": ("labeled.csv", labeled)}).raise_for_status()
    options = [each["value"] for each in elements(page(client), "option") if each.get("value")]
    assert [each for each in options if ":" in each] == refs[::-1]
    chosen = elements(page(client, f"?dataset={refs[0]}"), "option")
    assert [each["value"] for each in chosen if each.get("selected") is not None] == refs[:1]
    dataset = client.get(f"/datasets/{refs[0]}", headers=PAGE).text
    assert 'href="/labeling?dataset=pile%3A1"' in dataset
    assert "Label these texts" not in client.get("/datasets/labeled", headers=PAGE).text


def test_an_old_dataset_is_offered_if_it_is_wanted(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(form_options, "_MAX_OPTIONS", 1)
    refs = [upload(client), upload(client, TEXTS + "one more\n")]
    html = page(client, f"?dataset={refs[0]}")
    options = [each for each in elements(html, "option") if ":" in (each.get("value") or "")]
    assert [each["value"] for each in options] == refs[::-1]
    assert [each["value"] for each in options if each.get("selected") is not None] == refs[:1]
    assert "without labels. Choose another" not in html
    assert "There is no dataset pile:7 without labels." in page(client, "?dataset=pile:7")


@pytest.mark.usefixtures("project")
def test_list_of_projects(client: TestClient) -> None:
    say(client, 1, label="bad")
    text = page(client)
    assert "From a pile of texts to labels" not in text
    assert "films pile:1 1 of 9 one label" in visible_text(text)
    assert 'href="/labeling/films/label"' in text


@pytest.mark.usefixtures("project")
def test_page_of_a_project(client: TestClient) -> None:
    text = visible_text(page(client, "/films"))
    assert "0 of 9 texts labeled" in text
    assert "It needs 20 labeled texts that were drawn at random; there are 0." in text
    assert "Vectors: waiting for a worker" in text
    assert "Nobody has labeled a text yet." in text
    assert "disabled" in button(page(client, "/films"), "open-make-dataset").attributes
    say(client, 3, label=HOSTILE)
    say(client, 2, label="bad", annotator="grace")
    say(client, 1, skipped=True)
    html = page(client, "/films")
    text = visible_text(html)
    assert "2 of 9 texts labeled, 1 skipped" in text
    assert f"bad 1 {HOSTILE} 1" in text
    assert "local 1 1 local/grace 1 0" in text
    assert text.index("skipped local") < text.index("bad local/grace")
    links = [each["href"] for each in elements(html, "a") if "?row=" in each["href"]]
    assert links == [f"/labeling/films/label?row={row}" for row in ("1", "2&annotator=grace", "3")]
    [delete] = [each for each in elements(html, "button") if each.get("data-request")]
    assert "disabled" not in button(html, "open-make-dataset").attributes
    assert delete["data-request"] == "DELETE /v1/labeling/films"


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("path", ["/labeling/films", "/labeling/films/label"])
def test_page_is_rendered_again_only_if_it_changed(
    client: TestClient,
    anonymous_client: TestClient,
    database: Database,
    path: str,
    new_key: Callable[..., CreatedKey],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.web.page._minute", lambda: 1)

    def etag(reader: TestClient = client, **headers: str) -> str:
        shown = reader.get(path, headers=PAGE | headers)
        assert shown.status_code == 200
        return shown.headers["ETag"]

    changes: list[Callable[[], object]] = [
        lambda: say(client, 3, label="bad"),
        lambda: say(client, 3, skipped=True),
        lambda: client.delete("/v1/labeling/films/texts/3"),
        lambda: client.patch("/v1/labeling/films", json={"add_labels": ["new"]}),
        lambda: cancel_vectors(client, database),
    ]
    for change in changes:
        known = {"If-None-Match": etag()}
        same = client.get(path, headers=PAGE | known)
        assert (same.status_code, same.content) == (304, b"")
        assert same.headers["ETag"] == known["If-None-Match"]
        weak = {"If-None-Match": f"W/{etag()}"}  # from a proxy that compresses
        assert client.get(path, headers=PAGE | weak).status_code == 304
        change()
        assert client.get(path, headers=PAGE | known).status_code == 200
    keys = [f"Bearer {new_key('labels:read', 'labels:write').text}" for _ in range(2)]
    assert len({etag(anonymous_client, Authorization=key) for key in keys}) == 2
    known = {"If-None-Match": etag()}
    monkeypatch.setattr("app.web.page._minute", lambda: 2)  # “2 min ago”
    assert client.get(path, headers=PAGE | known).status_code == 200


@pytest.mark.usefixtures("project")
def test_dataset_that_was_just_made(client: TestClient) -> None:
    say(client, 1, label="bad")
    say(client, 2, label=HOSTILE)
    ref = client.post("/v1/labeling/films/dataset", json={}).json()["ref"]
    html = page(client, f"/films?made={ref}")
    assert "Made the dataset films:1" in visible_text(html)
    assert 'href="/jobs/new?data=films%3A1"' in html
    assert "Made the dataset" not in page(client, "/films?made=nothing:1")
    assert client.get("/labeling/films?made=" + "x" * 200, headers=PAGE).status_code == 422


@pytest.mark.parametrize(
    ("task", "shown", "answer", "value"),
    [
        ({"type": "multi_label"}, "any number of labels", {"labels": ["b", "a"]}, "a, b"),
        ({"type": "multi_label"}, "any number of labels", {"labels": []}, "no label"),
        ({"type": "regression"}, "a number", {"value": 3.14159}, "3.142"),
        ({"type": "single_label", "ordered": True}, "one of ordered labels", {"label": "a"}, "a"),
    ],
)
def test_other_tasks(client: TestClient, task: Any, shown: str, answer: Any, value: str) -> None:
    upload(client)
    create(client, task=task, labels=[] if "value" in answer else ["a", "b"])
    say(client, 1, **answer)
    text = visible_text(page(client, "/films"))
    assert f"films {shown}" in text
    assert f"{value} local requested" in text
    data = script_data(page(client, "/films/label?row=1"))
    expected = {key: sorted(each) if key == "labels" else each for key, each in answer.items()}
    assert data["reopened"]["answer"] == expected
    html = page(client, "/films/label")
    assert ('id="number"' in html) is ("value" in answer)
    assert ('id="confirm-labels"' in html) is ("labels" in answer)
    assert ('id="add-label"' in html) is ("value" not in answer)


@pytest.mark.usefixtures("project")
def test_page_that_labels_texts(client: TestClient) -> None:
    html = page(client, "/films/label")
    data = script_data(html)
    assert data["labels"] == ["bad", HOSTILE]
    assert data["reopened"] is None
    assert 'id="text-pair"' not in html
    say(client, 4, label="bad", annotator="grace")
    assert script_data(page(client, "/films/label?row=4"))["reopened"] is None  # of another one
    reopened = script_data(page(client, "/films/label?row=4&annotator=grace"))["reopened"]
    assert reopened["text"] == f"film 3 {HOSTILE}"
    assert reopened["annotator"] == "grace"
    assert reopened["answer"] == reopened["before"] == {"label": "bad"}
    say(client, 4, skipped=True)
    skipped = script_data(page(client, "/films/label?row=4"))["reopened"]
    assert skipped["answer"] == {"skipped": True}


def test_pairs_have_two_texts(client: TestClient) -> None:
    upload(client, PAIRS, text_pair_column="claim")
    create(client)
    say(client, 2, label="bad")
    html = page(client, "/films/label?row=2")
    assert 'id="text-pair"' in html
    assert script_data(html)["reopened"]["text_pair"] == "claim 1"
    assert "Pairs of texts of pile:1" in visible_text(page(client, "/films"))


def cancel_vectors(client: TestClient, database: Database) -> None:
    job = client.get("/v1/labeling/films").json()["vectors"]["job"]
    with database.write() as session:
        jobs.request_cancel(session, UUID(job))


@pytest.mark.usefixtures("project")
def test_failed_vectors_can_be_computed_again(client: TestClient, database: Database) -> None:
    assert "Compute the vectors again" not in page(client, "/films")
    cancel_vectors(client, database)
    html = page(client, "/films")
    assert "Texts come at random, without suggestions." in visible_text(html)
    [button] = [each for each in elements(html, "button") if "again" in each.text]
    method, path = button["data-request"].split()
    body = json.loads(button["data-body"])
    client.request(method, path, json=body).raise_for_status()
    assert "Vectors: waiting for a worker" in visible_text(page(client, "/films"))


@pytest.mark.usefixtures("project")
def test_deleted_dataset_leaves_the_labels(client: TestClient, database: Database) -> None:
    say(client, 1, label="bad")
    cancel_vectors(client, database)  # they read the dataset
    dataset = client.get("/v1/datasets/pile").json()["id"]
    client.delete(f"/v1/datasets/{dataset}").raise_for_status()
    text = visible_text(page(client, "/films"))
    assert "the labels are kept, but not the texts" in text
    assert "The vectors could not be computed" in text
    for action in ("Label texts", "Change", "Compute the vectors again"):
        assert action not in text
    assert script_data(page(client, "/films/label?row=1"))["reopened"] is None


@pytest.mark.parametrize("path", ["/nothing", "/nothing/label"])
def test_unknown_project(client: TestClient, path: str) -> None:
    shown = client.get(f"/labeling{path}", headers=PAGE)
    assert shown.status_code == 404
    assert "<code>labeling_project_not_found</code>" in shown.text


@pytest.mark.usefixtures("project")
def test_pages_show_what_the_key_may_read(
    client: TestClient, anonymous_client: TestClient, new_key: Callable[..., CreatedKey]
) -> None:
    say(client, 1, label="bad")

    def shown(path: str, *scopes: str) -> tuple[int, str]:
        headers = {**PAGE, "Authorization": f"Bearer {new_key(*scopes).text}"}
        answer = anonymous_client.get(f"/labeling{path}", headers=headers)
        return answer.status_code, visible_text(answer.text)

    for path in ("", "/films", "/films/label"):
        assert shown(path, "jobs:read")[0] == 403, path
    assert shown("/films/label", "labels:read")[0] == 403
    assert shown("/films/label", "labels:write")[0] == 200
    status, all_of_them = shown("/films", "labels:read")
    assert status == 200
    assert "bad local requested" in all_of_them
    assert "Change" not in all_of_them
    status, own = shown("/films", "labels:write")
    assert status == 200
    assert "bad local requested" not in own
    assert "New project" not in shown("", "labels:read")[1]
    assert "New project" in shown("", "labels:write", "datasets:read")[1]
