"""The parser child process: its limits, and how each of its ends is reported."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.datasets.errors import DatasetParserCrashed
from app.datasets.files import FileInspector, SelectedColumns
from app.sandbox import runner
from app.settings import Settings
from app.storage.errors import StorageUnavailable
from lora_core.confinement import TCP_ABI, landlock_abi
from lora_core.errors.data import DataTooLarge, MalformedRow, MissingColumn
from tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("in_child")
COLUMNS = SelectedColumns("text", "label", None)


def limited(*limits: int, code: str, own: str = "") -> subprocess.CompletedProcess[str]:
    """`own` is a directory that it may use."""
    confinement = json.dumps(runner._confinement([], [Path(own)] if own else []))
    command = [sys.executable, "-m", "app.sandbox.limit_and_exec", *map(str, limits), confinement]
    return subprocess.run(
        [*command, sys.executable, "-c", code], capture_output=True, text=True, check=False
    )


def test_resource_limits_are_applied() -> None:
    code = "import resource as r; print([r.getrlimit(k) for k in (r.RLIMIT_AS, r.RLIMIT_CPU, "
    code += "r.RLIMIT_FSIZE, r.RLIMIT_CORE)])"
    done = limited(2**29, 7, 1000, code=code)
    assert done.stdout == f"{[(2**29,) * 2, (7, 8), (1000, 1000), (0, 0)]}\n", done.stderr


def test_memory_is_limited() -> None:
    done = limited(2**28, 10, 1000, code="bytearray(2**29)")
    assert done.returncode == 1
    assert "MemoryError" in done.stderr


def test_cpu_time_is_limited() -> None:
    done = limited(2**28, 1, 1000, code="while True: pass")
    assert done.returncode == -signal.SIGXCPU


def test_file_size_is_limited(tmp_path: Path) -> None:
    code = f"open({str(tmp_path / 'x')!r}, 'ab', 0).write(bytes(600)) and 0;" * 3
    done = limited(2**28, 10, 1000, code=code, own=str(tmp_path))
    assert "File too large" in done.stderr
    assert (tmp_path / "x").stat().st_size <= 1000


def test_the_network_is_unreachable_where_namespaces_are_allowed() -> None:
    command = ["unshare", "--net", *(["--user"] if os.geteuid() else []), "true"]
    allowed = subprocess.run(command, capture_output=True, check=False).returncode == 0
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        tcp = f"import socket; socket.create_connection({address!r}); print('connected')"
        assert subprocess.run([sys.executable, "-c", tcp], check=False).returncode == 0
        denied = allowed or landlock_abi() >= TCP_ABI
        assert limited(2**28, 10, 1000, code=tcp).stdout == ("" if denied else "connected\n")
    udp = "import socket as s; s.socket(s.AF_INET, s.SOCK_DGRAM).connect(('127.0.0.1', 9)); "
    done = limited(2**28, 10, 1000, code=f"{udp} print('connected')")
    assert done.stdout == ("" if allowed else "connected\n")
    assert ("Network is unreachable" in done.stderr) is allowed


# Which of these there are depends on the kernel, and their names say what it can do.
if landlock_abi():

    def test_child_reads_the_given_file_only(tmp_path: Path, settings: Settings) -> None:
        other, file = tmp_path / "other.csv", tmp_path / "file.csv"
        for each in (other, file):
            each.write_text("text,label\ngood,1\nbad,0\n")
        FileInspector(file, "file.csv", COLUMNS, settings).profile()
        limits = runner.SandboxLimits(settings.inspect_memory_mb, 60, 10**6)
        done = runner.run_lora_core_sandboxed(
            ["inspect", str(other)], limits=limits, readable=[file]
        )
        assert "PermissionError" in done.stderr
        assert done.returncode == 1

    def test_child_writes_to_its_own_directory_only(tmp_path: Path) -> None:
        own = tmp_path / "own"
        own.mkdir()
        code = f"open({str(own / 'x')!r}, 'w'); open({str(tmp_path / 'x')!r}, 'w')"
        assert "PermissionError" in limited(2**28, 10, 1000, code=code, own=str(own)).stderr
        assert [each.name for each in tmp_path.rglob("x")] == ["x"]
        assert (own / "x").exists()

else:

    def test_child_is_not_confined_to_its_files_without_landlock(tmp_path: Path) -> None:
        (own := tmp_path / "own").mkdir()
        (other := tmp_path / "other.csv").touch()
        code = f"open({str(other)!r}); open({str(tmp_path / 'x')!r}, 'w')"
        assert limited(2**28, 10, 1000, code=code, own=str(own)).stderr == ""
        assert (tmp_path / "x").exists()


def test_lone_surrogates_reach_the_service_as_question_marks(
    tmp_path: Path, settings: Settings
) -> None:
    """JSON can contain them, but UTF-8, in which the child answers, cannot."""
    file = tmp_path / "0197.jsonl"
    file.write_text('{"text": "a", "\\ud800": "b"}\n{"text": "a"}\n')
    with pytest.raises(MissingColumn, match=r"text, \?"):
        FileInspector(file, "films.jsonl", COLUMNS, settings).profile()
    layout = FileInspector(file, "films.jsonl", COLUMNS, settings).detect_columns()
    assert layout["columns"] == ["text", "?"]


def test_errors_have_the_file_name_of_the_client(tmp_path: Path, settings: Settings) -> None:
    file = tmp_path / "0197.csv"
    file.write_text('text,label\na,x\nb,y\n"c')
    with pytest.raises(MalformedRow, match=r"films\.csv, row 3") as raised:
        FileInspector(file, "films.csv", COLUMNS, settings).profile()
    assert raised.value.detail["row"] == 3
    with pytest.raises(MissingColumn, match="review"):
        FileInspector(
            file, "films.csv", SelectedColumns("review", "label", None), settings
        ).profile()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A valid file that needs more than a second and more than 256 MB."""
    file = tmp_path_factory.mktemp("large") / "large.csv"
    line = "word " * 40
    with file.open("w") as content:
        content.write("text,label\n")
        content.writelines(f"{line}{i},{i % 2}\n" for i in range(400_000))
    return file


@contextmanager
def child_of(work: Callable[[], object]) -> Iterator[int]:
    """Run `work` in a thread, and yield the process id of the parser that it starts."""
    with ThreadPoolExecutor(1) as pool:
        before = set(_children())
        running = pool.submit(work)
        deadline = time.monotonic() + 20
        while not (found := [pid for pid in set(_children()) - before if _is_parser(pid)]):
            assert time.monotonic() < deadline, "no parser was started"
            assert not running.done(), running.exception()
            time.sleep(0.01)
        yield found[0]
        running.result()


def _children() -> list[int]:
    tasks = Path("/proc/self/task").iterdir()
    return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]


def _is_parser(pid: int) -> bool:
    try:
        return b"\0inspect\0" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return False


def test_a_slow_parser_is_killed_with_its_children(large: Path, settings: Settings) -> None:
    short_timeout = settings.model_copy(update={"inspect_seconds": 0.3})
    before, started = _children(), time.monotonic()
    with pytest.raises(DataTooLarge, match=r"time needed to read it exceeds the limit of 0\.3 s"):
        FileInspector(large, "a.csv", COLUMNS, short_timeout).profile()
    assert time.monotonic() - started < 5
    assert _children() == before


def test_out_of_memory_is_reported(large: Path, settings: Settings) -> None:
    low_memory = settings.model_copy(update={"inspect_memory_mb": 256})
    with pytest.raises(DataTooLarge, match="exceeds the limit of"):
        FileInspector(large, "a.csv", COLUMNS, low_memory).profile()


@pytest.mark.parametrize(
    ("end", "error"), [(signal.SIGSEGV, DatasetParserCrashed), (signal.SIGKILL, DataTooLarge)]
)
def test_a_killed_parser_is_reported(
    large: Path, settings: Settings, end: signal.Signals, error: type[Exception]
) -> None:
    def work() -> None:
        with pytest.raises(error, match=r"a\.csv"):
            FileInspector(large, "a.csv", COLUMNS, settings).profile()

    with child_of(work) as pid:
        os.kill(pid, end)


def test_a_file_whose_disk_was_unmounted_may_come_back(tmp_path: Path, settings: Settings) -> None:
    inspector = FileInspector(tmp_path / "unmounted" / "a.csv", "a.csv", COLUMNS, settings)
    with pytest.raises(StorageUnavailable, match="disappeared"):
        inspector.profile()
    with pytest.raises(StorageUnavailable, match="disappeared"):
        inspector.extract_texts_to_jsonl(tmp_path / "texts.jsonl")


def test_the_parser_has_no_secrets_in_its_environment(
    large: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORAWORKS_PEPPER", "canary-of-32-characters-or-more-x")
    stop = threading.Event()
    short_timeout = settings.model_copy(update={"inspect_seconds": 5})

    def work() -> None:
        with pytest.raises((DataTooLarge, DatasetParserCrashed)):
            FileInspector(large, "a.csv", COLUMNS, short_timeout).profile()
        stop.set()

    with child_of(work) as pid:
        # The file is empty for a moment, during exec.
        environment = wait_until(Path(f"/proc/{pid}/environ").read_bytes)
        os.kill(pid, signal.SIGKILL)
    assert b"OMP_NUM_THREADS=1" in environment
    assert b"canary" not in environment
    assert stop.is_set()
