"""What a run came to: its own figures beside those of the linear rival, and its confidence."""

from app.cli.answers import Json
from app.cli.output import percent, say, show, table
from lora_core.data.more_labels import MoreLabels, basis_in_words

RIVAL = "linear (TF-IDF + logistic regression)"
COLUMNS = ["", ">validation acc", ">validation F1", ">test acc", ">test F1", ">trainable"]


def result_rows(method: str, summary: Json) -> list[list[object]]:
    """The run, then the rival if it was fitted."""
    rows = [_row(method, summary, summary.get("trainable_parameters"))]
    if rival := summary.get("linear"):
        rows.append(_row(RIVAL, rival, None))
    return rows


def print_results(method: str, summary: Json) -> None:
    """The table, and sentences about who is ahead on the test part and about its confidence."""
    table(COLUMNS, result_rows(method, summary), empty="")
    rival = summary.get("linear") or {}
    ours, theirs = _accuracy(summary), _accuracy(rival)
    if ours is not None and theirs is not None:
        say(verdict(method, ours, theirs, tests=summary.get("examples", {}).get("test")))
    if calibration := summary.get("calibration"):
        say(confidence(calibration))
    print_more_labels(summary.get("more_labels"))
    if version := summary.get("model_version"):
        say(f"Registered as {version}.")


def print_more_labels(found: Json | None) -> None:
    """Whether more labels would help, if that is known."""
    if found is None:
        return
    sentences = [found["message"], basis_in_words(MoreLabels.model_validate(found))]
    say(f"\nWould more labels help? {' '.join(filter(None, sentences))}")


def verdict(method: str, ours: float, theirs: float, *, tests: int | None) -> str:
    """Who is ahead on the test part, and whether chance alone could have done it."""
    lead = 100 * (ours - theirs)
    if lead == 0:
        return f"{method} and the linear rival are equal on the test part."
    text = (
        f"{method} beats the linear rival by {lead:.1f} points on the test part"
        if lead > 0
        else f"The linear rival beats {method} by {-lead:.1f} points on the test part"
    )
    if not tests:
        return f"{text}."
    margin = 100 * 2 * (ours * (1 - ours) / tests + theirs * (1 - theirs) / tests) ** 0.5
    if abs(lead) < margin:
        return f"{text}, which may be chance (± {margin:.1f} with {tests:,} texts)."
    return f"{text} (± {margin:.1f} with {tests:,} texts)."


def confidence(calibration: Json) -> str:
    """The temperature, and what it does to the probabilities of the test part."""
    before, after = calibration["test"]["before"], calibration["test"]["after"]
    return (
        f"With temperature {calibration['temperature']:.2f} the calibration error on the test part "
        f"is {percent(after['ece'])} (without {percent(before['ece'])}), the loss "
        f"{after['loss']:.3f} ({before['loss']:.3f})."
    )


def _row(name: str, figures: Json, trainable: object) -> list[object]:
    cells: list[object] = [name]
    for part in ("validation", "test"):
        of_part = figures.get(part) or {}
        cells += [percent(of_part.get("accuracy")), percent(of_part.get("macro_f1"))]
    return [*cells, show(trainable)]


def _accuracy(figures: Json) -> float | None:
    value = (figures.get("test") or {}).get("accuracy")
    return float(value) if value is not None else None
