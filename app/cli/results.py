"""The result of a run: its metrics next to those of the linear model, and its calibration."""

from app.cli.output import format_duration, format_percent, format_value, print_line, print_table
from app.cli.responses import Json
from lora_core.data.more_labels import MoreLabelsEstimate, describe_basis
from lora_core.model_selection import CandidateResult
from lora_core.specs.method import describe_method

LINEAR_MODEL = "linear (TF-IDF + logistic regression)"
CANDIDATE_COLUMNS = ["", "method", ">accuracy", ">95% interval", ">texts", ">fits", ">time"]
RESULT_COLUMNS = ["", ">validation acc", ">validation F1", ">test acc", ">test F1", ">trainable"]


def result_rows(method: str, summary: Json) -> list[list[object]]:
    """Return the row of the run, then that of the linear model if it was fitted."""
    rows = [_result_row(method, summary, summary.get("trainable_parameters"))]
    if linear := summary.get("linear"):
        rows.append(_result_row(LINEAR_MODEL, linear, None))
    return rows


def print_results(method: str, summary: Json) -> None:
    """Print the verdict, metrics, candidates, calibration, and registered version."""
    if verdict := summary.get("verdict"):
        print_verdict(verdict)
    selection = summary.get("selection")
    name = f"{method}: {selected_method(selection)}" if selection else method
    print_table(RESULT_COLUMNS, result_rows(name, summary), empty="")
    if selection:
        print_line("Cross-validation:")
        print_table(CANDIDATE_COLUMNS, candidate_rows(selection), empty="")
    if calibration := summary.get("calibration"):
        print_line(describe_calibration(calibration))
    print_more_labels(summary.get("more_labels"))
    if version := summary.get("model_version"):
        print_line(f"Registered {version}.")


def print_verdict(verdict: Json) -> None:
    """Print whether the model is useful; in red if it has learned nothing."""
    print_line(verdict["headline"], style="bold" if verdict["learned"] else "bold red")
    for sentence in verdict["sentences"]:
        print_line(sentence)


def selected_method(selection: Json) -> str:
    """Return the selected method in a few words."""
    return _method_name(selection["candidates"][selection["chosen"]])


def candidate_rows(selection: Json) -> list[list[object]]:
    """Return a row per candidate with its cross-validation result."""
    return [
        [
            "chosen" if number == selection["chosen"] else "",
            _method_name(each),
            format_percent(each["accuracy"]),
            f"{format_percent(each['low'])} to {format_percent(each['high'])}",
            each["texts"],
            f"{each['folds'] * each['repeats']}",
            format_duration(each["seconds"]),
        ]
        for number, each in enumerate(selection["candidates"])
    ]


def print_more_labels(learning_curve: Json | None) -> None:
    """Print whether more labels would help, if that is known."""
    if learning_curve is None:
        return
    sentences = [
        learning_curve["message"],
        describe_basis(MoreLabelsEstimate.model_validate(learning_curve)),
    ]
    print_line(f"\nWould more labels help? {' '.join(filter(None, sentences))}")


def describe_calibration(calibration: Json) -> str:
    """Describe the temperature and its effect on the probabilities of the test split."""
    before, after = calibration["test"]["before"], calibration["test"]["after"]
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


def _result_row(name: str, metrics: Json, trainable: object) -> list[object]:
    cells: list[object] = [name]
    for split in ("validation", "test"):
        split_metrics = metrics.get(split) or {}
        cells += [
            format_percent(split_metrics.get("accuracy")),
            format_percent(split_metrics.get("macro_f1")),
        ]
    return [*cells, format_value(trainable)]


def _method_name(candidate: Json) -> str:
    return describe_method(CandidateResult.model_validate(candidate).method)
