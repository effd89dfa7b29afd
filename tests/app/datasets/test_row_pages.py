"""Pages of a dataset's rows."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from tests.app.datasets.conftest import REVIEWS, Upload


def rows(client: TestClient, **query: int) -> Any:
    response = client.get("/v1/datasets/a/rows", params=query)
    assert response.status_code == 200, response.text
    return response.json()


def test_pagination(client: TestClient, upload: Upload) -> None:
    upload()
    first = rows(client, limit=2)
    assert first == {
        "data": [
            {"row": 1, "text": "film 0 was good", "characters": 15, "label": "pos", "split": None},
            {"row": 2, "text": "film 0 was bad", "characters": 14, "label": "neg", "split": None},
        ],
        "next": 2,
    }
    assert [row["row"] for row in rows(client, limit=2, after=2)["data"]] == [3, 4]
    assert (rows(client, limit=20)["next"], rows(client, limit=19)["next"]) == (None, 19)
    assert rows(client, after=20) == rows(client, after=10**12) == {"data": [], "next": None}


@pytest.mark.parametrize("ending", ["tsv", "jsonl", "parquet"])
def test_each_format_is_read_as_in_training(
    client: TestClient, upload: Upload, tmp_path: Path, ending: str
) -> None:
    texts, labels, splits = ["good", "bad"] * 10, [1, 0] * 10, ["train", "test"] * 10
    splits[1] = "train"
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": texts, "label": labels, "split": splits}), file)
    content = {
        "tsv": "text\tlabel\tsplit\n" + "".join(
            f"{text}\t {label}\t{split}\n"
            for text, label, split in zip(texts, labels, splits, strict=True)
        ),
        "jsonl": "".join(
            f'{{"text": "{text}", "label": {label}, "split": "{split}"}}\n'
            for text, label, split in zip(texts, labels, splits, strict=True)
        ),
        "parquet": file,
    }[ending]  # fmt: skip
    sent = upload(content, f"a.{ending}")
    assert (sent.status_code, sent.json()["labels"]) == (201, {"0": 10, "1": 10}), sent.text
    assert rows(client, limit=1, after=2)["data"] == [
        {"row": 3, "text": "good", "characters": 4, "label": "1", "split": "train"}
    ]


def test_columns_of_a_mac_are_read_by_their_names(client: TestClient, upload: Upload) -> None:
    content = REVIEWS.replace("text,label", "Re\u0301sume\u0301,Label ")
    header = client.post(
        "/v1/datasets/preview", files={"file": ("a.csv", content.encode())}
    ).json()["columns"]
    sent = upload(content, text_column=header[0], label_column="Label")
    assert sent.status_code == 201, sent.text
    assert rows(client, limit=1)["data"][0]["text"] == "film 0 was good"
    data = {"source": "a", "text_column": "R\u00e9sum\u00e9", "label_column": "Label"}
    job = client.post("/v1/jobs", json={"data": data, "method": {"type": "linear"}})
    assert job.status_code == 202, job.text


def test_a_long_text_is_truncated(client: TestClient, upload: Upload) -> None:
    upload(f"{REVIEWS}{'é' * 50_000},pos\n")
    [row] = rows(client, after=20)["data"]
    assert (len(row["text"]), row["characters"]) == (2_000, 50_000)


def test_the_largest_page_of_long_texts(client: TestClient, upload: Upload) -> None:
    text = "\N{CLAPPING HANDS SIGN}" * 3_000
    upload("text,label\n" + "".join(f"{text}{i},{i % 2}\n" for i in range(120)))
    page = rows(client, limit=100)
    assert len(page["data"]) == 100
    assert page["next"] == 100


def test_unlabeled_rows(client: TestClient, upload: Upload) -> None:
    upload("split,body\nx,good\n", "a.csv", purpose="predict", text_column="body", name="a")
    assert rows(client)["data"] == [
        {"row": 1, "text": "good", "characters": 4, "label": None, "split": None}
    ]


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": 101}, {"after": -1}, {"after": "x"}])
def test_query_limits(client: TestClient, query: dict[str, int]) -> None:
    response = client.get("/v1/datasets/a/rows", params=query)
    assert (response.status_code, response.json()["errors"][0]["at"]) == (
        422,
        f"query.{next(iter(query))}",
    )
