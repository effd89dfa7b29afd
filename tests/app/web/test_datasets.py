"""Dataset pages: contents, data checks, and escaping of user input."""

from collections.abc import Callable
from html import unescape
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.auth.service import CreatedKey
from app.database.engines import Database
from app.datasets import repository
from tests.app.datasets.test_diagnosis import LEAKING, MANY, remove_diagnosis

HOSTILE = "<img src=x onerror=alert(1)>"
PAGE = {"Accept": "text/html"}


def upload(
    client: TestClient, content: str = LEAKING, file: str = "films.csv", **fields: str
) -> Any:
    answer = client.post("/v1/datasets", files={"file": (file, content)}, data=fields)
    assert answer.status_code == 201, answer.text
    return answer.json()


def page(client: TestClient, address: str) -> str:
    answer = client.get(address, headers=PAGE)
    assert answer.status_code == 200, answer.text
    return answer.text


def html_from(text: str, name: str) -> str:
    """Return the HTML from the element with this id on."""
    assert text.count(f'id="{name}"') == 1
    return text.partition(f'id="{name}"')[2]


def test_empty_state_explains_how_to_start(client: TestClient) -> None:
    text = page(client, "/datasets")
    assert "No datasets yet" in text
    assert 'href="/jobs/new?data=rotten-tomatoes"' in text
    assert 'data-max-bytes="' in text
    for label in ('for="file"', 'for="name"', 'for="text_column"', 'for="label_column"'):
        assert label in text


def test_list_shows_findings_and_versions_link_to_each_other(client: TestClient) -> None:
    first = upload(client)
    sound = upload(client, MANY)
    assert (first["ref"], sound["ref"]) == ("films:1", "films:2")
    text = page(client, "/datasets")
    assert "No datasets yet" not in text
    row = html_from(text, f"dataset-{first['id']}").partition("</tr>")[0]
    assert f'href="/datasets/{first["id"]}">films:1</a>' in row
    assert '<span class="finding-level error">1 error</span>' in row
    assert '<span class="finding-level warning">2 warnings</span>' in row
    assert ">49<" in row
    assert "neg, pos" in row
    assert "passed" in html_from(text, f"dataset-{sound['id']}").partition("</tr>")[0]
    old, new = (page(client, f"/datasets/{each['id']}") for each in (first, sound))
    assert 'href="/jobs/new?data=films%3A1"' in old
    assert 'href="/jobs/new?data=films"' in new
    assert f'href="/datasets/{sound["id"]}">2</a>' in html_from(old, "versions")
    assert f'href="/datasets/{first["id"]}">1</a>' in html_from(new, "versions")


def test_learning_curve_is_shown(client: TestClient, database: Database) -> None:
    few, many = upload(client), upload(client, MANY, "many.csv")
    text = html_from(page(client, f"/datasets/{few['id']}"), "learning-curve").partition(
        "</section>"
    )[0]
    assert "too few to estimate the effect of more labels" in text
    assert "<svg" not in text
    address = f"/datasets/{many['id']}"
    text = html_from(page(client, address), "learning-curve").partition("</section>")[0]
    assert "With twice as many labels (600) expect" in text
    assert text.count("<circle") == 5
    assert 'class="range"' in text
    assert "a linear model (TF-IDF + logistic regression)" in text
    with database.write() as session:
        row = repository.resolve_dataset(session, "many")
        row.profile = {**row.profile, "diagnosis": {**many["diagnosis"], "more_labels": None}}
    text = html_from(page(client, address), "learning-curve").partition("</section>")[0]
    assert f'data-request="POST /v1/datasets/{many["id"]}/check"' in text


def test_pagination(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.web.datasets.PAGE_SIZE", 1)
    for name in ("one", "two"):
        upload(client, name=name)
    text = page(client, "/datasets")
    assert ("two:1" in text, "one:1" in text) == (True, False)
    older = unescape(text.partition('rel="next"')[0].rpartition('href="')[2].partition('"')[0])
    second = page(client, f"/datasets{older}")
    assert ("two:1" in second, "one:1" in second) == (False, True)


def test_all_details_are_shown(client: TestClient) -> None:
    dataset = upload(client)
    for ref in (dataset["id"], "films", "films:1"):
        text = page(client, f"/datasets/{ref}")
        assert 'href="/jobs/new?data=films"' in text
    leaked = html_from(text, "finding-leaked").partition("</details>")[0]
    assert "Texts that occur in two splits: 1 row of test in train." in leaked
    assert " ".join(leaked.split()).count("sentence0 word0 end0") == 1  # the text of both rows
    assert "Row 1, <bdi>neg</bdi>, train" in leaked
    assert "Row 49, <bdi>neg</bdi>, test" in leaked
    assert text.index('id="finding-leaked"') < text.index('id="finding-duplicates"')
    labels = html_from(text, "labels").partition("</table>")[0]
    assert labels.index(">neg<") < labels.index(">pos<")  # the most frequent first
    assert 'width="51.02"' in labels
    assert "51.0%" in labels
    assert [f">{count}<" in labels for count in (25, 12, 13)] == [True] * 3
    assert "0.0%" in html_from(text, "lengths")
    assert f"/v1/datasets/{dataset['id']}/content" in text
    assert f'data-request="DELETE /v1/datasets/{dataset["id"]}"' in text
    assert "data-confirm=" in html_from(text, "versions")


def test_jobs_that_used_it_are_listed(client: TestClient) -> None:
    upload(client)
    other = upload(client, name="other")
    body = {"name": HOSTILE, "method": {"type": "baseline"}, "data": {"source": "films"}}
    job = client.post("/v1/jobs", json=body).json()
    text = page(client, "/datasets/films")
    listed = html_from(text, "jobs").partition("</ul>")[0]
    assert f'href="/jobs/{job["id"]}"' in listed
    assert HOSTILE not in text
    assert HOSTILE in unescape(listed)
    assert "No job has used this version" in page(client, f"/datasets/{other['id']}")


def test_jobs_are_listed_to_keys_that_may_read_jobs(
    anonymous_client: TestClient, new_key: Callable[..., CreatedKey]
) -> None:
    def headers(*scopes: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {new_key(*scopes).text}", **PAGE}

    file = {"file": ("films.csv", LEAKING)}
    upload = anonymous_client.post("/v1/datasets", files=file, headers=headers())
    assert upload.status_code == 201, upload.text
    body = {"name": "a job", "method": {"type": "baseline"}, "data": {"source": "films"}}
    job = anonymous_client.post("/v1/jobs", json=body, headers=headers()).json()
    for scopes, listed in (("datasets:read", "jobs:read"), True), (("datasets:read",), False):
        shown = anonymous_client.get("/datasets/films", headers=headers(*scopes)).text
        assert (job["id"] in shown, "a job" in shown) == (listed, listed)


def test_user_input_is_escaped(client: TestClient) -> None:
    rows = "".join(f'"{HOSTILE}","{HOSTILE}{i % 2}"\n' for i in range(4))
    upload(client, "text,label\n" + rows, f"{HOSTILE}.csv", name="x")
    for address in ("/datasets", "/datasets/x", "/datasets/x/rows"):
        text = page(client, address)
        assert HOSTILE not in text
        assert HOSTILE in unescape(text)


def test_unchecked_upload_offers_to_run_checks(client: TestClient, database: Database) -> None:
    dataset = upload(client)
    remove_diagnosis(database, "films")
    assert "not checked" in page(client, "/datasets")
    text = page(client, "/datasets/films")
    assert f'data-request="POST /v1/datasets/{dataset["id"]}/check"' in text
    assert 'id="finding-' not in text
    assert client.post(f"/v1/datasets/{dataset['id']}/check").status_code == 200
    assert 'id="finding-leaked"' in page(client, "/datasets/films")


def test_unlabeled_dataset(client: TestClient) -> None:
    upload(client, "body\ngood\nbad\n", "inbox (2).csv", purpose="predict", text_column="body")
    text = page(client, "/datasets/inbox-2-to-predict")
    assert "This dataset has no labels" in text
    assert "loraworks predict --file 'inbox (2).csv' --out" in unescape(text)
    assert "/jobs/new?data" not in text
    assert 'id="labels"' not in text
    assert ">none<" in page(client, "/datasets")
    upload(client, "body\ngood\n", "one.csv", purpose="predict", text_column="body")
    assert "<p>1 row <" in page(client, "/datasets/one-to-predict")


def test_many_labels_are_folded(client: TestClient) -> None:
    rows = "".join(f"text{i} of{i} it{i},label-{i % 20:02}\n" for i in range(80))
    upload(client, "text,label\n" + rows, "many.csv")
    text = page(client, "/datasets/many")
    assert "8 more" in text
    assert text.index(">label-11<") < text.index("8 more") < text.index(">label-12<")


def test_rows_are_paginated(client: TestClient) -> None:
    dataset = upload(client)
    first = page(client, "/datasets/films/rows")
    assert "1 to 10 of 49" in first
    assert "sentence9 word9 end9" in first
    assert "sentence10 word10 end10" not in first
    assert f'href="/datasets/{dataset["id"]}/rows?after=10" rel="next"' in first
    last = page(client, "/datasets/films/rows?after=40")
    assert "41 to 49 of 49" in last
    assert 'rel="next"' not in last
    assert "No more rows" in page(client, "/datasets/films/rows?after=49")
    assert f'data-fragment="/datasets/{dataset["id"]}/rows"' in page(client, "/datasets/films")


def test_long_texts_are_truncated(client: TestClient) -> None:
    upload(client, f"text,label\n{'long ' * 1000},a\nb,b\n", "long.csv")
    text = page(client, "/datasets/long/rows")
    assert "5,000 characters" in text
    assert text.count("long ") < 100


@pytest.mark.parametrize("address", ["/datasets/none", "/datasets/none/rows"])
def test_unknown_dataset_renders_an_error_page(client: TestClient, address: str) -> None:
    answer = client.get(address, headers=PAGE)
    assert (answer.status_code, answer.headers["content-type"][:9]) == (404, "text/html")
    assert "dataset_not_found" in answer.text


def test_pages_need_an_api_key(
    anonymous_client: TestClient, new_key: Callable[..., CreatedKey]
) -> None:
    for address in ("/datasets", "/datasets/films", "/datasets/films/rows"):
        answer = anonymous_client.get(address, headers=PAGE, follow_redirects=False)
        assert (answer.status_code, answer.headers["location"].partition("?")[0]) == (
            303,
            "/sign-in",
        )
        wrong = {"Authorization": f"Bearer {new_key('jobs:read').text}", **PAGE}
        assert anonymous_client.get(address, headers=wrong).status_code == 403
