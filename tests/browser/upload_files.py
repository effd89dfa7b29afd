"""Files to upload: movie reviews, and support tickets with every problem that data checks find."""

import csv
import random
from collections.abc import Iterable, Sequence
from pathlib import Path

from lora_core.samples import reviews

ORDERS = ("My order", "The parcel", "The blue jacket", "My subscription", "The second invoice")
PROBLEMS = {
    "delivery": ("has not arrived yet", "was left with a neighbor", "is a week late"),
    "billing": ("was charged twice", "shows the wrong amount", "cannot be paid by card"),
    "returns": ("does not fit and goes back", "came back unopened", "is to be exchanged"),
}
WISHES = (
    "please look into it", "who can help", "this is urgent", "thank you in advance",
    "what happens now", "I need an answer today", "nobody has written back",
)  # fmt: skip


UNKNOWN_TOKEN = "\N{BLACK TELEPHONE} "  # not in the vocabulary of the sample base model


def write(path: Path, rows: Iterable[Sequence[str]], columns: Sequence[str]) -> Path:
    """Write a CSV file."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def write_reviews(path: Path, rows: int) -> Path:
    """Write the first movie reviews of the sample, half of each label."""
    sample = reviews.load_reviews("rotten-tomatoes")
    labels = ("negative", "positive")
    by_label = [[row for row in sample if row[1] == label][: rows // 2] for label in labels]
    return write(path, [row for pair in zip(*by_label, strict=True) for row in pair], COLUMNS)


COLUMNS = ("text", "label")


def write_tickets(path: Path) -> Path:
    """Write support tickets with three splits and one data problem of each kind."""
    rng = random.Random(7)
    rows = []
    for label, count in {"delivery": 100, "billing": 8, "returns": 4}.items():  # imbalanced
        texts = [f"{o} {p}, {w}." for o in ORDERS for p in PROBLEMS[label] for w in WISHES]
        splits = rng.choices(("train", "validation", "test"), (8, 1, 1), k=count)
        rows += [
            (t, label, split) for t, split in zip(rng.sample(texts, count), splits, strict=True)
        ]
    (one, *_), (two, *_), (three, *_) = rows[:3]
    rows += [(one, "delivery", "train")] * 4  # duplicates
    rows += [(f"{one} Thanks!", "delivery", "train")]  # a near duplicate
    rows += [(two, "delivery", "train"), (two, "delivery", "test")]  # a leak
    rows += [(three, "delivery", "train"), (three, "billing", "train")]  # conflicting labels
    rows += [
        (f"The box is lost, {wish}.", "Delivery", "train") for wish in WISHES
    ]  # a label that differs only by case
    rows += [("The parcel is late. " * 200, "delivery", "train")]  # truncated
    rows += [(UNKNOWN_TOKEN * 40 + wish, "delivery", "train") for wish in WISHES]  # unknown tokens
    rng.shuffle(rows)
    return write(path, rows, (*COLUMNS, "split"))
