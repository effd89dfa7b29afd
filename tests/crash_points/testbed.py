"""Installations in which a scenario runs, with a fault or without, and what is kept of each run."""

import gc
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pysqlite3.dbapi2 as sqlite

from app.database import migrations
from app.main import create_app
from app.resources import open_resources
from app.settings import Settings
from lora_core.fork_server import import_modules_without_threads
from lora_core.process_settings import limit_openmp_spinning
from tests.crash_points import invariants
from tests.crash_points.probe import CrashPoint, Fault, Injection, Probe
from tests.crash_points.processes import call_in_fork, fork_trainings
from tests.crash_points.scenarios import SCENARIOS, Inputs
from tests.crash_points.service import Service
from tests.crash_points.sites import hash_site
from tests.servers import PostgresServer, ValkeyServer
from tests.tiny_base import make_base, make_reviews

MOST_STARTS = 4  # of a process that dies once, or twice if its scenario kills it
QUICK_SHARE = 10
LOG_CHARACTERS = 3_000
_NEWEST_STATE = (
    "SELECT state FROM jobs ORDER BY state = 'running' DESC, state = 'queued' DESC,"
    " created_at DESC, id DESC LIMIT 1"
)

# What a commit may change that tells it from others of its function: (kind, key, state).
_STATES = """
    SELECT 'job', CAST(id AS VARCHAR(40)), state || CASE
        WHEN pause_requested_at IS NOT NULL AND state IN ('queued', 'running') THEN ' to pause'
        WHEN cancel_requested_at IS NOT NULL AND state IN ('queued', 'running') THEN ' to cancel'
        ELSE '' END FROM jobs
    UNION ALL SELECT 'checkpoint', key, CASE WHEN bad THEN 'bad' ELSE 'stored' END FROM checkpoints
    UNION ALL SELECT 'alias', CAST(a.model_id AS VARCHAR(40)) || a.alias,
        'to ' || CAST(v.number AS VARCHAR(10))
        FROM model_aliases a JOIN model_versions v ON v.id = a.version_id
    UNION ALL SELECT 'sweep', CAST(id AS VARCHAR(40)), CASE WHEN ready THEN state ELSE 'hidden' END
        FROM sweeps
    UNION ALL SELECT 'retraining', CAST(id AS VARCHAR(40)), state FROM retraining_runs
    UNION ALL SELECT 'delivery', CAST(id AS VARCHAR(40)), state FROM webhook_deliveries
"""


@dataclass(frozen=True, order=True)
class Run:
    """One fault at one class of crash points, in the scenario that passes it first."""

    database: str
    scenario: str
    point: CrashPoint
    fault: Fault

    @property
    def is_quick(self) -> bool:
        """Whether it is in the fixed tenth."""
        return int(sha256(json.dumps(asdict(self)).encode()).hexdigest(), 16) % QUICK_SHARE == 0


class KeptRun(NamedTuple):
    """What was wrong after a run, and the hash of the functions of its call site."""

    violations: list[str]
    code: int


class KeptRuns:
    """Runs and what came of them, one line each. Later lines replace earlier ones."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._runs: dict[Run, KeptRun] = {}
        for line in file.read_text().splitlines() if file.exists() else ():
            values = json.loads(line)
            self._runs[_run_of_json(values)] = KeptRun(values["violations"], values["code"])

    def passed(self, run: Run, *, any_code: bool = False) -> bool:
        """Whether a run violated nothing: with the code as it is, or with `any_code`."""
        kept = self._runs.get(run)
        if kept is None or kept.violations:
            return False
        return any_code or kept.code == hash_site(run.point.site)

    def add(self, run: Run, violations: list[str]) -> None:
        kept = self._runs[run] = KeptRun(violations, hash_site(run.point.site))
        with self._file.open("a") as file:
            file.write(_line(run, kept))

    def keep_only(self, runs: Iterable[Run]) -> None:
        """Write the file anew: these runs in order, without those of classes that are gone."""
        self._runs = {run: self._runs[run] for run in sorted(runs) if run in self._runs}
        self._file.write_text("".join(_line(*each) for each in self._runs.items()))


class Testbed:
    """Runs scenarios, each in an installation of its own."""

    def __init__(self, database: str, folder: Path) -> None:
        self.database = database
        self._folder = folder
        base = folder / "tiny"
        call_in_fork(partial(make_base, base), log=folder / "log")  # transformers starts a thread
        self._inputs = Inputs(
            base=base,
            reviews=make_reviews(folder / "reviews.csv", rows=120).read_bytes(),
            texts=_without_labels(folder / "reviews.csv"),
        )
        self._template = Settings(data_dir=folder / "template")
        migrations.upgrade(self._template)
        self._servers: tuple[PostgresServer, ValkeyServer] | None = None
        if database == "postgresql":
            self._servers = PostgresServer(), ValkeyServer()
            for server in self._servers:
                server.start()

    def close(self) -> None:
        for server in self._servers or ():
            server.remove()

    def record(self, name: str) -> tuple[list[CrashPoint], str]:
        """Return the classes that a scenario passes without a fault, and its outcome."""
        with self._installation(name) as (folder, settings):
            violations, outcome = self._play(name, folder, settings, injection=None)
            if violations:
                raise AssertionError(f"{name} without a fault: {violations}")
            lines = (folder / "passed.jsonl").read_text().splitlines()
        return sorted({CrashPoint.of_json(json.loads(line)) for line in lines}), outcome

    def run(self, run: Run, expected: str) -> list[str]:
        """Inject a fault; return what is wrong after the scenario has come to its end."""
        with self._installation(run.scenario) as (folder, settings):
            injection = Injection(run.point, run.fault, folder / "injected")
            violations, outcome = self._play(run.scenario, folder, settings, injection=injection)
            if not injection.marker.exists():
                violations.append("the crash point was not passed")
            if not violations and outcome != expected:
                violations.append(f"the outcome is not identical: {outcome}\nbut was {expected}")
            return violations

    def _play(
        self, name: str, folder: Path, settings: Settings, *, injection: Injection | None
    ) -> tuple[list[str], str]:
        log, result = folder / "log", folder / "result.json"
        run_scenario = partial(_run_scenario, name, settings, self._inputs, folder, injection)
        for _ in range(MOST_STARTS):
            status = call_in_fork(run_scenario, log=log)
            if status != -signal.SIGKILL:
                break
        if status != 0:
            return [
                f"exit status {status}\n{log.read_text(errors='replace')[-LOG_CHARACTERS:]}"
            ], ""
        outcome = result.read_text()
        status = call_in_fork(partial(_check, settings, result), log=log)
        if status != 0:
            return [f"cannot check: {log.read_text(errors='replace')[-LOG_CHARACTERS:]}"], outcome
        violations: list[str] = json.loads(result.read_bytes())
        return violations, outcome

    @contextmanager
    def _installation(self, name: str) -> Iterator[tuple[Path, Settings]]:
        folder = Path(tempfile.mkdtemp(prefix="run-", dir=self._folder))
        urls = {}
        if self._servers is not None:
            postgres, valkey = self._servers
            urls = {"database_url": postgres.new_database(), "broker_url": valkey.url()}
        settings = Settings(
            **{
                "data_dir": folder / "data",
                "allowed_hosts": ("testserver",),
                "base_dirs": (self._folder,),
                "engine": "torch-fp32",
                "devices": ("cpu",),
                "poll_seconds": 0.05,
                "reconcile_seconds": 0.1,
                "redispatch_seconds": 0.1,
                "retry_seconds": 0.0,
                "heartbeat_seconds": 1.0,
                "lease_seconds": 6.0,  # of a claim whose response was lost
                "checkpoint_seconds": 0.0,
                "min_free_bytes": 0,
                "keep_curve_points": "forever",
                "fork_server": False,
                "log_level": "WARNING",
                **urls,
                **SCENARIOS[name].settings,
            }
        )
        settings.data_dir.mkdir()
        if self._servers is None:
            shutil.copyfile(self._template.default_sqlite_path, settings.default_sqlite_path)
        try:
            yield folder, settings
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            if self._servers is not None:
                self._servers[0].drop(str(settings.database_url))
                self._servers[1].flush()


def _run_scenario(
    name: str, settings: Settings, inputs: Inputs, folder: Path, injection: Injection | None
) -> None:
    """Run a scenario to its end, in a process that may be killed."""
    os.environ["LORAWORKS_CACHE"] = str(folder / "cache")
    state = partial(_committed_state, settings)
    probe = Probe(state, log=folder / "passed.jsonl", injection=injection)
    fork_trainings(probe)
    probe.install()
    service = Service(settings, folder / "client.json")
    outcome = SCENARIOS[name].run(service, inputs)
    service.work()
    service.close()
    (folder / "result.json").write_text(json.dumps(outcome, sort_keys=True))


def _check(settings: Settings, result: Path) -> None:
    resources = open_resources(settings)
    try:
        result.write_text(json.dumps(invariants.check(resources)))
    finally:
        resources.close()


def _committed_state(settings: Settings, committing: Any) -> str:
    """Return the state of the running job, else of the queued one, else of the newest one. If
    `committing` is a connection, also what its transaction changes.
    """
    connection: Any
    if settings.database_url is None:
        connection = sqlite.connect(settings.default_sqlite_path)
    else:
        connection = psycopg.connect(settings.database_url)
    try:
        row = connection.execute(_NEWEST_STATE).fetchone()
        before = set() if committing is None else set(_rows(connection, _STATES))
    finally:
        connection.close()
    state = row[0] if row else "none"
    changes = set() if committing is None else set(_rows(committing, _STATES)) - before
    return ", ".join([state, *sorted({f"{kind} {value}" for kind, _, value in changes})])


def _rows(connection: Any, query: str) -> list[tuple[str, str, str]]:
    cursor = connection.cursor()
    try:
        cursor.execute(query)
        return [tuple(row) for row in cursor.fetchall()]
    finally:
        cursor.close()


def run_all(
    testbed: Testbed,
    kept: KeptRuns,
    *,
    only: Collection[str] = (),
    quick: bool = False,
    fresh: bool = False,
    check: bool = False,
) -> list[Run]:
    """Run what has not passed yet; return every run that there is. The options are those of the
    command line.
    """
    known: set[CrashPoint] = set()
    wanted = []
    for name in SCENARIOS:
        points, outcome = testbed.record(name)
        new = [point for point in points if point not in known]
        known.update(new)
        if only and name not in only:
            continue
        runs = [
            Run(testbed.database, name, point, fault)
            for point in new
            for fault in point.faults(testbed.database)
        ]
        wanted += runs
        say(f"{testbed.database} {name}: {len(new)} classes, {len(runs)} runs")
        for run in runs:
            if quick and not run.is_quick:
                continue
            if kept.passed(run, any_code=check) and not fresh:
                continue
            if check:
                say(f"not run: {run.point} {run.fault}")
                continue
            violations = testbed.run(run, outcome)
            kept.add(run, violations)
            if violations:
                say(f"VIOLATION {run}\n" + "\n".join(violations))
    return wanted


def import_everything() -> None:
    """Import what the forked processes need. Exits if that has started a thread."""
    limit_openmp_spinning()
    import_modules_without_threads()
    create_app(Settings())
    gc.disable()  # a collection in a fork would copy all of its memory
    gc.freeze()


@contextmanager
def open_testbed(database: str) -> Iterator[Testbed]:
    folder = Path(tempfile.mkdtemp(prefix="loraworks-crash-points-"))
    opened = Testbed(database, folder)
    try:
        yield opened
    finally:
        opened.close()
        shutil.rmtree(folder, ignore_errors=True)


def _without_labels(reviews: Path) -> bytes:
    rows = reviews.read_text(encoding="utf-8").splitlines()[1:41]
    return "\n".join(["text", *(row.rpartition(",")[0] for row in rows)]).encode()


def _run_of_json(values: dict[str, Any]) -> Run:
    point = CrashPoint.of_json(values)
    return Run(values["database"], values["scenario"], point, Fault(values["fault"]))


def _line(run: Run, kept: KeptRun) -> str:
    values = {
        "database": run.database,
        "scenario": run.scenario,
        **asdict(run.point),
        "fault": run.fault,
        "code": kept.code,
        "violations": kept.violations,
    }
    return json.dumps(values) + "\n"


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
