"""Runs the load generator in its own process."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from benchmarks.child_process import ROOT
from benchmarks.serve import checkpoint
from benchmarks.serve.arrivals import Visitors
from benchmarks.serve.outcomes import percentile
from benchmarks.serve.plan import CONNECTIONS, PATIENCE_SECONDS, SEED
from benchmarks.serve.target import Target

Phases = Sequence[tuple[float, float]]  # arrivals a second, seconds


def closed(target: Target, warm: float, seconds: float) -> dict[str, Any]:
    """Metrics of a closed loop of `CONNECTIONS`."""
    task = _task("closed", target) | {
        "connections": CONNECTIONS, "warm": warm, "seconds": seconds,
    }  # fmt: skip
    seen = finish(begin(task))
    waited = seen.pop("answers_ms")
    return {
        "per_s": len(waited) / seconds,
        "p50_ms": percentile(waited, 0.5),
        "p99_ms": percentile(waited, 0.99),
        **seen,
    }


def opened(target: Target, phases: Phases, visitors: Visitors, *, with_labels: bool = False) -> Any:
    """The task of an open loop, for `begin` and `finish`."""
    return _task("open", replace(target, patience=PATIENCE_SECONDS)) | {
        "phases": phases, "visitors": asdict(visitors), "patience": PATIENCE_SECONDS,
        "with_labels": with_labels,
    }  # fmt: skip


def begin(task: dict[str, Any]) -> "subprocess.Popen[str]":
    """Start it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.serve.load"],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(json.dumps(task))
    process.stdin.close()
    return process


def finish(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """Its results. Exits if it failed."""
    assert process.stdout is not None
    with process.stdout:
        line = process.stdout.read()
    if process.wait() != 0:
        sys.exit("the load generator failed")
    seen: dict[str, Any] = json.loads(line)
    return seen


def _task(kind: str, target: Target) -> dict[str, Any]:
    texts = str(checkpoint.texts())
    return {"kind": kind, "target": asdict(target), "texts": texts, "seed": SEED}
