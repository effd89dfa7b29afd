"""How `python -m lora_core` and its parent process communicate.

The child reports events on standard output, and how it ended by its exit status. The parent asks it
to stop by SIGTERM or SIGINT. Standard input reaches EOF when the parent exits.
"""

import json
import os
import signal
import threading
from types import FrameType

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError

from lora_core.confinement import Confinement
from lora_core.process_settings import torchrun_world_size

# Exit statuses.
EXIT_FAILED = 65  # an error that a user can act on, reported by a `failed` event
EXIT_STOPPED = 75  # stopped on request

READY_MESSAGE = b"ready"  # from a fork server, once it accepts requests

# Option.
EXIT_WITH_PARENT_OPTION = "--exit-with-parent"


MAX_REQUEST_BYTES = 2**17  # of a `ForkRequest` as JSON


class ForkRequest(BaseModel):
    """What a worker sends to its fork server for each process; see `fork_server`."""

    arguments: list[str]  # of `python -m lora_core`
    directory: str  # the working directory
    environment: dict[str, str]  # the whole environment of the process
    parent: int  # pid of the worker, which becomes the parent of the process
    confinement: Confinement


def format_json_line(value: BaseModel) -> str:
    """Return a line of the child's output, without its end.

    Lone surrogates, which JSON files can contain and UTF-8 cannot, become question marks.
    """
    try:
        return value.model_dump_json(ensure_ascii=True)
    except PydanticSerializationError:
        text = json.dumps(value.model_dump(mode="json"), ensure_ascii=False)
        return json.dumps(json.loads(text.encode("utf-8", "replace")))


class ParentStopSignal:
    """The connection to the parent process: a stop signal, which the training loop polls."""

    def __init__(self) -> None:
        self._requested = False

    def requested(self) -> bool:
        return self._requested

    def install_signal_handlers(self) -> None:
        """Stop at the next step on SIGTERM or SIGINT; a second signal ends the process at once.

        Under `torchrun` a second signal is ignored: torchrun forwards a signal that the process may
        have received itself, and sends SIGKILL if the process takes too long.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def start_exit_on_parent_eof(self) -> None:
        """Exit at once at EOF of standard input: then there is no parent to take the result."""
        threading.Thread(target=self._read_stdin, name="parent-connection", daemon=True).start()

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        alone = torchrun_world_size() == 1
        signal.signal(number, signal.SIG_DFL if alone else signal.SIG_IGN)
        self._requested = True

    def _read_stdin(self) -> None:
        # Not through `sys.stdin`: a thread that holds its lock makes the interpreter abort at exit.
        while os.read(0, 4096):
            pass
        os._exit(EXIT_STOPPED)
