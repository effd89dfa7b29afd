"""A bash process that runs the blocks of a document in order."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from app.cli.demo import environment_without_settings
from tests.docs.answers import differs
from tests.docs.blocks import RUN, Block, blocks
from tests.docs.given import make_checkout
from tests.servers import HOST, free_port
from tests.waiting import wait_until

PRELUDE = Path(__file__).with_name("shell.sh")
DOCUMENTED = "127.0.0.1:8000"
BLOCK_SECONDS = {False: 400, True: 3000}  # a busy machine is slow
STOP_SECONDS = 60
# What takes minutes in a document takes seconds in `make test`. Sweeps have few trials, and one
# of them has the default settings, so that its result can be reused from an earlier block.
# A job that a document does not wait for is only a dry run (in shell.sh, too).
SIZES = {"train_size": 60, "validation_size": 20, "test_size": 30}
SMALL_OPTIONS = " ".join(f"--{name.replace('_', '-')} {size}" for name, size in SIZES.items())
SMALL_FIELDS = json.dumps(SIZES)[1:-1]
SMALL: list[tuple[str, str]] = [
    (r"--epochs \d+", "--epochs 2"),
    (r'"method": \{"type": "lora"(?!.*"optim")', r'"optim": {"epochs": 2}, \g<0>'),
    (r"(--over r=)\S+ --over \S+", r"\g<1>8,4"),
    (r'"train_size": \d+', SMALL_FIELDS),
    (r'"source": "tickets"', f'"source": "tickets", {SMALL_FIELDS}'),
    (r'\{"method.r": .*\}', '{"method.r": [8, 4]}'),
    (r'(/v1/jobs)( .*\n.*"source": "tickets")', r"\1?dry_run=true\2"),
]


class Session:
    """Starts in an empty home directory, or continues session `of` with its checkout and service.

    `full`: use the sizes of the document.
    """

    def __init__(
        self,
        home: Path,
        *,
        full: bool = False,
        of: "Session | None" = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        home.mkdir()
        (home / ".curlrc").write_text("fail-with-body\n")
        self.home, self.full = home, full
        self.service: str = of.service if of else f"http://{HOST}:{free_port()}"
        self.checkout: Path = of.checkout if of else make_checkout(home / "checkout")
        own = {
            "HOME": str(home),
            "CHECKOUT": str(self.checkout),
            "SERVICE": self.service,
            "SMALL": "" if full else SMALL_OPTIONS,
            "LORAWORKS_URL": self.service,
            "LORAWORKS_PORT": self.service.rpartition(":")[2],
        }
        self.bash = subprocess.Popen(
            ["/usr/bin/env", "bash", "--noprofile", "--norc", "-euo", "pipefail"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=home,
            env=environment_without_settings() | own | dict(environment or {}),
            start_new_session=True,
        )
        self.files = 0
        self.run(PRELUDE.read_text(encoding="utf-8"), name="the prelude")

    def follow(self, document: str) -> None:
        """Run the blocks of a document, and compare the output that it shows."""
        output = ""
        for block in blocks(document):
            if block.needs is None and block.language in RUN:
                output = self.block(block)
            elif block.answers:
                why = differs(block, output)
                assert not why, f"{block} shows different output: {why}\n{output}"

    def block(self, block: Block) -> str:
        """Run a block; returns its output."""
        text = block.text.replace(DOCUMENTED, self.service.removeprefix("http://"))
        for pattern, small in [] if self.full else SMALL:
            text = re.sub(pattern, small, text)
        text = text.replace(" && ", "\n")  # `set -e` ignores the first of two
        if block.language == "python":
            script = self.home / f"{block.line}.py"
            script.write_text(text, encoding="utf-8")
            text = f"python {script}"
        return self.run(text, name=str(block))

    def run(self, text: str, *, name: str = "a command of the test") -> str:
        """Run commands; returns their output. A failing command fails the test."""
        self.files += 1
        script, output, done = (self.home / f"{self.files}.{kind}" for kind in ("sh", "out", "ok"))
        script.write_text(text, encoding="utf-8")
        assert self.bash.stdin is not None
        self.bash.stdin.write(f"source {script} > {output} 2>&1 < /dev/null\ntouch {done}\n")
        self.bash.stdin.flush()
        try:
            wait_until(
                lambda: done.exists() or self.bash.poll() is not None,
                seconds=BLOCK_SECONDS[self.full],
                what="the end of the block",
            )
            assert done.exists(), f"bash left with {self.bash.poll()}"
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}\n{text}\n---\n{output.read_text()}") from None
        return output.read_text(encoding="utf-8")

    def close(self) -> None:
        """Stop the service and all other processes."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError, AssertionError):
                os.killpg(self.bash.pid, number)
                wait_until(self._gone, seconds=STOP_SECONDS, what="the end of all processes")
        self.bash.communicate()  # closes the pipe

    def _gone(self) -> bool:
        self.bash.poll()
        with suppress(ProcessLookupError):
            os.killpg(self.bash.pid, 0)
            return False
        return True
