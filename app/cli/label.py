"""`loraworks label`: label texts in a terminal, one key for each label."""

import codecs
import math
import os
import re
import string
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeVar

import typer

from app.cli.errors import RequestRejected, ServiceUnreachableOrFailed, UsageError
from app.cli.labeling import (
    Annotator,
    Project,
    describe_label,
    describe_suggestion,
    describe_suggestion_accuracy,
)
from app.cli.options import with_client
from app.cli.output import print_line, print_warning

if TYPE_CHECKING:
    from app.cli.client import Client
    from app.labeling.schemas import LeasedText

UNDO, SKIP, NAME, QUIT = "z", "s", "?", "q"
CONFIRM = "\n\r"
STOP = "\x03\x04"  # Ctrl-C and Ctrl-D
LABEL_KEYS = [
    each for each in "123456789" + string.ascii_lowercase if each not in (UNDO, SKIP, QUIT)
]
PREFETCHED = 5  # texts that are fetched together
PROGRESS_EVERY = 10  # labels between two lines about the progress
RETRIES = 5
RETRY_SECONDS = 2.0
_ESCAPE_SEQUENCE = re.compile(r"\x1b(\[[0-9;]*[A-Za-z~]|.)?")  # of arrows and the like

_Result = TypeVar("_Result")


class KeyboardInput(Protocol):
    """Where keys come from."""

    def read_key(self) -> str:
        """Return the next key; one of `STOP` at the end."""

    def read_line(self, prompt: str) -> str:
        """Return a line that the user types, without surrounding white space."""


@with_client
def label(
    client: "Client",
    project: Project,
    annotator: Annotator = None,
    count: Annotated[
        int | None,
        typer.Option("--count", min=1, help="Stop after this many texts, including skipped ones."),
    ] = None,
) -> None:
    """Label texts in the terminal, one key for each label."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "labeling key by key needs a terminal; `loraworks labeling label` takes a label",
            "no_terminal",
        )
    with _keys_at_once() as terminal:
        labeling = TerminalLabelingLoop(client, terminal, project=project, annotator=annotator)
        labeling.run(count)
    print_line(
        f"You labeled or skipped {labeling.done:,} texts. `loraworks labeling export {project}` "
        "makes a dataset of the labels."
    )


@contextmanager
def _keys_at_once() -> Iterator["_TerminalKeys"]:
    """Read keys without waiting for a line, and without printing them."""
    import termios  # not on every system
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield _TerminalKeys(descriptor, before)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


class _TerminalKeys:
    """The keys of a terminal."""

    def __init__(self, descriptor: int, line_mode: list[Any]) -> None:
        self._descriptor, self._line_mode = descriptor, line_mode
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._pending: deque[str] = deque()

    def read_key(self) -> str:
        while not self._pending:
            read = os.read(self._descriptor, 64)
            if not read:
                return STOP[-1]
            self._pending.extend(_ESCAPE_SEQUENCE.sub("", self._decoder.decode(read)))
        return self._pending.popleft()

    def read_line(self, prompt: str) -> str:
        import termios
        import tty

        # Keys that came with the last one, for example pasted; `read_key` may see Enter as "\r".
        typed = "".join(self._pending).replace("\r", "\n")
        self._pending.clear()
        sys.stdout.write(prompt + "".join(typed.partition("\n")[:2]))
        sys.stdout.flush()
        termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._line_mode)
        try:
            while "\n" not in typed and (read := os.read(self._descriptor, 4096)):
                typed += self._decoder.decode(read)
        finally:
            tty.setcbreak(self._descriptor, termios.TCSADRAIN)  # keep what came meanwhile
        line, _, rest = typed.partition("\n")
        self._pending.extend(rest)
        return line.strip() if "\n" in typed else STOP[-1]


@dataclass
class TerminalLabelingLoop:
    """Labels texts one after the other."""

    client: "Client"
    terminal: KeyboardInput
    project: str
    annotator: str | None = None
    sleep: Callable[[float], None] = time.sleep
    done: int = 0
    _queue: "deque[LeasedText]" = field(default_factory=deque)
    _labeled: "list[LeasedText]" = field(default_factory=list)
    _stopped: bool = False

    def run(self, count: int | None = None) -> None:
        """Label until nothing is left, the user quits, or `count` texts are labeled or skipped."""
        self._load_project()
        while not self._stopped and (count is None or self.done < count):
            text = self._next_text()
            if text is None:
                print_line("Nothing is left to label, or others have the rest.")
                return
            self._show(text)
            self._label(text)

    def _load_project(self) -> None:
        view = self._retry(lambda: self.client.get_labeling_project(self.project))
        self._task = view.task.type
        self._labels = [each.name for each in view.labels]
        print_line(
            f"{view.labeled:,} of {view.texts:,} texts are labeled. "
            f"Accuracy so far: {describe_suggestion_accuracy(view)}."
        )

    def _next_text(self) -> "LeasedText | None":
        if not self._queue:
            leased = self._retry(
                lambda: self.client.lease_texts(self.project, PREFETCHED, self.annotator)
            )
            self._queue.extend(leased.texts)
        return self._queue.popleft() if self._queue else None

    def _show(self, text: "LeasedText") -> None:
        print_line("")
        for part in (text.text, text.text_pair):
            for line in (part or "").splitlines():
                print_line(line, style="bold")
        about = f"row {text.row:,}, chosen as {text.reason}"
        if (suggestion := describe_suggestion(text.suggestion)) is not None:
            about += f"; suggestion: {suggestion}"
        print_line(about, style="dim")
        for similar in text.nearest[:1]:
            print_line(f"similar: {describe_label(similar)}: {similar.text}", style="dim")

    def _label(self, text: "LeasedText") -> None:
        """Read keys until the text is labeled, skipped, or put back."""
        read = self._read_number if self._task == "regression" else self._read_labels
        if (body := read(text)) is None:
            return
        suggestion = text.suggestion
        suggested = None
        if suggestion is not None:
            suggested = next(
                each
                for each in (suggestion.label, suggestion.labels, suggestion.value)
                if each is not None
            )
        sent = {**body, "annotator": self.annotator, "suggested": suggested}
        self._retry(lambda: self.client.update_annotation(self.project, text.row, sent))
        self._labeled.append(text)
        self.done += 1
        if self.done % PROGRESS_EVERY == 0:
            self._load_project()

    def _read_labels(self, text: "LeasedText") -> dict[str, Any] | None:
        """Return the body of the label; None if there is none."""
        several, chosen = self._task == "multi_label", set[str]()
        self._print_keys(chosen)
        while True:
            key = self.terminal.read_key()
            if key in STOP or key == QUIT:
                self._stopped = True
                return None
            if key == UNDO:
                self._undo(text)
                return None
            if key == SKIP:
                return {"skipped": True}
            if several and key in CONFIRM:
                return {"labels": sorted(chosen)}
            name = self._read_name() if key == NAME else self._label_of(key)
            if name is None:
                continue
            if not several:
                return {"label": name}
            chosen ^= {name}
            self._print_keys(chosen)

    def _read_number(self, text: "LeasedText") -> dict[str, Any] | None:
        while True:
            line = self.terminal.read_line(f"number ({SKIP} skips, {UNDO} undoes, {QUIT} quits): ")
            if line in (*STOP, QUIT):
                self._stopped = True
                return None
            if line == UNDO:
                self._undo(text)
                return None
            if line == SKIP:
                return {"skipped": True}
            try:
                value = float(line)
            except ValueError:
                value = math.nan
            if math.isfinite(value):
                return {"value": value}
            print_warning(f"{line!r} is not a number.")

    def _label_of(self, key: str) -> str | None:
        index = LABEL_KEYS.index(key) if key in LABEL_KEYS else len(self._labels)
        return self._labels[index] if index < len(self._labels) else None

    def _read_name(self) -> str | None:
        """Return a label by its name, which is added if it is new."""
        name = self.terminal.read_line("label: ")
        if not name or name in STOP:
            return None
        if name not in self._labels:
            view = self._retry(lambda: self.client.add_project_labels(self.project, [name]))
            self._labels = [each.name for each in view.labels]
        return name

    def _undo(self, text: "LeasedText") -> None:
        """Delete the last label, and show its text again; `text` comes after it."""
        self._queue.appendleft(text)
        if not self._labeled:
            print_warning("There is nothing to undo.")
            return
        last = self._labeled.pop()
        try:
            self._retry(
                lambda: self.client.delete_annotation(self.project, last.row, self.annotator)
            )
        except RequestRejected as error:
            if error.code != "annotation_not_found":  # deleted by a request whose response was lost
                raise
        self.done -= 1
        self._queue.appendleft(last)

    def _print_keys(self, chosen: set[str]) -> None:
        keys = [
            f"[{key}] {'*' if name in chosen else ''}{name}"
            for key, name in zip(LABEL_KEYS, self._labels, strict=False)
        ]
        confirm = ["[Enter] done"] if self._task == "multi_label" else []
        rest = [f"[{SKIP}] skip", f"[{UNDO}] undo", f"[{NAME}] other label", f"[{QUIT}] quit"]
        print_line("  ".join([*keys, *confirm, *rest]), style="cyan")

    def _retry(self, call: Callable[[], _Result]) -> _Result:
        """Repeat a call while the service is away. Every call may be repeated."""
        for _ in range(RETRIES):
            try:
                return call()
            except ServiceUnreachableOrFailed as error:
                print_warning(f"{error.detail}; trying again")
                self.sleep(RETRY_SECONDS)
        return call()
