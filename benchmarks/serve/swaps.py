"""An alias that moves back and forth under load: only the version in responses may change."""

import json
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from benchmarks.serve import load_process, outcomes, plan, stage
from benchmarks.serve.arrivals import Visitors
from benchmarks.serve.plan import Size
from benchmarks.serve.target import Target, scores

NAME = "reviews"
VERSIONS = (f"{NAME}:1", f"{NAME}:2")  # the first is in production when it begins
SEEN_SECONDS = 1.0  # after a move, by when every response must be of the new version


class Move(NamedTuple):
    """Times on the monotonic clock, which is one for all processes."""

    requested: float
    done: float
    ref: str  # the target of the alias from then on


def run(size: Size, capacity: float) -> dict[str, Any]:
    """Move the alias under load; counts failed requests and moves."""
    with stage.ours(paths=[f"/models/{NAME}/predict"], second=True) as (_, side):
        labels = {ref: _labels(side.target, ref) for ref in VERSIONS}
        seconds = (plan.MOVES + 2) * size.move_seconds
        phases = [(plan.CALM * capacity, seconds)]
        load = load_process.begin(
            load_process.opened(side.target, phases, Visitors(), with_labels=True)
        )
        moves = list(_moves(side.target, size.move_seconds))
        seen = load_process.finish(load)
    samples, waits = seen["samples"], outcomes.waits(seen["samples"])
    wrong = failures(samples, seen["began"], moves, labels)
    return {
        "moves": len(moves),
        "questions": len(samples),
        "failures": wrong + plan.MOVES - len(moves),
        "p50_ms": outcomes.percentile(waits, 0.5),
        "p99_ms": outcomes.percentile(waits, 0.99),
        "statuses": outcomes.statuses(samples),
        "client_share_of_core": seen["client_share_of_core"],
    }


def failures(
    samples: Iterable[outcomes.Sample],
    began: float,
    moves: Sequence[Move],
    labels: dict[str, list[str]],
) -> int:
    """Requests without a response, or with a version that is not current, or with
    labels that are not this version's.
    """
    ends = [*(move.done for move in moves), float("inf")]
    begins = [float("-inf"), *(move.requested for move in moves)]
    meant = list(zip([VERSIONS[0], *(move.ref for move in moves)], begins, ends, strict=True))
    wrong = 0
    for at, ms, status, _, version, found in samples:
        until = began + at + ms / 1000
        requested = began + at - SEEN_SECONDS
        allowed = {ref for ref, begin, end in meant if begin <= until and requested <= end}
        wrong += status != 200 or version not in allowed or found != labels[version]
    return wrong


def _moves(target: Target, pause: float) -> Iterable[Move]:
    """Those that were carried out."""
    for number in range(plan.MOVES):
        time.sleep(pause)
        version = 2 - number % 2
        requested = time.monotonic()
        path = f"/v1/models/{NAME}/aliases/production"
        status, _, _ = target.send("PUT", path, json.dumps({"version": version}).encode())
        if status == 200:
            yield Move(requested, time.monotonic(), f"{NAME}:{version}")


def _labels(target: Target, ref: str) -> list[str]:
    status, _, answer = target.ask("It is loaded.", f"/models/{ref}/predict")
    assert status == 200, answer
    return sorted(scores(answer))
