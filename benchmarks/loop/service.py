"""How soon a real server has the next text and new suggestions, with 20,000 texts in the pool."""

import json
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.loop.plan import Cell
from lora_core.samples import minilm, reviews
from tests.browser.service import Service

TEXTS, QUICK_TEXTS = 20_000, 200
LABELS, QUICK_LABELS = 300, 30
REFRESH_LABELS = 10  # after which suggestions are fitted again
NAME = "bench"
PATIENCE, VECTOR_SECONDS = 60.0, 1800.0


def run(cell: Cell, *, quick: bool) -> dict[str, Any]:  # noqa: ARG001
    """Milliseconds of the routes, and seconds until suggestions know each tenth label."""
    hidden = dict(sentences(QUICK_TEXTS if quick else TEXTS))
    with (
        TemporaryDirectory(prefix="bench-loop-", ignore_cleanup_errors=True) as folder,
        serving(Path(folder)) as service,
    ):
        began = time.monotonic()
        create_project(service, Path(folder), [*hidden])
        ready_seconds = time.monotonic() - began
        found = label(service, hidden, QUICK_LABELS if quick else LABELS)
    return {"texts": len(hidden), "vectors_ready_s": round(ready_seconds, 1), **found}


def sentences(count: int) -> list[tuple[str, str]]:
    """Distinct sentences of film reviews with their sentiment, then two of one in a text."""
    single = list(dict(reviews.load_reviews("rotten-tomatoes")).items())
    random.Random(0).shuffle(single)  # noqa: S311 - the file begins with all positive ones
    double = (
        (f"{a} {b}", label)
        for distance in (1, 2, 3)
        for (a, label), (b, other) in zip(single, single[distance:], strict=False)
        if label == other
    )
    return [*single, *double][:count]


@contextmanager
def serving(folder: Path) -> Iterator[Service]:
    service = Service(folder / "installation")
    try:
        service.installation.worker()
        yield service
    finally:
        service.close()


def create_project(service: Service, folder: Path, texts: list[str]) -> None:
    """Upload the texts, and wait for their vectors."""
    file = folder / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    service.upload(file, NAME, purpose="predict")
    body = {"name": NAME, "dataset": NAME, "labels": ["negative", "positive"], "base": minilm.NAME}
    service.post("/v1/labeling", body)

    def is_ready() -> bool:
        vectors = service.get(f"/v1/labeling/{NAME}")["vectors"]
        assert vectors["state"] != "failed", vectors
        return bool(vectors["state"] == "ready")

    service.wait("the vectors", is_ready, seconds=VECTOR_SECONDS)


def label(service: Service, hidden: dict[str, str], count: int) -> dict[str, Any]:
    """Label one text after another, as one person does, without a pause."""
    next_ms, put_ms, refresh = [], [], []
    for number in range(1, count + 1):
        began = time.perf_counter()
        (text,) = service.post(f"/v1/labeling/{NAME}/next", {"count": 1})["texts"]
        answered = time.perf_counter()
        path = f"/v1/labeling/{NAME}/texts/{text['row']}"
        service.client.request_json("PUT", path, json={"label": hidden[text["text"]]})
        stored = time.perf_counter()
        next_ms.append(1000 * (answered - began))
        put_ms.append(1000 * (stored - answered))
        if number % REFRESH_LABELS == 0:
            seconds = wait_for_suggestions(service, number, stored)
            refresh += [] if seconds is None else [seconds]
    return {
        "labels": count,
        "next_ms_p50": round(median(next_ms), 2),
        "next_ms_p95": round(quantiles(next_ms, n=20)[-1], 2),
        "put_ms_p50": round(median(put_ms), 2),
        "suggest_s": round(median(refresh), 3) if refresh else None,
        "suggest_s_worst": round(max(refresh), 3) if refresh else None,
    }


def wait_for_suggestions(service: Service, labels: int, since: float) -> float | None:
    """Seconds until suggestions are fitted on this number of labels; None while there are none.

    Asking for the next text begins the fit, unless another one is running.
    """
    deadline = time.perf_counter() + PATIENCE
    while time.perf_counter() < deadline:
        service.post(f"/v1/labeling/{NAME}/next", {"count": 1})
        known = service.get(f"/v1/labeling/{NAME}")["suggestions_from"]
        if known is None and labels <= 2 * REFRESH_LABELS:
            return None  # perhaps there are not five texts of each label yet
        if known is not None and known >= labels:
            return time.perf_counter() - since
        time.sleep(0.02)
    raise SystemExit(f"suggestions did not know {labels} labels after {PATIENCE:.0f} s")
