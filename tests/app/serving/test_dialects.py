"""What clients of two kinds send, and the form in which they are answered."""

from typing import Any

import pytest
import torch
from starlette.testclient import TestClient
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.app.serving.conftest import Publish

TEXT, OTHER = "a good film", "a dull plot"


def ask(client: TestClient, path: str = "/predict", **body: Any) -> Any:
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def labels(rows: Any) -> list[str]:
    return [row["label"] for row in rows]


def test_the_form_follows_the_dialect(client: TestClient, publish: Publish) -> None:
    publish()
    flat = ask(client, inputs=TEXT)
    assert labels(flat) == ["good", "bad"]
    assert ask(client, inputs=[TEXT]) == [flat]
    assert ask(client, inputs=[[TEXT]]) == [flat]
    batch, again = ask(client, inputs=[TEXT, OTHER]), ask(client, inputs=[[TEXT], [OTHER]])
    assert [labels(row) for row in batch] == [labels(row) for row in again]
    for row, other in zip(batch, again, strict=True):  # on one core together, or each on its own
        scores = [label["score"] for label in row]
        assert scores == pytest.approx([label["score"] for label in other], abs=1e-6)
    for hub in (
        ask(client, inputs=TEXT, parameters={}),
        ask(client, inputs=TEXT, parameters=None),
        ask(client, "/predict?dialect=hf", inputs=TEXT),
    ):
        assert hub == [flat]
    assert ask(client, "/predict?dialect=tei", inputs=TEXT, parameters={}) == flat
    assert ask(client, inputs=TEXT, options={"wait_for_model": True}, other=1) == flat


@pytest.mark.parametrize(
    "path", ["/", "/invocations", "/models/sentiment", "/models/sentiment/predict"]
)
def test_the_same_under_other_names(client: TestClient, publish: Publish, path: str) -> None:
    publish()
    assert ask(client, path, inputs=TEXT) == ask(client, inputs=TEXT)


def test_vertex_wraps_question_and_answer(client: TestClient, publish: Publish) -> None:
    publish()
    wrapped = ask(client, "/vertex", instances=[{"inputs": TEXT}, {"inputs": [OTHER]}])
    flat, [nested] = wrapped["predictions"]
    for row, text in ((flat, TEXT), (nested, OTHER)):
        alone = ask(client, inputs=text)
        assert row == [{**each, "score": pytest.approx(each["score"], abs=1e-6)} for each in alone]
    too_many = client.post("/vertex", json={"instances": [{"inputs": TEXT}] * 65})
    assert (too_many.status_code, too_many.json()["code"]) == (422, "too_many_inputs")


def test_functions_and_raw_scores(client: TestClient, publish: Publish) -> None:
    merged = publish() / "merged"
    model = AutoModelForSequenceClassification.from_pretrained(merged)
    tokens = AutoTokenizer.from_pretrained(merged)(TEXT, return_tensors="pt")
    with torch.no_grad():
        logits = model(**tokens).logits[0]
    expected = {"softmax": logits.softmax(-1), "sigmoid": logits.sigmoid(), "none": logits}
    answers = {
        name: ask(client, inputs=TEXT, parameters={"function_to_apply": name})[0]
        for name in expected
    }
    answers["raw"] = ask(client, inputs=TEXT, raw_scores=True)
    for name, rows in answers.items():
        by_label = {row["label"]: row["score"] for row in rows}
        for index, label in model.config.id2label.items():
            wanted = expected["none" if name == "raw" else name][index].item()
            assert by_label[label] == pytest.approx(wanted, abs=1e-5), name


def test_only_so_many_labels(client: TestClient, publish: Publish) -> None:
    publish()
    assert labels(ask(client, inputs=TEXT, top_k=1)) == ["good"]
    assert labels(ask(client, inputs=TEXT, parameters={"top_k": 1})[0]) == ["good"]
    assert labels(ask(client, inputs=TEXT, top_k=9)) == ["good", "bad"]


def test_no_label_where_none_is_probable_enough(client: TestClient, publish: Publish) -> None:
    publish()
    best = ask(client, inputs=TEXT)[0]["score"]
    sure = client.post("/predict", json={"inputs": [TEXT], "abstain_below": best - 1e-6})
    unsure = client.post("/predict", json={"inputs": [TEXT, TEXT], "abstain_below": best + 1e-6})
    assert labels(sure.json()[0]) == ["good", "bad"]
    assert "x-abstained" not in sure.headers
    assert unsure.json() == [[], []]
    assert unsure.headers["x-abstained"] == "2"


def test_a_text_is_cut_at_the_side_that_is_asked_for(client: TestClient, publish: Publish) -> None:
    publish()
    long = "good " * 80 + "awful " * 80
    right = ask(client, inputs=long)
    assert right == ask(client, inputs=long, truncation_direction="Right")
    left = ask(client, inputs=long, truncation_direction="left")
    kept = ask(client, inputs="awful " * 62)  # 64 tokens with the special ones
    assert left == [{**row, "score": pytest.approx(row["score"], abs=1e-6)} for row in kept]
    assert left != right


def test_a_pair_is_refused(client: TestClient, publish: Publish) -> None:
    publish()
    answer = client.post("/predict", json={"inputs": [[TEXT], [TEXT, OTHER]]})
    assert (answer.status_code, answer.json()["code"]) == (422, "pair_refused")
    assert "Input 1 holds 2 texts" in answer.json()["error"]


def test_info_describes_the_model(client: TestClient, publish: Publish) -> None:
    publish()
    info = client.get("/info").json()
    assert info == client.get("/models/sentiment:1/info").json()
    assert info == client.get("/models/sentiment/predict/info").json()
    assert info["model_type"] == {
        "classifier": {"id2label": {"0": "bad", "1": "good"}, "label2id": {"bad": 0, "good": 1}}
    }
    assert (info["model_id"], info["max_input_length"]) == ("sentiment:1", 64)
    assert info["model_dtype"] in ("float32", "bfloat16")
    for path in ("/models/sentiment/health", "/models/sentiment@production/predict/health"):
        assert client.get(path).status_code == 200
    for path in ("/models/other/info", "/models/other/health", "/models/other/predict/info"):
        answer = client.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("sent", ["soon", "-1", "0", "nan", "inf"])
def test_a_timeout_that_is_none_is_refused(client: TestClient, publish: Publish, sent: str) -> None:
    publish()
    answer = client.post("/predict", json={"inputs": TEXT}, headers={"X-Request-Timeout": sent})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_timeout")
