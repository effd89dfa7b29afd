"""Files that a reader has before a document starts."""

import csv
import json
from pathlib import Path

from lora_core import manifest
from lora_core.artifact_base_sharing import BASE_DIGEST, assemble_complete_artifact
from tests.docs.blocks import ROOT

CLONED = (".venv", "Makefile", "benchmarks", "constraints.txt", "docs", "pyproject.toml", "tests")
REVIEWS = """text,label,mood
A warm and funny film.,positive,good
Two hours that I shall not get back.,negative,bad
"""
SPEC = {
    "method": {"type": "lora"},
    "data": {"train_size": 40, "validation_size": 20, "test_size": 20},
    "optim": {"epochs": 1},
}


def make_checkout(folder: Path) -> Path:
    """A clone made of symlinks, with the folders that documents use."""
    folder.mkdir()
    for name in CLONED:
        (folder / name).symlink_to(ROOT / name)
    return folder


def chat_row(text: str, answer: str, **fields: str) -> str:
    """A line of a file for fine-tuning at OpenAI."""
    question = f"Which topic is this message about? {text}"
    messages = [
        {"role": "system", "content": "You sort the mail of a shop."},
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer},
    ]
    return json.dumps({"messages": messages, **fields}) + "\n"


def chat_files(docs: Path) -> dict[str, str]:
    """A training file, texts, and answers of the old model, every seventh of which is wrong."""
    with (docs / "tickets.csv").open(encoding="utf-8") as file:
        training = [(row["text"], row["label"].lower()) for row in csv.DictReader(file)][::2]
    with (docs / "more-tickets.csv").open(encoding="utf-8") as file:
        others = [(row["text"], row["label"]) for row in csv.DictReader(file)]
    wrong = {"billing": "shipping", "shipping": "technical", "technical": "billing"}
    answers = [wrong[label] if i % 7 == 0 else label for i, (_, label) in enumerate(others)]
    return {
        "train.jsonl": "".join(chat_row(*each) for each in training),
        "texts.txt": "".join(f"{text}\n" for text, _ in others[:5]),
        "answers.jsonl": "".join(
            chat_row(text, answer, label=label)
            for (text, label), answer in zip(others, answers, strict=True)
        ),
    }


def label_objects(docs: Path) -> str:
    """Return a file for Mistral's classifier factory, with a topic and a flag for questions."""
    with (docs / "tickets.csv").open(encoding="utf-8") as file:
        rows = [(row["text"], row["label"].lower()) for row in csv.DictReader(file)][::2]
    lines = (
        {"text": text, "labels": {"topic": topic, "flags": ["question"] if "?" in text else []}}
        for text, topic in rows
    )
    return "".join(json.dumps(line) + "\n" for line in lines)


def make_files(folder: Path) -> None:
    """The reader's own files that documents mention without creating them."""
    tickets = (folder / "docs/tickets.csv").read_text(encoding="utf-8").replace(",B", ",b")
    files = {
        "reviews.csv": REVIEWS,
        "tickets.csv": tickets,
        "inbox.csv": tickets,
        "run.json": json.dumps(SPEC),
        "spec.json": json.dumps(SPEC),
        **chat_files(folder / "docs"),
        "classifier.jsonl": label_objects(folder / "docs"),
    }
    for name, text in files.items():
        if not (folder / name).exists():
            (folder / name).write_text(text, encoding="utf-8")
    store = folder / "data/artifacts"
    bases = {
        manifest.file_sha256(each / manifest.MANIFEST_FILE): each
        for each in store.glob("bases/*/a*")
    }
    for artifact in store.glob("jobs/*/a*"):  # of any job, except a linear model
        if (artifact / "linear.json").exists():
            continue
        base = bases.get(manifest.read(artifact).get(BASE_DIGEST, ""))
        if base is None:
            (folder / "model").symlink_to(artifact)
        else:
            assemble_complete_artifact(artifact, base, folder / "model")
        return
