"""Small files of texts with several labels, or with a number, that a tiny model can learn."""

import json
from pathlib import Path

import numpy as np

FILLER = ("the", "film", "plot", "a", "very", "was", "actor")
LABELS = ("dull", "fine", "great")  # each is a word of the texts that have it


def make_label_sets(path: Path, rows: int = 240) -> Path:
    """Write a JSONL file. `great` is rare; some texts have no label."""
    random = np.random.default_rng(0)
    lines = []
    for i in range(rows):
        chosen = [label for label, p in zip(LABELS, (0.5, 0.4, 0.15), strict=True)
                  if random.random() < p]  # fmt: skip
        words = [*random.choice(FILLER, size=4), *chosen, f"n{i}"]
        lines.append(json.dumps({"text": " ".join(random.permutation(words)), "label": chosen}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def make_numbers(path: Path, rows: int = 240) -> Path:
    """Write a CSV file of texts and stars, 100 to 102 for `fine` and `great`, with noise."""
    random = np.random.default_rng(1)
    lines = ["text,label"]
    for i in range(rows):
        chosen = [word for word in ("fine", "great") if random.random() < 0.5]
        words = [*random.choice(FILLER, size=4), *chosen, f"n{i}"]
        number = 100 + len(chosen) + random.normal(scale=0.1)
        lines.append(f"{' '.join(random.permutation(words))},{number:.3f}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def make_rare(path: Path) -> Path:
    """Write 600 texts with a rare label, which no word says for sure."""
    random = np.random.default_rng(0)
    rare = random.random(600) < 0.15
    hints = np.where(random.random(600) < 0.15, ~rare, rare)
    rows = [
        f"n{i} {'odd' if hint else 'usual'} film,{'rare' if label else 'common'}"
        for i, (hint, label) in enumerate(zip(hints, rare, strict=True))
    ]
    path.write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")
    return path
