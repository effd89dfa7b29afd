"""Change one expression at a time and count how often the tests notice.

    python -m tests.mutants [--sample 300] [--seed 0] [--fresh] [--only PATH...]
        [--processes 2]

Of all mutants of leases, idempotency, keys, checkpoints and layers, as many as `--sample` says are
drawn at random; the same seed draws the same ones, also after other files have changed. A mutant is
killed if one of the tests for its file fails or does not end. The results are kept in
results.jsonl. A mutant is run again if its file has changed; if it was killed, also if the file of
the test that failed has, otherwise if any of its tests has. The last line is one JSON object. A
mutant that behaves like the original is listed in equivalent.toml with the reason, and still counts
as one that was not killed in `killed_share`.
"""

import argparse
import json
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from lora_core.confidence_intervals import wilson_interval
from lora_core.process_settings import limit_openmp_spinning
from tests.mutants.mutations import Mutation, find_mutations
from tests.mutants.places import ROOT, digest_of_file, digest_of_tests, list_tests, mutated_files
from tests.mutants.trial import Copy, load_libraries

FOLDER = Path(__file__).parent
RESULTS, EQUIVALENT = FOLDER / "results.jsonl", FOLDER / "equivalent.toml"
LIMIT = 0.85  # of the killed share
START_SECONDS = 60.0  # added to three times what the tests take without a mutation
FIRST_SECONDS = 900.0  # for the tests without a mutation
NO_TESTS = 5  # exit status of pytest
PAUSE_SECONDS = 0.02


@dataclass(frozen=True)
class Result:
    """What became of a mutant."""

    mutant: str
    outcome: str  # killed, timeout, survived
    by: str  # the test that failed; "import" if the tests could not be loaded
    seconds: float
    source: str  # hash of the file
    tests: str  # hash of the tests for it
    killer: str  # hash of the file of the test that failed; empty without one

    @property
    def killed(self) -> bool:
        return self.outcome != "survived"


def main() -> int:
    arguments = _parser().parse_args()
    began = time.monotonic()
    everything = find_all()
    drawn = draw(everything, arguments.sample, arguments.seed)
    results = {} if arguments.fresh else _read_results()
    results = {m.name: r for m in drawn if (r := results.get(m.name)) and is_current(m, r)}
    only = tuple(arguments.only)
    waiting = [m for m in drawn if m.name not in results and m.path.startswith(only or "")]
    _say(f"{len(drawn)} of {len(everything)} mutants, {len(waiting)} to be run")
    if arguments.fresh:
        RESULTS.unlink(missing_ok=True)
    for mutation, result in _judge(waiting, arguments.processes):
        results[mutation.name] = result
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(result)) + "\n")
        _say(f"{len(results)}: {result.outcome} {result.seconds} s {mutation.name}")
    finished = [each for each in drawn if each.name in results]
    ordered = [results[each.name] for each in finished]
    RESULTS.write_text("".join(json.dumps(asdict(each)) + "\n" for each in ordered))
    equivalent = read_equivalent()
    for mutation, result in zip(finished, ordered, strict=True):
        if not result.killed and mutation.name not in equivalent:
            _say(f"survived: line {mutation.line} of {mutation.name}")
    summary = summarize(ordered, set(equivalent))
    sizes = {"mutants": len(everything), "seed": arguments.seed}
    seconds = round(time.monotonic() - began, 1)
    sys.stdout.write(json.dumps(summary | sizes | {"seconds": seconds}) + "\n")
    return 0 if summary["killed_share"] >= LIMIT else 1


def find_all() -> list[Mutation]:
    """Return every mutation."""
    return [m for path in mutated_files() for m in find_mutations(path, _source(path))]


def draw(mutations: Iterable[Mutation], count: int, seed: int) -> list[Mutation]:
    """Draw at random, in an order that depends on nothing but the seed and the names."""
    return sorted(mutations, key=lambda each: each.rank(seed))[:count]


def read_equivalent() -> dict[str, str]:
    """Return the mutants that behave like the original, with the reasons."""
    rows = tomllib.loads(EQUIVALENT.read_text(encoding="utf-8"))["equivalent"]
    return {row["mutant"]: row["reason"] for row in rows}


def summarize(results: list[Result], equivalent: set[str]) -> dict[str, float]:
    """Return the counts, and the killed share with its interval of 95%."""
    killed = sum(each.killed for each in results)
    same = sum(not each.killed and each.mutant in equivalent for each in results)
    share = killed / len(results)
    low, high = wilson_interval(share, len(results))
    return {
        "sample": len(results),
        "killed": killed,
        "killed_by_timeout": sum(each.outcome == "timeout" for each in results),
        "killed_by_import": sum(each.by == "import" for each in results),
        "survived": len(results) - killed - same,
        "equivalent": same,
        "killed_share": round(share, 4),
        "killed_share_low": round(low, 4),
        "killed_share_high": round(high, 4),
        "killed_share_without_equivalent": round(killed / max(1, len(results) - same), 4),
    }


def is_current(mutation: Mutation, result: Result) -> bool:
    """Whether the result still holds. What one test has killed needs no other test."""
    if result.source != digest_of_file(mutation.path):
        return False
    if result.killer:
        return result.killer == digest_of_file(result.by)
    return result.tests == digest_of_tests(mutation.path)


def _judge(mutations: list[Mutation], processes: int) -> Iterable[tuple[Mutation, Result]]:
    """Run the tests of each mutation, several at a time."""
    limit_openmp_spinning()  # before torch is loaded
    load_libraries()
    with tempfile.TemporaryDirectory(prefix="loraworks-mutants-") as folder:
        Path(folder).chmod(0o755)
        copies = [Copy(Path(folder) / str(number)) for number in range(processes)]
        limits: dict[frozenset[str], float] = {}  # by tests
        waiting, running = list(reversed(mutations)), dict[Copy, tuple[Mutation, float]]()
        while waiting or running:
            for copy in [each for each in copies if each not in running]:
                if waiting:
                    mutation = waiting.pop()
                    tests = list_tests(mutation.path)
                    if (key := frozenset(tests)) not in limits:
                        limits[key] = START_SECONDS + 3 * _seconds_without_mutation(copy, tests)
                    running[copy] = mutation, time.monotonic()
                    copy.start(mutation, tests, seconds=limits[key])
            for copy, (mutation, began) in list(running.items()):
                if (status := copy.poll()) is not None:
                    del running[copy]
                    yield mutation, _result(copy, mutation, status, time.monotonic() - began)
            time.sleep(PAUSE_SECONDS)


def _seconds_without_mutation(copy: Copy, tests: tuple[str, ...]) -> float:
    """Run the tests on the original, where they must succeed, and return the seconds."""
    began = time.monotonic()
    copy.start(None, tests, seconds=FIRST_SECONDS)
    while (status := copy.poll()) is None:
        time.sleep(PAUSE_SECONDS)
    failed, seconds = copy.clean_up(None), time.monotonic() - began
    if status != 0:
        raise SystemExit(f"Status {status} without a mutation: {failed}\n{copy.output()}")
    _say(f"{seconds:.0f} s without a mutation: {', '.join(tests[:3])}, …")
    return seconds


def _result(copy: Copy, mutation: Mutation, status: int, seconds: float) -> Result:
    failed = copy.clean_up(mutation)
    if status > NO_TESTS - 1:
        raise SystemExit(f"Status {status} with {mutation.name}:\n{copy.output()}")
    outcome = {0: "survived"}.get(status, "timeout" if status < 0 else "killed")
    by = failed or ("import" if outcome == "killed" else "")
    return Result(
        mutation.name,
        outcome,
        by,
        round(seconds, 1),
        source=digest_of_file(mutation.path),
        tests=digest_of_tests(mutation.path),
        killer=digest_of_file(by),
    )


def _read_results() -> dict[str, Result]:
    lines = RESULTS.read_text(encoding="utf-8").splitlines() if RESULTS.exists() else []
    return {result.mutant: result for line in lines if (result := Result(**json.loads(line)))}


def _source(path: str) -> bytes:
    return (ROOT / path).read_bytes()


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--sample", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fresh", action="store_true", help="run what has a result, too")
    parser.add_argument("--only", nargs="+", default=(), metavar="PATH", help="run only these")
    parser.add_argument("--processes", type=int, default=2)
    return parser


if __name__ == "__main__":
    sys.exit(main())
