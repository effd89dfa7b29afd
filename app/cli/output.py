"""The output of commands: tables for people, JSON for scripts, and the results of runs."""

import json
import shlex
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pydantic_core import to_jsonable_python
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.charts.formatting import format_number
from lora_core.data.more_labels_estimate import MoreLabelsEstimate, describe_curve_model
from lora_core.results import CandidateResult
from lora_core.specs.method import describe_method
from lora_core.tasks.metric_info import METRICS, metric_names_of_summary

if TYPE_CHECKING:
    from app.jobs.schemas import JobErrorSummaryView, JobListItem, JobStateView, JobWaitReason
    from lora_core.data.data_report import Finding


Json = dict[str, Any]

PIPE_WIDTH = 200  # columns when the output is not a terminal, so that no cell is cut
LEVEL_STYLES = {"error": "red", "warning": "yellow", "info": "cyan"}  # of findings
SPINNER_DELAY_SECONDS = 1.0
MODEL_LOADING_MESSAGE = "waiting for the response; a model that is not in memory is loaded first"

STATE_STYLE = {
    "queued": "yellow",
    "running": "cyan",
    "succeeded": "green",
    "failed": "red",
    "cancelled": "magenta",
    "finished": "green",
    "paused": "yellow",
    "stopped": "magenta",
}


def format_job_state(job: "JobListItem | JobStateView") -> str:
    """Return the state of a job as users know it: a paused job is queued for the API."""
    return "paused" if job.paused else job.state


def console(*, stderr: bool = False) -> Console:
    """Return a console that prints text as it is: no markup, no emoji codes."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPE_WIDTH
    return Console(file=stream, width=width, markup=False, emoji=False, highlight=False)


def strip_control_characters(value: object) -> str:
    """Return untrusted text that is safe to print: control characters become spaces."""
    return "".join(character if character.isprintable() else " " for character in str(value))


def print_line(text: str, *, style: str | None = None) -> None:
    console().print(strip_control_characters(text), style=style, soft_wrap=True)


def print_warning(text: str) -> None:
    console(stderr=True).print(strip_control_characters(text), style="yellow", soft_wrap=True)


def print_serious_findings(findings: Iterable["Finding"], check: Sequence[str]) -> None:
    """Print errors and warnings of the data checks to standard error, and the command `check`,
    which shows their examples and advice."""
    stderr = console(stderr=True)
    serious = [finding for finding in findings if finding.level in ("error", "warning")]
    for finding in serious:
        message = strip_control_characters(f"{finding.level}: {finding.message}")
        stderr.print(message, style=LEVEL_STYLES[finding.level], soft_wrap=True)
    if serious:
        command = strip_control_characters(shlex.join(check))
        stderr.print(f"Examples and advice: {command}", soft_wrap=True)


@contextmanager
def delayed_spinner(text: str) -> Iterator[None]:
    """On a terminal, show a spinner while the block runs, after the first second."""
    stderr = console(stderr=True)
    if not stderr.is_terminal:
        yield
        return
    status = stderr.status(text)
    timer = threading.Timer(SPINNER_DELAY_SECONDS, status.start)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        status.stop()


def print_json(value: Any) -> None:
    """Print a JSON value, which may contain response bodies."""
    sys.stdout.write(format_json(value))


def format_json(value: Any) -> str:
    """Return indented JSON that is safe to print."""
    return _escape_control_characters(_to_json(value, indent=2)) + "\n"


def print_json_line(value: Any) -> None:
    """Print a JSON value on one line, and flush."""
    sys.stdout.write(_escape_control_characters(_to_json(value)) + "\n")
    sys.stdout.flush()


def print_file_chunks(chunks: Iterable[bytes]) -> None:
    """Print the bytes of a file; on a terminal, without control characters."""
    if not sys.stdout.isatty():
        sys.stdout.flush()
        sys.stdout.buffer.writelines(chunks)
        return
    for line in b"".join(chunks).decode("utf-8", "replace").splitlines():
        sys.stdout.write(f"{strip_control_characters(line)}\n")


def _to_json(value: Any, *, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent, default=to_jsonable_python)


def _escape_control_characters(text: str) -> str:
    """Return the same JSON with terminal control characters escaped; U+009B (CSI) is one, too."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character == "\n" else json.dumps(character)[1:-1]
        for character in text
    )


def format_failure_or_wait_reason(
    failure: "JobErrorSummaryView | JobWaitReason | None",
) -> str | None:
    """Return why something failed or waits: the message, and the code to search for."""
    return None if failure is None else f"{failure.message} ({failure.code})"


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """Print rows under a header, or the sentence `empty`. `>name` is a right-aligned column."""
    cells = [[format_value(cell) for cell in row] for row in rows]
    if not cells:
        print_line(empty)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        number = column.startswith(">")
        table.add_column(column.lstrip(">"), justify="right" if number else "left", overflow="fold")
    for row in cells:
        table.add_row(*row)
    console().print(table)


def print_fields(pairs: Iterable[tuple[str, object]]) -> None:
    """Print names and values, one per line, without values that are None."""
    fields = [(name, format_value(value)) for name, value in pairs if value is not None]
    width = max((len(name) for name, _ in fields), default=0)
    for name, value in fields:
        line = Text(f"{name:<{width}}  ", style="bold").append(value, style="not bold")
        console().print(line, soft_wrap=True)


def format_value(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return format_number(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return strip_control_characters(value)


def format_given_number(value: float) -> str:
    """Format a number that somebody gave as a label, with all the digits they may have typed."""
    return f"{value:.12g}"


def format_percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.1f}%"


def format_predicted_score(task: str, score: float | None) -> str:
    """Format a probability, or the number of a regression."""
    return format_value(score) if task == "regression" else format_percent(score)


def format_metric(name: str, value: float | None) -> str:
    """Format a metric of a report: a share of 1 in percent, others as a number."""
    return format_percent(value) if METRICS[name].is_share else format_value(value)


def format_time(at: float | None) -> str | None:
    """Format seconds since 1970 as local time."""
    return None if at is None else f"{datetime.fromtimestamp(at):%Y-%m-%d %H:%M:%S}"


def format_duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


# -- The result of a run: metrics next to those of the linear model, and calibration --------------


RESULT_SPLITS = ("validation", "test")


def training_result_columns(summary: Json) -> list[str]:
    """Return the header of `training_result_rows`: two main metrics of the task on each split."""
    names = [METRICS[name].short for name in metric_names_of_summary(summary)[:2]]
    return ["", *(f">{split} {name}" for split in RESULT_SPLITS for name in names), ">trainable"]


def training_result_rows(method: str, summary: Json) -> list[list[object]]:
    """Return the row of the run, then that of the linear model if it was fitted."""
    names = metric_names_of_summary(summary)[:2]
    rows = [_result_row(method, summary, names, summary.get("trainable_parameters"))]
    if linear := summary.get("linear"):
        regression = "ridge" if "rmse" in names else "logistic"
        rows.append(_result_row(f"linear (TF-IDF + {regression} regression)", linear, names, None))
    return rows


def print_training_results(method: str, summary: Json) -> None:
    """Print the verdict, metrics, candidates, calibration, and registered version."""
    if verdict := summary.get("verdict"):
        print_verdict(verdict)
    selection = summary.get("selection")
    name = f"{method}: {describe_selected_method(selection)}" if selection else method
    print_table(training_result_columns(summary), training_result_rows(name, summary), empty="")
    if selection:
        print_line("Cross-validation:")
        candidates = [_parse_candidate(each) for each in selection["candidates"]]
        metric = METRICS[candidates[0].metric].short
        columns = ["", "method", f">{metric}", ">95% interval", ">texts", ">fits", ">time"]
        print_table(columns, candidate_rows(candidates, selection["chosen"]), empty="")
    if calibration := summary.get("calibration"):
        print_line(describe_calibration(calibration))
    if estimate := summary.get("more_labels"):
        print_more_labels_estimate(MoreLabelsEstimate.model_validate(estimate, extra="ignore"))
    if version := summary.get("model_version"):
        print_line(f"Registered {version}.")


def print_verdict(verdict: Json) -> None:
    """Print whether the model is useful; in red if it has learned nothing."""
    learned_nothing = not verdict["learned"] and verdict.get("testable", True)
    print_line(verdict["headline"], style="bold red" if learned_nothing else "bold")
    for sentence in verdict["sentences"]:
        print_line(sentence)


def describe_selected_method(selection: Json) -> str:
    """Return the selected method in a few words."""
    return describe_method(_parse_candidate(selection["candidates"][selection["chosen"]]).method)


def candidate_rows(candidates: Sequence[CandidateResult], chosen: int) -> list[list[object]]:
    """Return a row per candidate with its cross-validation result."""
    return [
        [
            "chosen" if number == chosen else "",
            describe_method(each.method),
            format_metric(each.metric, each.value),
            f"{format_metric(each.metric, each.low)} to {format_metric(each.metric, each.high)}",
            each.texts,
            f"{each.folds * each.repeats}",
            format_duration(each.seconds),
        ]
        for number, each in enumerate(candidates)
    ]


def print_more_labels_estimate(estimate: MoreLabelsEstimate | None) -> None:
    """Print whether more labels would help, if that is known."""
    if estimate is None:
        return
    if not estimate.targets:
        print_line(f"\nWould more labels help? {_describe_estimate(estimate)}")
        return
    print_line("\nWould more labels help?")
    for name, each in estimate.targets.items():
        print_line(f"  {name}: {_describe_estimate(each)}")


def _describe_estimate(estimate: MoreLabelsEstimate) -> str:
    return " ".join(filter(None, [estimate.message, describe_curve_model(estimate)]))


def describe_calibration(calibration: Json) -> str:
    """Describe what was fitted on validation, and its effect on the test split."""
    test = calibration["test"]
    if "targets" in test:
        return "\n".join(
            f"{name}: {describe_calibration({**calibration['targets'][name], 'test': compared})}"
            for name, compared in test["targets"].items()
        )
    if "coverage" in test:
        return (
            "90% of predictions on validation are within "
            f"{format_number(calibration['half_width'])} of the number, and "
            f"{format_percent(test['coverage'])} of those on test."
        )
    if "before" not in test:
        return "There are too few validation texts for an interval around predictions."
    before, after = test["before"], test["after"]
    if "ece" not in before:
        return (
            f"Calibration of each label changes the Brier score on the test split from "
            f"{before['brier']:.4f} to {after['brier']:.4f}."
            if calibration.get("fitted", True)
            else "There are too few validation texts to calibrate labels or tune thresholds."
        )
    if not calibration.get("fitted", True):
        return (
            "There are too few validation texts to fit a temperature. "
            f"Calibration error on the test split: {format_percent(before['ece'])}."
        )
    return (
        f"Temperature {calibration['temperature']:.2f} changes the calibration error on the test "
        f"split from {format_percent(before['ece'])} to {format_percent(after['ece'])}, "
        f"and the loss from {before['loss']:.3f} to {after['loss']:.3f}."
    )


def _result_row(
    name: str, metrics: Json, metric_names: Sequence[str], trainable: object
) -> list[object]:
    cells = (
        format_metric(each, (metrics.get(split) or {}).get(each))
        for split in RESULT_SPLITS
        for each in metric_names
    )
    return [name, *cells, format_value(trainable)]


def _parse_candidate(stored: Json) -> CandidateResult:
    return CandidateResult.model_validate(stored, extra="ignore")
