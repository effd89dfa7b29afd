"""One cell of the benchmark, in its own process. Torch is loaded where it is needed only."""

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from statistics import fmean
from typing import Any

from benchmarks.serve import (
    checkpoint,
    load_process,
    outcomes,
    plan,
    server_metrics,
    sides,
    stage,
    swaps,
)
from benchmarks.serve.arrivals import Visitors
from benchmarks.serve.connection import Connection
from benchmarks.serve.outcomes import percentile
from benchmarks.serve.plan import Size
from benchmarks.serve.server_process import Server
from benchmarks.serve.sides import Side
from benchmarks.serve.target import Target, scores
from lora_core.process_settings import available_cores

KINDS = 8  # of adapters: enough to cover all ranks and all sets of targets
BLOCK = 20  # requests in a row before the engine alone has its turn
VISITORS = Visitors(plan.KEYS, plan.GREEDY, plan.HANG_UPS, plan.HANG_UP_SECONDS)


def run(cell: str, size: Size, capacity: float) -> dict[str, Any]:
    """Metrics of a cell named in `plan.CELLS`.

    Capacity: responses per second of the closed loop, for the cells that take a share of it.
    """
    return _metrics(cell, size, capacity) | {"cores": available_cores()}


def _metrics(cell: str, size: Size, capacity: float) -> dict[str, Any]:
    kind, _, name = cell.partition("-")
    match kind:
        case "closed":
            return _closed(name, size)
        case "float32":
            return _closed(name, size, precision="float32")
        case "plain":
            tuning = sides.plain(name)
            staged = stage.competitor(name, tuning)
            return {"tuning": tuning, **_measured(staged, size, size.plain_seconds)}
        case "open":
            return _open(float(name), size, capacity)
        case "swaps":
            return swaps.run(size, capacity)
        case "adapters":
            return _adapters(size)
        case "single":
            return _single(size)
        case "engines":
            return _engines(size)
    return _offline(size)


def _offline(size: Size) -> dict[str, Any]:
    import torch

    from benchmarks.serve import engine
    from benchmarks.train import peak

    predictor = engine.load(checkpoint.artifact())
    texts = checkpoint.read_texts(20 * engine.AT_ONCE)
    found = engine.offline(predictor, texts, size.offline_seconds)
    dtype = torch.bfloat16 if predictor.engine.name.endswith("bf16") else torch.float32
    torch.set_num_threads(available_cores())
    return found | {"engine": predictor.engine.name, "peak_gflops": peak.best(dtype, 1.0)}


def _engines(size: Size) -> dict[str, Any]:
    from benchmarks.serve import engine

    texts = checkpoint.read_texts(size.compared_texts)
    return {"engines": engine.compare(checkpoint.artifact(), texts, size.single_texts)}


def _closed(name: str, size: Size, precision: str | None = None) -> dict[str, Any]:
    """Ours with its defaults, a competitor with its best settings, in a given precision if any."""
    if name == "ours":
        engine = "auto" if precision is None else "onednn-fp32"
        return _measured(stage.ours(engine=engine), size, size.closed_seconds)
    tunings = sides.tunings(name, precision)[: size.tunings]
    tried = {each: _tried(name, each, size) for each in tunings} if len(tunings) > 1 else {}
    best = max(tunings, key=lambda tuning: tried.get(tuning, 0.0))
    measured = _measured(stage.competitor(name, best), size, size.closed_seconds)
    return {"tried": tried, "tuning": best, **measured}


def _tried(name: str, tuning: str, size: Size) -> float:
    """Responses per second in a short window."""
    with stage.competitor(name, tuning) as (_, side):
        found: float = load_process.closed(side.target, size.warm_seconds, size.try_seconds)[
            "per_s"
        ]
    return found


def _measured(
    staged: AbstractContextManager[tuple[Server, Side]], size: Size, seconds: float
) -> dict[str, Any]:
    with staged as (server, side):
        return {
            **load_process.closed(side.target, size.warm_seconds, seconds),
            "agreement": _agreement(side),
            "engine": _loaded(side.target, side.target.paths[0]),
            "rss_mb": server.rss_mb(),
            "libraries": sides.libraries(side.python),
        }


def _single(size: Size) -> dict[str, Any]:
    """One request at a time over HTTP, and the forward pass alone, in turn.

    To tell what of the difference is an idle processor: also the forward pass after a pause as long
    as what a request needs besides it, and a request that does nothing after one as long as the
    forward pass.
    """
    from benchmarks.serve import engine

    texts = checkpoint.read_texts(size.single_texts)
    http: list[float] = []
    bare: list[float] = []
    paused: list[float] = []
    nothing: list[float] = []
    with stage.ours() as (_, side):
        target, predictor = side.target, engine.load(checkpoint.artifact())
        nothings = [f"GET /livez HTTP/1.1\r\nHost: {target.host}\r\n\r\n".encode()] * BLOCK
        before = server_metrics.read_sums(target)
        for start in (0, *range(0, len(texts), BLOCK)):  # the first block warms up
            block = texts[start : start + BLOCK]
            requests = [target.request(json.dumps(text).encode(), "/predict") for text in block]
            http += asyncio.run(one_by_one(target, requests))
            bare += engine.one_by_one(predictor, block)
            paused += engine.one_by_one(predictor, block, pause=0.005)
            nothing += asyncio.run(one_by_one(target, nothings, pause=0.02))
        stages = server_metrics.mean_stages_ms(before, server_metrics.read_sums(target))
    took = {"http": http, "bare": bare, "paused": paused, "nothing": nothing}
    took = {name: each[BLOCK:] for name, each in took.items()}
    return {
        **{f"{name}_ms_p50": percentile(each, 0.5) for name, each in took.items()},
        **{f"{name}_ms_p99": percentile(each, 0.99) for name, each in took.items()},
        **{f"{name}_ms_mean": fmean(each) for name, each in took.items()},
        "stages_ms_mean": stages,
        "engine": predictor.engine.name,
    }


def _open(rate: float, size: Size, capacity: float) -> dict[str, Any]:
    seconds, top = size.open_seconds, rate == max(plan.RATES)
    phases = [(rate * capacity, seconds)]
    phases += [(plan.CALM * capacity, size.recovery_seconds)] * top
    with stage.ours(keys=plan.KEYS) as (server, side):
        load_process.closed(side.target, size.warm_seconds, 0.1)
        before, lags = server.rss_mb(), server_metrics.read_lags(side.target)
        seen = load_process.finish(
            load_process.begin(load_process.opened(side.target, phases, VISITORS))
        )
        after = server.rss_mb()
        late_ms = server_metrics.percentile_ms(lags, server_metrics.read_lags(side.target), 0.99)
    samples = [each for each in seen["samples"] if each[0] < seconds]
    waits = outcomes.waits(samples)
    found = {
        "rate_per_s": rate * capacity,
        "p50_ms": percentile(waits, 0.5),
        "p99_ms": percentile(waits, 0.99),
        "goodput_per_s": outcomes.goodput(samples, seconds),
        "refusal_ms_p99": percentile(outcomes.refusals(samples), 0.99),
        "event_loop_lag_ms_p99": late_ms,
        "greedy_answered": outcomes.answered_share(each for each in samples if each[3] == 0),
        "others_answered": outcomes.answered_share(each for each in samples if each[3] != 0),
        "statuses": outcomes.statuses(seen["samples"]),
        "rss_before_mb": before,
        "rss_after_mb": after,
        "client_share_of_core": seen["client_share_of_core"],
    }
    rest = [each[:3] for each in seen["samples"] if each[0] >= seconds]
    return found | ({"overload_seconds": seconds, "recovery": rest} if top else {})


def _adapters(size: Size) -> dict[str, Any]:
    """Closed loop on one adapter of many, then on all of them at random, in one server."""
    paths = [f"/models/adapter-{number}/predict" for number in range(plan.ADAPTERS)]
    with stage.ours(paths=paths, adapters=plan.ADAPTERS) as (server, side):
        engines = {_loaded(side.target, path) for path in paths}
        alone = []
        for path in paths[:KINDS]:
            one = Target(side.target.port, (path,))
            alone.append(
                load_process.closed(one, size.warm_seconds, size.closed_seconds / KINDS)["per_s"]
            )
        mixed = load_process.closed(side.target, size.warm_seconds, size.closed_seconds)
        rss = server.rss_mb()
    share = mixed["per_s"] / fmean(alone)
    engine = ", ".join(sorted(engines))
    return {"share": share, "alone": alone, "all": mixed, "rss_mb": rss, "engine": engine}


def _loaded(target: Target, path: str) -> str:
    """What computes the model behind a path, once it is loaded."""
    status, headers, answer = target.ask("It is loaded.", path)
    assert status == 200, answer
    return headers.get("X-Engine", "")


async def one_by_one(
    target: Target, requests: Sequence[bytes], *, pause: float = 0.0
) -> list[float]:
    """Milliseconds of each, over one connection, `pause` seconds apart."""
    connection = await Connection.to(target.host, target.port)
    took = []
    for request in requests:
        time.sleep(pause)
        began = time.perf_counter()
        answer = await connection.ask(request)
        took.append((time.perf_counter() - began) * 1000)
        assert answer is not None
        assert answer.status == 200, answer
    connection.leave()
    return took


def _agreement(side: Side) -> float:
    """The share of kept texts that get the label which transformers predicts in float32."""
    expected = checkpoint.expected_labels(side.model)
    labels = list(json.loads((side.model / "config.json").read_text())["id2label"].values())
    right = 0
    for text, label in expected:
        _, _, answer = side.target.ask(text)
        given = scores(answer, labels)
        right += max(given, key=lambda label: given[label]) == label
    return right / len(expected)
