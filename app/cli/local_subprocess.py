"""Runs `lora_core` on this machine, in its own process: torch is not imported here."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from app.cli.errors import CliError, RunFailed, UsageError
from app.cli.files import saved_model_message
from app.cli.output import (
    Json,
    format_metric,
    print_json,
    print_line,
    print_serious_findings,
    print_training_results,
)
from app.cli.watch import ProgressDisplay, RunProgress, open_display
from lora_core.data.label_readers import LabelFormat, build_targets_spec
from lora_core.errors.data import DataError
from lora_core.events import (
    CandidateEvaluated,
    Evaluated,
    Event,
    Failed,
    Finished,
    LinearModelFitted,
    MethodSelected,
    NoteLogged,
    ProgressReported,
    Started,
    StepLogged,
    parse_event,
)
from lora_core.specs.data import parse_sheet_suffix
from lora_core.specs.method import describe_method
from lora_core.specs.train import TrainSpec
from lora_core.specs.validation_problems import first_problem_location_and_message
from lora_core.tasks.metric_info import METRICS, main_metric, metric_names_of_summary

LORA_CORE_COMMAND = (sys.executable, "-P", "-m", "lora_core")
_LOG_TAIL = 5  # lines


def run_lora_core(*arguments: str) -> bytes:
    """Run `python -m lora_core` with these arguments; return its output. Raises `RunFailed`."""
    completed = subprocess.run(
        [*LORA_CORE_COMMAND, *arguments], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if completed.returncode == 0:
        return completed.stdout
    last = parse_event(completed.stdout.splitlines()[-1]) if completed.stdout else None
    if isinstance(last, Failed):
        raise RunFailed(last.message, last.code)
    log = completed.stderr.decode("utf-8", "replace")
    raise RunFailed(
        f"lora_core exited with status {completed.returncode}: {last_lines(log)}", "crashed"
    )


def last_lines(log: str) -> str:
    """Return the end of a process's output on one line."""
    return " | ".join(log.splitlines()[-_LOG_TAIL:])


STOP_SECONDS = 60.0  # a step of a large model may take long
PLOTTED_METRICS = {"loss", "reviews_per_second"}


def train_locally(body: Json, out: Path, *, as_json: bool) -> None:
    """Train into the new folder `out`, without a service. Raises `UsageError`, `RunFailed`."""
    spec = _validate_spec(body)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(
            f"{out} already exists and is not empty; choose a new folder", "output_exists"
        )
    _print_findings(spec)
    with tempfile.TemporaryDirectory(prefix="loraworks-") as work:
        spec_file = Path(work) / "spec.json"
        spec_file.write_text(spec.model_dump_json(), encoding="utf-8")
        with (Path(work) / "log").open("w+", encoding="utf-8", errors="replace") as log:
            last = _run_training(spec_file, out, spec, log, open_display(quiet=as_json))
    if as_json:
        print_json({"directory": str(out), "summary": last.summary})
        return
    print_training_results(spec.method.type, last.summary)
    print_line(saved_model_message(out))


def _validate_spec(body: Json) -> TrainSpec:
    try:
        return TrainSpec.model_validate(body)
    except ValidationError as error:
        field, problem = first_problem_location_and_message(error, TrainSpec)
        raise UsageError(f"{field}: {problem}", "invalid_spec") from error


def _print_findings(spec: TrainSpec) -> None:
    """Print what the data checks find in local files. One that is refused ends the training."""
    from lora_core.data.checks import check_data
    from lora_core.data.file_inspection import read_contents
    from lora_core.data.rows import ColumnSelection

    source = spec.data.source
    columns = ColumnSelection.from_spec(spec.data, spec.task)
    columns = replace(columns, detect_split=isinstance(source, str))
    for each in [source] if isinstance(source, str) else source.values():
        file, sheet = parse_sheet_suffix(each)
        if Path(file).is_file():
            with suppress(DataError):
                report = check_data(read_contents(Path(file), replace(columns, sheet=sheet)))
                print_serious_findings(report.findings, _check_command(file, sheet, spec))


def _check_command(file: str, sheet: str | None, spec: TrainSpec) -> list[str]:
    """Return the command that checks a file as the training reads it."""
    data, task = spec.data, LabelFormat.from_spec(spec.data, spec.task)
    several = task.task == "several_targets"
    options = {
        "--text-column": data.text_column if data.text_column != "text" else None,
        "--text-pair-column": data.text_pair_column,
        "--label-column": data.label_column if data.label_column != "label" else None,
        "--task": task.task if task.task != "single_label" and not several else None,
        "--label-separator": task.separator,
        "--label-columns": task.columns and ",".join(task.columns),
        "--targets": json.dumps(build_targets_spec(task.targets)) if several else None,
        "--split-column": data.split_column,
        "--sheet": sheet,
    }
    given = [part for name, value in options.items() if value for part in (name, value)]
    ordered = ["--ordered"] if task.ordered else []
    return ["loraworks", "datasets", "check", file, *given, *ordered]


def _run_training(
    spec_file: Path, out: Path, spec: TrainSpec, log: IO[str], display: ProgressDisplay
) -> Finished:
    command = [*LORA_CORE_COMMAND, "train", str(spec_file), "--out", str(out), "--exit-with-parent"]
    progress = RunProgress(
        title=f"{spec.method.type} into {out.name}",
        state="running",
        metric=main_metric(spec.model_dump(mode="json", include={"task"})),
    )
    last: Event | None = None
    # The child exits when its standard input closes, so it cannot outlive this process. In its own
    # session it receives no Ctrl-C from the terminal, only our SIGTERM.
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
                    display.update(progress, _apply_event(progress, last))
            code = child.wait()
        except BaseException:
            _stop(child)
            raise
    match last:
        case Finished() if code == 0:
            return last
        case Failed():
            raise RunFailed(last.message, last.code)
    raise _crash_error(code, log)


def _stop(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()


def _crash_error(code: int, log: IO[str]) -> CliError:
    log.seek(0)
    message = f"the training process exited with status {code}: {last_lines(log.read())}"
    return RunFailed(message, "training_crashed")


def _apply_event(progress: RunProgress, event: Event) -> str | None:
    """Apply an event to the progress. Return a sentence about it if it is worth showing."""
    match event:
        case ProgressReported():
            progress.state = event.phase
        case Started():
            progress.total = event.total_steps
        case StepLogged():
            _add_points(progress, event.step, "train", event.model_dump(include=PLOTTED_METRICS))
        case Evaluated():
            _add_points(progress, event.step, event.split, event.metrics)
    if sentence := _describe_event(event):
        progress.add_note(sentence)
    return sentence


def _add_points(
    progress: RunProgress, step: int, split: str, values: Mapping[str, float | None]
) -> None:
    for name, value in values.items():
        if value is not None:
            progress.add_point((split, name), step, value, at=time.time())


def _describe_event(event: Event) -> str | None:
    match event:
        case Started():
            trainable, total = event.trainable_parameters, event.total_parameters
            return f"{trainable:,} of {total:,} parameters are trainable"
        case Evaluated():
            return f"step {event.step}: {event.split} {_main_metric(event.split, event.metrics)}"
        case CandidateEvaluated():
            result = event.result
            return (
                f"{event.number} of {event.of}: {describe_method(result.method)} has "
                f"{METRICS[result.metric].label} {format_metric(result.metric, result.value)} on "
                "held-out texts"
            )
        case MethodSelected():
            return f"training {describe_method(event.method)} on all {event.texts:,} texts"
        case LinearModelFitted():
            split, metrics = event.held_out
            metric = _main_metric(split, metrics)
            return f"linear model (TF-IDF + {event.estimator}): {split} {metric}"
        case NoteLogged() | Failed():
            return event.message
    return None


def _main_metric(split: str, metrics: Mapping[str, float | None]) -> str:
    """Return the metric that its task is compared by, such as `accuracy 81.2%`."""
    name = metric_names_of_summary({split: metrics})[0]
    return f"{METRICS[name].label} {format_metric(name, metrics.get(name))}"
