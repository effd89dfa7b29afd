"""The benchmark with base and data of the hub, against a local fake."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hub_stand_in import HubStandIn
from tests.tiny_base import make_base, make_reviews

ROOT = Path(__file__).parents[2]
CELLS = """
import json
from benchmarks.reproduce import place
from benchmarks.reproduce.__main__ import main
print(json.dumps(place.hub_trouble()))
for row in ("best/0", "linear"):
    main(["--quick", "--cell", f"hub-35000/{row}"])
place.BASE = "org/nothing"
print(json.dumps(place.hub_trouble()))
"""


@pytest.mark.slow
def test_both_halves_of_the_hub_dataset_are_used(tmp_path: Path) -> None:
    make_base(tmp_path / "hub" / "models" / "distilbert-base-uncased")
    halves = tmp_path / "hub" / "datasets" / "stanfordnlp" / "imdb"
    halves.mkdir(parents=True)
    header, *lines = make_reviews(tmp_path / "reviews.csv").read_text().splitlines()
    for name, half in (("train", lines[:60]), ("test", lines[60:])):
        (halves / f"{name}.csv").write_text("\n".join([header, *half]) + "\n")
    cache = tmp_path / "cache"
    with HubStandIn(tmp_path / "hub") as hub:
        environment = {**os.environ, **hub.environment(tmp_path), "LORAWORKS_CACHE": str(cache)}
        done = subprocess.run(
            [sys.executable, "-c", CELLS],
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    trouble, best, linear, other_trouble = map(json.loads, done.stdout.splitlines())
    assert trouble is None
    assert other_trouble == "RepositoryNotFoundError"

    assert len((cache / "reproduce" / "imdb.jsonl").read_text().splitlines()) == 120
    assert best["settings"]["base"] == "distilbert-base-uncased"
    for metrics in (best, linear):
        assert (
            metrics["settings"]["data"]["source"] == "hub:stanfordnlp/imdb"
        )  # without a local path
        assert len(metrics["correct"]) == 24
        assert metrics["test"] == metrics["correct"].count("1") / 24
    assert best["data"] == linear["data"]
    # Two blocks of width 32: query and value, then both layers between 32 and 64, at rank 8.
    assert best["parameters"] == 2 * 8 * (2 * (32 + 32) + 2 * (32 + 64))
    assert best["steps"] == 9  # three epochs of 32 texts in batches of 12
