"""The classification example of OpenAI's cookbook, with address and key changed.

Its calls are made in its order, by the unmodified SDK, to a service that requires keys.
"""

import csv
import io
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob

from lora_core.samples.reviews import load_reviews
from tests.e2e.up import loraworks_up
from tests.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

LABELS = ("positive", "negative")
PER_LABEL = 100
HELD_OUT = 40  # of 200 rows, as the tool that prepares such files divided them
SEPARATOR = "\n\n###\n\n"
SYSTEM = {"role": "system", "content": "Decide whether a review is positive or negative."}
TRAINING_SECONDS = 400.0
SCOPES = (
    *("datasets:read", "datasets:write", "jobs:read", "jobs:write", "models:admin"),
    "predict",
)

Row = dict[str, Any]


def labeled_texts() -> list[tuple[str, str]]:
    """200 reviews, every other one positive."""
    reviews = load_reviews("rotten-tomatoes")
    by_label = [[text for text, label in reviews if label == name][:PER_LABEL] for name in LABELS]
    return [(text, name) for pair in zip(*by_label, strict=True)
            for text, name in zip(pair, LABELS, strict=True)]  # fmt: skip


def prompt_row(text: str, label: str) -> Row:
    return {"prompt": text + SEPARATOR, "completion": f" {label}"}


def chat_row(text: str, label: str) -> Row:
    user = {"role": "user", "content": text + SEPARATOR}
    return {"messages": [SYSTEM, user, {"role": "assistant", "content": label}]}


def write(file: Path, rows: list[Row]) -> Path:
    file.write_text("".join(json.dumps(each) + "\n" for each in rows), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    """The SDK as it finds address and key in its environment.

    The key has the scopes that the guide names for a fine-tuning script, and for its questions.
    """
    data = tmp_path_factory.mktemp("service") / "data"
    scopes = [word for each in SCOPES for word in ("--scope", each)]
    made = subprocess.run(
        [Path(sys.executable).with_name("loraworks"), "keys", "create", "cookbook", *scopes,
         "--json", "--data-dir", str(data)],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    with loraworks_up(data, LORAWORKS_AUTH="on") as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_BASE_URL", f"{url}/openai/v1")
        patch.setenv("OPENAI_API_KEY", json.loads(made.stdout)["key"])
        with OpenAI() as client:
            yield client


def fine_tune(client: OpenAI, train: Path, valid: Path) -> FineTuningJob:
    """Upload both files, start the job, and return it when it has succeeded."""
    with train.open("rb") as train_opened, valid.open("rb") as valid_opened:
        train_file = client.files.create(file=train_opened, purpose="fine-tune")
        valid_file = client.files.create(file=valid_opened, purpose="fine-tune")
    job = client.fine_tuning.jobs.create(
        training_file=train_file.id, validation_file=valid_file.id, model="babbage-002"
    )
    assert job.status in ("validating_files", "queued", "running")
    wait_until(
        lambda: client.fine_tuning.jobs.retrieve(job.id).finished_at is not None,
        seconds=TRAINING_SECONDS,
        what="the end of the job",
    )
    done = client.fine_tuning.jobs.retrieve(job.id)
    assert (done.status, done.error) == ("succeeded", None)
    return done


def check_results(client: OpenAI, job: FineTuningJob) -> None:
    """The file of results is a CSV file whose last training accuracy is better than guessing."""
    result_file = client.files.retrieve(job.result_files[0])
    content = client.files.content(result_file.id).text
    assert len(content.encode()) == result_file.bytes
    lines = [row for row in csv.DictReader(io.StringIO(content)) if row["train_accuracy"]]
    assert float(lines[-1]["train_accuracy"]) > 0.7
    warnings = [
        each for each in client.fine_tuning.jobs.list_events(job.id) if each.level == "warn"
    ]
    assert any("babbage-002" in each.message for each in warnings)


@pytest.mark.slow
def test_prompts_and_completions(client: OpenAI, tmp_path: Path) -> None:
    rows = [prompt_row(*each) for each in labeled_texts()]
    train = write(tmp_path / "prepared_train.jsonl", rows[HELD_OUT:])
    valid = write(tmp_path / "prepared_valid.jsonl", rows[:HELD_OUT])
    job = fine_tune(client, train, valid)
    check_results(client, job)
    model = str(job.fine_tuned_model)

    first = rows[0]["prompt"] + SEPARATOR  # the prepared file has it already, and it is added again
    answer = client.completions.create(model=model, prompt=first, max_tokens=1, temperature=0)
    assert answer.choices[0].text.strip() in LABELS

    answer = client.completions.create(
        model=model, prompt=first, max_tokens=1, temperature=0, logprobs=2
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.top_logprobs is not None
    (top,) = logprobs.top_logprobs
    assert {token.strip() for token in top} == set(LABELS)
    assert sum(map(math.exp, top.values())) == pytest.approx(1, abs=1e-4)

    answers = client.completions.create(
        model=model, prompt=[row["prompt"] for row in rows[:HELD_OUT]], max_tokens=1
    )
    right = [row["completion"] == each.text
             for row, each in zip(rows[:HELD_OUT], answers.choices, strict=True)]  # fmt: skip
    assert sum(right) > 0.6 * HELD_OUT


@pytest.mark.slow  # the small form is in tests/worker/test_openai.py
def test_messages(client: OpenAI, tmp_path: Path) -> None:
    rows = [chat_row(*each) for each in labeled_texts()]
    train = write(tmp_path / "chat_train.jsonl", rows[HELD_OUT:])
    valid = write(tmp_path / "chat_valid.jsonl", rows[:HELD_OUT])
    job = fine_tune(client, train, valid)
    check_results(client, job)

    right = 0
    for row in rows[:HELD_OUT]:
        *prompt, expected = row["messages"]
        answer = client.chat.completions.create(
            model=str(job.fine_tuned_model),
            messages=prompt,
            max_tokens=10,
            temperature=0,
            logprobs=True,
            top_logprobs=2,
        )
        (choice,) = answer.choices
        right += choice.message.content == expected["content"]
        assert choice.logprobs is not None
        assert choice.logprobs.content is not None
        (token,) = choice.logprobs.content
        assert {each.token for each in token.top_logprobs} == set(LABELS)
        total = sum(math.exp(each.logprob) for each in token.top_logprobs)
        assert total == pytest.approx(1, abs=1e-4)
    assert right > 0.6 * HELD_OUT
