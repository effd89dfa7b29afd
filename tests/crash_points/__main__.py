"""Kill and fail the service at every class of crash points, once, and check what is left.

    python -m tests.crash_points [--database sqlite|postgresql|both] [--only SCENARIO...]
        [--quick] [--fresh] [--check]

Each scenario is recorded first: which classes it passes, and its outcome. Then it runs once for
each class and fault. The process that was killed is started again, and its client goes on. Then
every invariant is checked, and the outcome is compared with the recorded one. What has run is kept
in `runs.jsonl`, so a run that was interrupted goes on where it was; one whose function has changed
since is repeated. `--quick` takes a fixed tenth. `--check` runs no fault; it lists the classes that
have passed no run, with any code. The last line is one JSON object.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

KEPT_RUNS = Path(__file__).with_name("runs.jsonl")
DATABASES = ("sqlite", "postgresql")
# No library may start a thread when it is loaded: this process forks.
_ENVIRONMENT = {
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run, and print what came of it. Returns 1 if a run is missing or has violated something."""
    arguments = _parser().parse_args(argv)
    began = time.monotonic()
    for name in [each for each in os.environ if each.startswith("LORAWORKS_")]:
        del os.environ[name]
    os.environ.update(_ENVIRONMENT)
    from tests.crash_points.testbed import KeptRuns, Run, import_everything, open_testbed, run_all

    import_everything()
    kept = KeptRuns(arguments.runs)
    wanted: list[Run] = []
    databases = DATABASES if arguments.database == "both" else (arguments.database,)
    options = {name: getattr(arguments, name) for name in ("only", "quick", "fresh", "check")}
    for database in databases:
        with open_testbed(database) as opened:
            wanted += run_all(opened, kept, **options)
    if arguments.database == "both" and not arguments.only and not arguments.check:
        kept.keep_only(wanted)
    chosen = [run for run in wanted if run.is_quick or not arguments.quick]
    passed = sum(kept.passed(run, any_code=arguments.check) for run in chosen)
    counts = {
        "classes": len({run.point for run in wanted}),
        "runs": passed,
        "violations": len(chosen) - passed,
        "seconds": round(time.monotonic() - began, 1),
    }
    sys.stdout.write(json.dumps(counts) + "\n")
    return 0 if passed == len(chosen) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.crash_points", description=__doc__)
    parser.add_argument("--database", choices=[*DATABASES, "both"], default="both")
    parser.add_argument("--only", nargs="+", default=(), metavar="SCENARIO")
    parser.add_argument("--quick", action="store_true", help="a fixed tenth of the runs")
    parser.add_argument("--fresh", action="store_true", help="also what has passed before")
    parser.add_argument("--check", action="store_true", help="only list what has passed no run")
    parser.add_argument("--runs", type=Path, default=KEPT_RUNS, help="where runs are kept")
    return parser


if __name__ == "__main__":
    sys.exit(main())
