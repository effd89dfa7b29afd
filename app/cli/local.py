"""Commands of `lora_core` on this machine, in a process of their own: torch stays out of this."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from app.cli.download import where_it_is
from app.cli.errors import CliError, Misuse, RunFailed
from app.cli.output import as_json as print_json
from app.cli.output import percent, say
from app.cli.responses import Json
from app.cli.results import print_results
from app.cli.watch import Display, Progress, open_display
from lora_core.events import (
    CandidateTried,
    Evaluated,
    Event,
    Failed,
    Finished,
    Noted,
    RivalFitted,
    Selected,
    Started,
    StepLogged,
    Tick,
    parse_event,
)
from lora_core.specs.method import named
from lora_core.specs.train import TrainSpec
from lora_core.specs.validation import first_fault

PROGRAM = (sys.executable, "-P", "-m", "lora_core")
LOG_TAIL = 5  # lines


def library(*arguments: str) -> None:
    """Run `python -m lora_core` with these arguments. Raises `RunFailed`."""
    done = subprocess.run(
        [*PROGRAM, *arguments], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if done.returncode == 0:
        return
    last = parse_event(done.stdout.splitlines()[-1]) if done.stdout else None
    if isinstance(last, Failed):
        raise RunFailed(last.message, last.code)
    log = done.stderr.decode("utf-8", "replace")
    raise RunFailed(f"it ended with status {done.returncode}: {tail(log)}", "crashed")


def tail(log: str) -> str:
    """The end of what a process wrote, on one line."""
    return " | ".join(log.splitlines()[-LOG_TAIL:])


# MERGED app.cli.local
# Trains without a service: `python -m lora_core train` as a child, its events shown live.

STOP_SECONDS = 60.0  # a step of a large model may take a while
DRAWN = {"loss", "reviews_per_second"}


def train_here(body: Json, out: Path, *, as_json: bool) -> None:
    """Train into the new folder `out`. Raises `Misuse`, `RunFailed`."""
    spec = _checked(body)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise Misuse(f"{out} is there already and not empty; give a new folder", "out_exists")
    with tempfile.TemporaryDirectory(prefix="loraworks-") as work:
        described = Path(work) / "spec.json"
        described.write_text(spec.model_dump_json(), encoding="utf-8")
        with (Path(work) / "log").open("w+", encoding="utf-8", errors="replace") as log:
            last = _run(described, out, spec, log, open_display(quiet=as_json))
    if as_json:
        print_json({"directory": str(out), "summary": last.summary})
        return
    print_results(spec.method.type, last.summary)
    say(where_it_is(out))


def _checked(body: Json) -> TrainSpec:
    try:
        return TrainSpec.model_validate(body)
    except ValidationError as error:
        place, fault = first_fault(error, TrainSpec)
        raise Misuse(f"{place}: {fault}", "invalid_spec") from error


def _run(described: Path, out: Path, spec: TrainSpec, log: IO[str], display: Display) -> Finished:
    command = [*PROGRAM, "train", str(described), "--out", str(out), "--lifeline"]
    progress = Progress(title=f"{spec.method.type} into {out.name}", state="running")
    last: Event | None = None
    # The child stops when its standard input closes, so it cannot outlive this process. In a
    # session of its own it gets no Ctrl-C from the terminal, only our SIGTERM.
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        start_new_session=True,
    ) as child:
        try:
            with display:
                for line in child.stdout or ():
                    last = parse_event(line)
                    display.update(progress, _take(progress, last))
            code = child.wait()
        except BaseException:
            _stop(child)
            raise
    match last:
        case Finished() if code == 0:
            return last
        case Failed():
            raise RunFailed(last.message, last.code)
    raise _crash(code, log)


def _stop(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()


def _crash(code: int, log: IO[str]) -> CliError:
    log.seek(0)
    told = f"the training ended with status {code}: {tail(log.read())}"
    return RunFailed(told, "training_crashed")


def _take(progress: Progress, event: Event) -> str | None:
    """Put the event into the progress; return a sentence about it if it deserves one."""
    match event:
        case Tick():
            progress.state = event.phase
        case Started():
            progress.total = event.total_steps
        case StepLogged():
            _draw(progress, event.step, "train", event.model_dump(include=DRAWN))
        case Evaluated():
            _draw(progress, event.step, event.split, event.metrics)
    if news := _sentence(event):
        progress.note(news)
    return news


def _draw(progress: Progress, step: int, part: str, values: Mapping[str, float | None]) -> None:
    for name, value in values.items():
        if value is not None:
            progress.point((part, name), step, value, at=time.time())


def _sentence(event: Event) -> str | None:
    match event:
        case Started():
            return f"{event.trainable_parameters:,} of {event.total_parameters:,} parameters train"
        case Evaluated():
            accuracy = percent(event.metrics.get("accuracy"))
            return f"step {event.step}: {event.split} accuracy {accuracy}"
        case CandidateTried():
            found = event.result
            return (
                f"{event.number} of {event.of}: {named(found.method)} answers "
                f"{percent(found.accuracy)} of held-out texts rightly"
            )
        case Selected():
            return f"{named(event.method)} is trained on all {event.texts:,} texts"
        case RivalFitted():
            return f"linear rival: validation accuracy {percent(event.validation.get('accuracy'))}"
        case Noted() | Failed():
            return event.message
    return None
