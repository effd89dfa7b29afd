"""Datasets of text pairs: upload, rows, jobs and prediction runs on them."""

from pathlib import Path

from starlette.testclient import TestClient

from app.resources import Resources
from tests.app.datasets.conftest import Upload
from tests.prediction_rows import add_model
from tests.tiny_artifact import make_artifact

PAIRS = "first,second,label\n" + "".join(
    f"film {i},it was {word},{label}\n"
    for i in range(60)
    for word, label in (("good", "pos"), ("bad", "neg"))
)
COLUMNS = {"text_column": "first", "text_pair_column": "second"}


def test_pairs_are_uploaded_listed_and_trained_on(client: TestClient, upload: Upload) -> None:
    response = upload(PAIRS, "pairs.csv", **COLUMNS)
    dataset = response.json()
    assert (response.status_code, dataset["text_pair_column"]) == (201, "second")
    assert dataset["profile"]["duplicates"] == 0  # no text is unique, but every pair is
    again = upload(PAIRS, "pairs.csv", text_column="first")
    assert (again.status_code, again.json()["text_pair_column"]) == (201, None)
    assert again.json()["profile"]["duplicates"] == 60
    [row] = client.get("/v1/datasets/pairs:1/rows?limit=1").json()["data"]
    assert (row["text"], row["text_pair"], row["characters"]) == ("film 0", "it was good", 17)
    page = client.get(f"/datasets/{dataset['id']}").text
    assert "pairs of the columns <code>first</code> and <code>second</code>" in page
    assert "it was good" in client.get(f"/datasets/{dataset['id']}/rows").text
    body = {"method": {"type": "linear"}, "data": {"source": "pairs:1"}}
    job = client.post("/v1/jobs", json=body).json()
    assert job["spec"]["data"]["text_pair_column"] == "second"
    body["data"] = {"source": "pairs:2", "text_pair_column": "second"}
    mismatch = client.post("/v1/jobs", json=body).json()
    assert mismatch["code"] == "column_not_checked"


def test_incomplete_pairs_are_rejected(upload: Upload) -> None:
    response = upload(PAIRS + "film,,pos\n", "pairs.csv", **COLUMNS)
    assert (response.status_code, response.json()["code"]) == (422, "incomplete_pair")
    assert "121" in response.json()["detail"]
    same = upload(PAIRS, "pairs.csv", text_column="first", text_pair_column="first")
    assert (same.status_code, same.json()["code"]) == (422, "same_column")


def test_prediction_run_reads_both_columns(
    client: TestClient, upload: Upload, resources: Resources, tmp_path: Path
) -> None:
    add_model(resources, make_artifact(tmp_path / "pairs", pairs=True))
    upload(PAIRS, "pairs.csv", purpose="predict", **COLUMNS)
    run = client.post("/v1/predictions", json={"dataset": "pairs-to-predict"}).json()
    assert (run["text_column"], run["text_pair_column"]) == ("first", "second")
    assert "with <code>second</code>" in client.get(f"/predictions/{run['id']}").text
