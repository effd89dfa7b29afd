"""Tries what a training process may and may not reach, and writes what it reached.

The spec of its attempt names the directories and the port to try.
"""

import json
import os
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

PLACES = json.loads(Path("..", "spec.json").read_text())


def actions() -> Iterator[tuple[str, Callable[[], object]]]:
    for name in PLACES["directories"]:
        yield f"read {name}", Path(PLACES["directories"][name], "file").read_bytes
        yield f"write {name}", Path(PLACES["directories"][name], "new").touch
        yield f"list {name}", partial(os.listdir, PLACES["directories"][name])
    yield "move", move_between_directories
    yield "connect", lambda: socket.create_connection(("127.0.0.1", PLACES["port"]), 5).close()
    yield "listen", lambda: socket.create_server(("127.0.0.1", 0)).close()
    yield "signal the worker", lambda: os.kill(os.getppid(), 0)


def move_between_directories() -> None:
    Path("a", "b").mkdir(parents=True)
    Path("moved").touch()
    Path("moved").rename(Path("a", "b", "moved"))


def is_reached(action: Callable[[], object]) -> bool:
    try:
        action()
    except OSError:
        return False
    return True


Path("reached.json").write_text(json.dumps([name for name, act in actions() if is_reached(act)]))
