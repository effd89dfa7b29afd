"""Texts per second of a linear model over HTTP: `python -m benchmarks.linear`.

A model trained on Rotten Tomatoes, served by `loraworks up`; a separate process sends sentences,
32 in a body, and each connection sends the next after a response. The result is kept in
`benchmarks/results/`. Ends with one JSON object.
"""

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from app.database import migrations
from app.resources import open_resources
from app.settings import Settings
from benchmarks.options import parser
from benchmarks.results_file import choose
from benchmarks.serve import load_process
from benchmarks.serve.installation import publish
from benchmarks.serve.outcomes import percentile
from benchmarks.serve.server_process import free_port, running
from benchmarks.serve.target import Target
from benchmarks.silent import NeverStop
from lora_core.data.load import load_splits
from lora_core.events import NullObserver
from lora_core.specs.data import DataSpec
from lora_core.specs.method import LinearSpec
from lora_core.specs.train import TrainSpec
from lora_core.training import linear

SPEC = TrainSpec(method=LinearSpec(), data=DataSpec(source="rotten-tomatoes"))
NAME = "reviews"
TEXTS = 32  # in a body
CONNECTIONS = 4
WARM_SECONDS = 3.0
SECONDS, QUICK_SECONDS = 20.0, 2.0  # measured


def bodies() -> list[list[str]]:
    """All sentences of the test split, in bodies of `TEXTS`."""
    texts = [example.text for example in load_splits(SPEC.data).test]
    return [texts[i : i + TEXTS] for i in range(0, len(texts) - TEXTS + 1, TEXTS)]


def install(folder: Path) -> dict[str, Any]:
    """Train the model and promote it to production; returns its summary."""
    trained = folder / "trained"
    summary = linear.train_linear(SPEC, out_dir=trained, observer=NullObserver(), stop=NeverStop())
    settings = Settings(data_dir=folder / "data")
    settings.data_dir.mkdir()
    migrations.upgrade(settings)
    resources = open_resources(settings)
    try:
        publish(resources, trained, NAME)
    finally:
        resources.close()
    return summary


def measure(folder: Path, requests: Sequence[Sequence[str]], seconds: float) -> dict[str, Any]:
    """What `CONNECTIONS` receive within `seconds`."""
    lines = folder / "bodies.jsonl"
    lines.write_text("".join(json.dumps(texts) + "\n" for texts in requests), encoding="utf-8")
    target = Target(free_port())
    words = [sys.executable, "-m", "app.cli.main", "up", "--port", str(target.port)]
    with running([*words, "--data-dir", str(folder / "data")], {}, folder) as server:
        server.wait_until_it_answers(target, requests[0][0])
        spent = server.cpu_seconds()
        seen = load_process.finish(
            load_process.begin(
                {
                    "kind": "closed",
                    "target": asdict(target),
                    "texts": str(lines),
                    "seed": 0,
                    "connections": CONNECTIONS,
                    "warm": WARM_SECONDS,
                    "seconds": seconds,
                }
            )
        )
        spent = server.cpu_seconds() - spent
    waited = seen["answers_ms"]
    return {
        "texts_per_s": round(TEXTS * len(waited) / seconds, 1),
        "p50_ms": percentile(waited, 0.5),
        "p99_ms": percentile(waited, 0.99),
        "statuses": seen["statuses"],
        "server_cores": round(spent / (WARM_SECONDS + seconds), 3),
        "client_share_of_core": round(seen["client_share_of_core"], 3),
    }


def install_and_measure(seconds: float) -> dict[str, Any]:
    """What a service with a new model answers, and how the model was trained."""
    with tempfile.TemporaryDirectory(prefix="loraworks-bench-") as work:
        summary = install(Path(work))
        measured = measure(Path(work), bodies(), seconds)
    about = {name: summary[name] for name in ("terms", "train_seconds", "total_seconds")}
    return {**measured, **about, "test_accuracy": summary["test"]["accuracy"]}


def main() -> None:
    arguments = parser(__doc__, None, quick=f"for {QUICK_SECONDS:g} seconds").parse_args()
    results = choose(arguments.results, quick=arguments.quick, fresh=arguments.fresh, what="linear")
    seconds = QUICK_SECONDS if arguments.quick else SECONDS
    results.ensure("http", lambda: install_and_measure(seconds))
    print(json.dumps(results.metrics("http") | results.where()))


if __name__ == "__main__":
    main()
