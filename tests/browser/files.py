"""Files that are uploaded: film reviews, tickets with every fault a doctor finds, broken ones."""

import csv
import random
from collections.abc import Iterable, Sequence
from pathlib import Path

from lora_core.samples import reviews

ORDERS = ("My order", "The parcel", "The blue jacket", "My subscription", "The second invoice")
PROBLEMS = {
    "delivery": ("has not arrived yet", "was left with a neighbour", "is a week late"),
    "billing": ("was charged twice", "shows the wrong amount", "cannot be paid by card"),
    "returns": ("does not fit and goes back", "came back unopened", "is to be exchanged"),
}
WISHES = (
    "please look into it", "who can help", "this is urgent", "thank you in advance",
    "what happens now", "I need an answer today", "nobody has written back",
)  # fmt: skip


SIGN = "\N{BLACK TELEPHONE} "  # the sample base does not know it


def write(path: Path, rows: Iterable[Sequence[str]], columns: Sequence[str]) -> Path:
    """A CSV file."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def write_reviews(path: Path, rows: int) -> Path:
    """The first sentences about films that are in the sample, half of each label."""
    sample = reviews.load("rotten-tomatoes")
    labels = ("negative", "positive")
    kinds = [[row for row in sample if row[1] == label][: rows // 2] for label in labels]
    return write(path, [row for pair in zip(*kinds, strict=True) for row in pair], COLUMNS)


COLUMNS = ("text", "label")


def write_tickets(path: Path) -> Path:
    """Tickets with three parts, and a fault of each kind planted."""
    draw = random.Random(7)
    rows = []
    for label, count in {"delivery": 100, "billing": 8, "returns": 4}.items():  # out of balance
        texts = [f"{o} {p}, {w}." for o in ORDERS for p in PROBLEMS[label] for w in WISHES]
        parts = draw.choices(("train", "validation", "test"), (8, 1, 1), k=count)
        rows += [(t, label, part) for t, part in zip(draw.sample(texts, count), parts, strict=True)]
    (one, *_), (two, *_), (three, *_) = rows[:3]
    rows += [(one, "delivery", "train")] * 4  # exact copies
    rows += [(f"{one} Thanks!", "delivery", "train")]  # a near one
    rows += [(two, "delivery", "train"), (two, "delivery", "test")]  # a leak
    rows += [(three, "delivery", "train"), (three, "billing", "train")]  # twins of two labels
    rows += [(f"The box is lost, {wish}.", "Delivery", "train") for wish in WISHES]  # a case twin
    rows += [("The parcel is late. " * 200, "delivery", "train")]  # will be cut
    rows += [(SIGN * 40 + wish, "delivery", "train") for wish in WISHES]  # unknown
    draw.shuffle(rows)
    return write(path, rows, (*COLUMNS, "split"))
