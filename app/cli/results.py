"""What a run came to: its own figures beside those of the linear rival, and its confidence."""

from app.cli.output import duration, percent, say, show, table
from app.cli.responses import Json
from lora_core.data.more_labels import MoreLabels, basis_in_words
from lora_core.model_selection import CandidateResult
from lora_core.specs.method import named

RIVAL = "linear (TF-IDF + logistic regression)"
TRIED = ["", "method", ">accuracy", ">95 % interval", ">texts", ">fits", ">time"]
COLUMNS = ["", ">validation acc", ">validation F1", ">test acc", ">test F1", ">trainable"]


def result_rows(method: str, summary: Json) -> list[list[object]]:
    """The run, then the rival if it was fitted."""
    rows = [_row(method, summary, summary.get("trainable_parameters"))]
    if rival := summary.get("linear"):
        rows.append(_row(RIVAL, rival, None))
    return rows


def print_results(method: str, summary: Json) -> None:
    """The verdict, the figures, what else was tried, and how far confidence can be trusted."""
    if verdict := summary.get("verdict"):
        print_verdict(verdict)
    selection = summary.get("selection")
    name = f"{method}: {chosen(selection)}" if selection else method
    table(COLUMNS, result_rows(name, summary), empty="")
    if selection:
        say("Cross-validation:")
        table(TRIED, tried_rows(selection), empty="")
    if calibration := summary.get("calibration"):
        say(confidence(calibration))
    print_more_labels(summary.get("more_labels"))
    if version := summary.get("model_version"):
        say(f"Registered as {version}.")


def print_verdict(verdict: Json) -> None:
    """What the model is worth; in red that it has learned nothing."""
    say(verdict["headline"], style="bold" if verdict["learned"] else "bold red")
    for sentence in verdict["sentences"]:
        say(sentence)


def chosen(selection: Json) -> str:
    """The method that was selected, in a few words."""
    return _named(selection["candidates"][selection["chosen"]])


def tried_rows(selection: Json) -> list[list[object]]:
    """Each candidate with what it reached in cross-validation."""
    return [
        [
            "chosen" if number == selection["chosen"] else "",
            _named(each),
            percent(each["accuracy"]),
            f"{percent(each['low'])} to {percent(each['high'])}",
            each["texts"],
            f"{each['folds'] * each['repeats']}",
            duration(each["seconds"]),
        ]
        for number, each in enumerate(selection["candidates"])
    ]


def print_more_labels(found: Json | None) -> None:
    """Whether more labels would help, if that is known."""
    if found is None:
        return
    sentences = [found["message"], basis_in_words(MoreLabels.model_validate(found))]
    say(f"\nWould more labels help? {' '.join(filter(None, sentences))}")


def confidence(calibration: Json) -> str:
    """The temperature, and what it does to the probabilities of the test part."""
    before, after = calibration["test"]["before"], calibration["test"]["after"]
    if not calibration.get("fitted", True):
        return (
            "There are too few validation texts to fit a temperature; the calibration error on the "
            f"test part is {percent(before['ece'])}."
        )
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


def _named(candidate: Json) -> str:
    return named(CandidateResult.model_validate(candidate).method)
