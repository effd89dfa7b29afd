"""A training reaches its own files only, and the network only to download from the hub."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from app.database.engines import Database
from app.queue.enums import JobState
from app.queue.transitions import ProcessExitStatus
from app.sandbox import missing_confinement
from app.settings import Settings
from lora_core import confinement
from lora_core.confinement import TCP_ABI, denies_signals, landlock_abi
from tests.job_rows import add_job, get_state
from tests.waiting import wait_until
from tests.worker.scripted import scripted
from tests.worker.test_fork_server_supervisor import make_task
from tests.worker.test_job_runner import GOOD
from tests.worker.test_process import environment
from tests.worker.test_spawn import read_all_events, running_server
from worker import child_confinement, spawn
from worker.spawn import ChildProcess, ChildTask

HERE = Path(__file__).parent
REACH = HERE / "reach.py"
OWN = {
    *("write workspace", "list workspace", "move", "read input", "list input"),
    *("read cache", "write cache", "read samples", "write samples", "list samples"),
}
HUB = {
    *("read hub cache", "write hub cache", "list hub cache"),
    *("read linked hub", "write linked hub", "list linked hub"),
}
NETWORK = {"connect", "listen"}
SECRET = {
    *("read secret", "write secret", "list secret", "write input"),
    *("read attempt", "write attempt", "list attempt"),
    *("list cache", "write root of cache", "list root of cache"),
}


def network_namespaces_are_permitted() -> bool:
    return subprocess.run([sys.executable, confinement.__file__], check=False).returncode == 0


def missing_in_log() -> str:
    with capture_logs() as logged:
        missing_confinement.log_missing_confinement()
    return str(logged)


@pytest.fixture(params=["fresh", "forked"])
def spawn_child(request: pytest.FixtureRequest) -> Iterator[Callable[[ChildTask], ChildProcess]]:
    """Starts a process that runs `reach.py`, confined as a training is."""
    writable = child_confinement.WRITABLE
    scripted(f"run:{REACH}")
    child_confinement.WRITABLE = writable
    child_confinement.READABLE += (str(REACH),)
    if request.param == "fresh":
        yield spawn.spawn_child
        return
    server = running_server()
    yield server.spawn
    server.close()


@pytest.fixture
def reached(
    spawn_child: Callable[[ChildTask], ChildProcess],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., set[str]]:
    """Returns what a process has reached."""
    directories = {
        name: tmp_path / name for name in ("attempt", "input", "hub cache", "secret")
    } | {
        "root of cache": tmp_path / "cache",
        "cache": tmp_path / "cache" / "tokens",
        "linked hub": tmp_path / "hub cache" / "hub",
        "samples": tmp_path / "cache" / "samples",
    }
    for name in ("cache", "linked hub"):  # the operator has linked them to another disk
        (tmp_path / f"disk of {name}").mkdir()
        directories[name].parent.mkdir()
        directories[name].symlink_to(tmp_path / f"disk of {name}")
    for directory in directories.values():
        directory.mkdir(exist_ok=True)
        (directory / "file").touch()
    monkeypatch.setenv("LORAWORKS_CACHE", str(directories["root of cache"]))
    monkeypatch.setenv("HF_HOME", str(directories["hub cache"]))

    def run(*, from_hub: bool = False) -> set[str]:
        task = make_task(directories["attempt"], from_hub=from_hub)
        workspace = task.attempt_dir.workspace
        with socket.create_server(("127.0.0.1", 0)) as listener:
            places = {
                "directories": {name: str(path) for name, path in directories.items()}
                | {"workspace": str(workspace)},
                "port": listener.getsockname()[1],
            }
            task.attempt_dir.spec.write_text(json.dumps(places))
            child = spawn_child(replace(task, inputs=[directories["input"]]))
            read_all_events(child)
            assert child.kill_and_wait() == ProcessExitStatus(code=0), (
                task.attempt_dir.log.read_text()
            )
        return set(json.loads((workspace / "reached.json").read_text()))

    return run


def test_downloads_reach_the_network(reached: Callable[..., set[str]]) -> None:
    assert reached(from_hub=True) & NETWORK == NETWORK


# Which of these there are depends on the kernel, and their names say what it can do. As on an old
# one: python tests/worker/without_landlock.py .venv/bin/python -m pytest …
if landlock_abi():

    def test_training_is_confined_to_its_files(reached: Callable[..., set[str]]) -> None:
        assert reached() & (OWN | HUB | SECRET) == OWN

    def test_download_reaches_the_cache_of_the_hub(reached: Callable[..., set[str]]) -> None:
        assert reached(from_hub=True) & (OWN | HUB | SECRET) == OWN | HUB

else:

    def test_training_is_not_confined_without_landlock(reached: Callable[..., set[str]]) -> None:
        assert reached() & (OWN | HUB | SECRET) == OWN | HUB | SECRET
        assert "the kernel has no Landlock" in missing_in_log()


if landlock_abi() >= TCP_ABI:

    def test_only_downloads_reach_the_network(reached: Callable[..., set[str]]) -> None:
        assert reached() & NETWORK == set()

elif network_namespaces_are_permitted():

    def test_network_namespace_alone_cuts_off_the_network(
        reached: Callable[..., set[str]],
    ) -> None:
        assert "connect" not in reached()

else:

    def test_training_reaches_the_network_without_a_namespace(
        reached: Callable[..., set[str]],
    ) -> None:
        assert reached() & NETWORK == NETWORK
        assert "'denied': 'nothing'" in missing_in_log()


if denies_signals():

    def test_training_cannot_signal_the_worker(reached: Callable[..., set[str]]) -> None:
        assert "signal the worker" not in reached()

else:

    def test_old_landlock_lets_a_training_signal_the_worker(
        reached: Callable[..., set[str]],
    ) -> None:
        assert "signal the worker" in reached()
        logged = missing_in_log()
        assert "signals to processes" in logged or "the kernel has no Landlock" in logged


@pytest.mark.slow  # what is logged: the next test
def test_log_says_that_landlock_is_missing(
    database: Database, settings: Settings, tmp_path: Path
) -> None:
    """The kernel refuses the system calls here as one without Landlock does."""
    jobs = [add_job(database) for _ in range(2)]
    scripts = [str(HERE / name) for name in ("without_landlock.py", "worker_process.py")]
    log = tmp_path / "worker.log"
    with log.open("wb") as stderr:
        worker = subprocess.Popen(
            [sys.executable, scripts[0], sys.executable, scripts[1], *GOOD],
            stdin=subprocess.PIPE,
            stderr=stderr,
            env=environment(settings),
        )
    with worker:
        wait_until(lambda: {get_state(database, each) for each in jobs} == {JobState.SUCCEEDED})
        worker.send_signal(signal.SIGINT)
        assert worker.wait(20) == 0
    logged = log.read_text()
    assert logged.count("the kernel has no Landlock") == 1
    assert logged.count("network namespaces are not permitted") == 1


@pytest.mark.parametrize(
    ("abi", "signals", "permitted", "expected"),
    [
        (
            0,
            False,
            True,
            [{"needed": "Linux 5.13 or later, with landlock among its security modules (lsm=)"}],
        ),
        (2, False, True, [{"not_denied": ["truncating files", "signals to processes"]}]),
        (3, False, False, [{"not_denied": ["signals to processes"]}, {"denied": "nothing"}]),
        (6, False, True, [{"not_denied": ["signals to processes"]}]),  # RHEL 9
        (6, True, False, [{"denied": "TCP"}]),
        (6, True, True, []),
    ],
)
def test_log_says_what_is_not_denied(
    monkeypatch: pytest.MonkeyPatch,
    abi: int,
    *,
    signals: bool,
    permitted: bool,
    expected: list[dict[str, object]],
) -> None:
    monkeypatch.setattr(missing_confinement, "landlock_abi", lambda: abi)
    monkeypatch.setattr(missing_confinement, "denies_signals", lambda: signals)
    monkeypatch.setattr(missing_confinement, "_network_namespaces_are_permitted", lambda: permitted)
    with capture_logs() as logged:
        missing_confinement.log_missing_confinement()
    assert [{**line, **facts} for line, facts in zip(logged, expected, strict=True)] == logged


@pytest.mark.parametrize("variable", ["PYTHONPATH", "LD_LIBRARY_PATH", "HF_HOME"])
def test_log_says_that_trainings_can_read_the_data(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    with capture_logs() as logged:
        child_confinement.log_exposed_data(settings.data_dir)
        assert logged == []
        monkeypatch.setenv(variable, str(settings.data_dir.parent))
        child_confinement.log_exposed_data(settings.data_dir)
    [line] = logged
    assert line["data_dir"] == str(settings.data_dir)
    assert line["readable"] == str(settings.data_dir.parent)


def test_probe_tells_whether_network_namespaces_are_permitted() -> None:
    probe = [sys.executable, confinement.__file__]
    refused = [sys.executable, str(HERE / "without_landlock.py"), *probe]
    command = ["unshare", "--net", *(["--user"] if os.geteuid() else []), "true"]
    found = [subprocess.run(each, capture_output=True, check=False) for each in (probe, command)]
    assert [each.returncode == 0 for each in found] in ([True] * 2, [False] * 2)
    assert subprocess.run(refused, check=False).returncode == 1


def test_every_version_of_landlock_lets_a_process_work_in_its_directory(tmp_path: Path) -> None:
    """Rights that a kernel does not know are left out; so this one can stand for older ones."""
    code = (
        "import errno, os, sys; from pathlib import Path; from lora_core import confinement as c\n"
        "from lora_core.atomic_files import atomic_path\n"
        "code = (sys.prefix, sys.base_prefix, '/usr', '/lib', '/lib64')\n"
        "place, last = Path(sys.argv[1]), int(sys.argv[2])\n"
        "for abi in range(last + 1):\n"
        "    child = os.fork()\n"  # each one is confined once
        "    if not child: break\n"
        "    if os.waitpid(child, 0)[1]: sys.exit(f'version {abi} of Landlock')\n"
        "else: sys.exit()\n"
        "own = place / f'own-{abi}'\n"
        "allowed = c.Confinement(code, (), (str(own),), (), (), network=False)\n"
        "c.confine_process(allowed, abi=abi)\n"
        "with atomic_path(own / 'file.npy') as new: new.write_text('new')\n"
        "with atomic_path(own / 'directory') as new: new.mkdir(); (new / 'file').touch()\n"
        "assert sorted(each.name for each in own.iterdir()) == ['directory', 'file.npy']\n"
        "try: (own / 'file.npy').rename(own / 'directory' / 'file.npy')\n"
        "except OSError as error: print(abi, errno.errorcode[error.errno])\n"
        "else: print(abi, 'moved')\n"
        "try: place.joinpath('secret').read_text()\n"
        "except PermissionError: print(abi, 'denied')\n"
        "else: print(abi, 'allowed')\n"
    )
    (tmp_path / "secret").write_text("secret")
    last = landlock_abi()
    for abi in range(last + 1):
        (tmp_path / f"own-{abi}").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), str(last)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    expected = ""
    for abi in range(last + 1):
        moved = "EXDEV" if abi == 1 else "moved"  # between directories
        access = "denied" if abi else "allowed"
        expected += f"{abi} {moved}\n{abi} {access}\n"
    assert (done.stderr, done.stdout, done.returncode) == ("", expected, 0)
