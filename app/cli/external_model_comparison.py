"""A model next to the answers that another model gave for the same texts.

Only texts that the new model was not trained on say how good it is, so all others are left out. A
true label comes from the file of answers or, for a text of the test split, from the training data.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.cli.errors import UsageError
from app.cli.output import (
    Json,
    format_percent,
    print_line,
    print_table,
    print_warning,
)
from app.csv_injection import escape_formula
from lora_core.confidence_intervals import wilson_interval
from lora_core.errors.data import EmptyData, MissingText
from lora_core.specs.encoded_labels import encode_label_set

if TYPE_CHECKING:
    from app.cli.client import PredictResponse
    from app.jobs.results.comparison import PairedAccuracyComparison, SplitCorrectness
    from app.serving.schemas import LabelScore
    from lora_core.data.chat import ChatExample
    from lora_core.data.split import Splits
    from lora_core.specs.chat import PromptFormat


TRUE_LABEL_FIELDS = ("label", "expected")
MAX_SHOWN_ANSWERS = 5  # answers in a message
MAX_SHOWN_ROWS = 10  # row numbers in a message, and texts in the table
MAX_SHOWN_CHARACTERS = 60  # of a text in the table, or of an answer


# -- The answers of the old model -----------------------------------------------------------------


@dataclass(frozen=True)
class OldModelAnswer:
    """The answer of the old model for a text. `true_label` is None if it is unknown.

    Labels are those of rows: several are a JSON list in its canonical form.
    """

    row: int
    text: str
    label: str
    true_label: str | None


@dataclass(frozen=True)
class OldAnswersToUnseenTexts:
    """Answers for texts that the new model is not trained on, and what was left out."""

    answers: Sequence[OldModelAnswer]
    trained_on: int  # texts that were left out, because the new model is trained on them
    repeated: int  # rows that were left out, because their text is in an earlier row
    labels_from_training_data: int  # true labels that the test split gave
    unknown: Mapping[str, int]  # answers that are no label of the training data

    @property
    def texts(self) -> list[str]:
        return [each.text for each in self.answers]


@dataclass(frozen=True)
class AnswerFile:
    """A file of answers in chat form, whose prompts are not yet turned into texts."""

    name: str
    rows: Sequence["ChatExample"]


def read_answer_file(file: Path) -> AnswerFile:
    """Read a file of answers. Raises a `DataError`."""
    from lora_core.data import chat

    rows = list(chat.read_examples(file))
    if not rows:
        raise EmptyData(file=file.name)
    return AnswerFile(file.name, rows)


def select_answers_to_unseen_texts(
    file: AnswerFile,
    splits: "Splits",
    of_base: Sequence["Splits"] = (),
    *,
    task_type: str = "single_label",
) -> OldAnswersToUnseenTexts:
    """Select the answers with which a model that is trained on `splits` can be compared.

    Texts that its base was trained on before are in `of_base`.

    Raises `MissingText`, and `UsageError` if no answer can be compared, if none is a label, for a
    true label that is not in the training data, and for a model that predicts no labels.
    """
    from lora_core.data.stratify import normalize_text
    from lora_core.specs.chat import PromptFormat

    if task_type not in ("single_label", "multi_label"):
        raise UsageError(
            f"--answers compares labels, and the model has the task {task_type}: measure it with "
            "`loraworks evaluate` on texts whose values are known",
            "answers_not_comparable",
        )

    prompts = splits.prompt_format or PromptFormat()
    known = _KnownLabels(splits.labels, task_type)
    parsed = [_parse_answer(file.name, row, prompts, known) for row in file.rows]
    if rows := [each.row for each in parsed if not each.text]:
        first = ", ".join(map(str, rows[:MAX_SHOWN_ROWS]))
        raise MissingText(file=file.name, count=len(rows), rows=first)
    by_text: dict[str, OldModelAnswer] = {}
    for each in parsed:
        by_text.setdefault(normalize_text(each.text), each)
    trained_on = {
        normalize_text(example.text)
        for each in (splits, *of_base)
        for example in (*each.train, *each.validation)
    }
    held_out = {normalize_text(each.text): known.decode_target(each.label) for each in splits.test}
    answers, from_test_split = [], 0
    for key, answer in by_text.items():
        if key in trained_on:
            continue
        if answer.true_label is None and key in held_out:
            answer = replace(answer, true_label=held_out[key])
            from_test_split += 1
        answers.append(answer)
    _check_comparable(file.name, answers, known)
    return OldAnswersToUnseenTexts(
        answers=answers,
        trained_on=len(by_text) - len(answers),
        repeated=len(parsed) - len(by_text),
        labels_from_training_data=from_test_split,
        unknown=Counter(each.label for each in answers if each.label not in known),
    )


@dataclass(frozen=True)
class _KnownLabels:
    """The labels of the training data, or all sets of them."""

    names: Sequence[str]
    task_type: str

    def __contains__(self, label: object) -> bool:
        if self.task_type == "single_label":
            return label in self.names
        names = parse_json_label_list(str(label))
        return names is not None and {*names} <= {*self.names}

    def __str__(self) -> str:
        return ", ".join(self.names)

    def decode_target(self, target: Any) -> str:
        """Return the label of an example, which is an index or several."""
        if self.task_type == "single_label":
            return str(self.names[target])
        return encode_label_set(self.names[i] for i in target)

    def normalize_answer(self, answer: str) -> str:
        """Return an answer as the label of a row; unchanged if it is none."""
        names = parse_json_label_list(answer) if self.task_type == "multi_label" else None
        return answer if names is None else encode_label_set(names)


def parse_json_label_list(answer: str) -> list[str] | None:
    """Return the names in a JSON list; None if the answer is no such list."""
    try:
        names = json.loads(answer)
    except (ValueError, RecursionError):
        return None
    is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return names if is_list else None


def _parse_answer(
    file: str, example: "ChatExample", prompts: "PromptFormat", known: _KnownLabels
) -> OldModelAnswer:
    """Return the answer in a row. Raises `UsageError` if it gives an unusable true label."""
    fields = [example.other_fields[name] for name in TRUE_LABEL_FIELDS
              if example.other_fields.get(name) is not None]  # fmt: skip
    names = " or ".join(map(repr, TRUE_LABEL_FIELDS))
    if known.task_type == "multi_label":
        fields = [json.dumps(each) if isinstance(each, list) else each for each in fields]
    if len(fields) > 1 or not all(isinstance(each, str) for each in fields):
        raise UsageError(
            f"{file} row {example.number}: the true label must be one string, in the field {names}",
            "malformed_row",
        )
    true_label = known.normalize_answer(prompts.label_of_answer(fields[0])) if fields else None
    if true_label is not None and true_label not in known:
        raise UsageError(
            f"{file} row {example.number}: the true label {_quote(true_label)} is not in the "
            f"training data; its labels are {known}",
            "unknown_label",
        )
    return OldModelAnswer(
        row=example.number,
        text=prompts.text_of_messages(example.messages),
        label=known.normalize_answer(prompts.label_of_answer(example.answer)),
        true_label=true_label,
    )


def _check_comparable(file: str, answers: Sequence[OldModelAnswer], known: _KnownLabels) -> None:
    if not answers:
        raise UsageError(
            f"{file}: the new model is trained on all of these texts, so they cannot show how good "
            "it is; give answers for other texts as well",
            "only_training_texts",
        )
    if not any(each.label in known for each in answers):
        raise UsageError(
            f"{file}: no answer is a label of the training data ({known}); the first "
            f"is {_quote(answers[0].label)}, in row {answers[0].row}",
            "answers_are_no_labels",
        )


def _quote(answer: str) -> str:
    return repr(_shorten(answer))


def _shorten(text: str) -> str:
    limit = MAX_SHOWN_CHARACTERS
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


# -- The comparison -------------------------------------------------------------------------------


@dataclass(frozen=True)
class ProportionWithInterval:
    """A share of texts with its 95% interval (Wilson)."""

    share: float
    low: float
    high: float
    texts: int

    @classmethod
    def from_outcomes(cls, outcomes: Sequence[bool]) -> "ProportionWithInterval":
        share = sum(outcomes) / len(outcomes)
        return cls(share, *wilson_interval(share, len(outcomes)), texts=len(outcomes))


@dataclass(frozen=True)
class DifferingText:
    """A text for which the two models give different labels."""

    row: int
    text: str
    old: str
    new: str
    score: float  # calibrated probability of `new`
    true_label: str | None


@dataclass(frozen=True)
class OldModelComparison:
    """Both models on the same texts. Accuracies are None if no true label is known."""

    model: str
    old_answers: OldAnswersToUnseenTexts
    truncated: int
    agreement: ProportionWithInterval
    old_accuracy: ProportionWithInterval | None
    new_accuracy: ProportionWithInterval | None
    difference: (
        "PairedAccuracyComparison | None"  # accuracy of the new model minus that of the old one
    )
    differing: Sequence[DifferingText]


def compare_with_old_model(
    model: str,
    old: OldAnswersToUnseenTexts,
    predictions: "PredictResponse",
    thresholds: Mapping[str, float] | None = None,
) -> OldModelComparison:
    """Compare the predictions for `old.texts` with the old answers.

    With `thresholds`, those of a model of several labels, an answer is right if all labels are.
    """
    from app.jobs.results.comparison import compare_accuracies_paired

    best = [
        _label_set(scores, thresholds) if thresholds else scores[0] for scores in predictions.labels
    ]
    pairs = list(zip(old.answers, best, strict=True))
    labeled = [(each, new) for each, new in pairs if each.true_label is not None]
    old_correct = [each.label == each.true_label for each, _ in labeled]
    new_correct = [new.label == each.true_label for each, new in labeled]
    return OldModelComparison(
        model=model,
        old_answers=old,
        truncated=predictions.truncated,
        agreement=ProportionWithInterval.from_outcomes(
            [each.label == new.label for each, new in pairs]
        ),
        old_accuracy=ProportionWithInterval.from_outcomes(old_correct) if labeled else None,
        new_accuracy=ProportionWithInterval.from_outcomes(new_correct) if labeled else None,
        difference=(
            compare_accuracies_paired(_correctness(new_correct), _correctness(old_correct))
            if labeled
            else None
        ),
        differing=[
            DifferingText(each.row, each.text, each.label, new.label, new.score, each.true_label)
            for each, new in pairs
            if each.label != new.label
        ],
    )


def _label_set(scores: Collection["LabelScore"], thresholds: Mapping[str, float]) -> "LabelScore":
    """Return the predicted labels as one, with the lowest probability of what is said about any."""
    from app.serving.schemas import LabelScore

    predicted = [each.label for each in scores if each.score >= thresholds[each.label]]
    certainty = min(each.score if each.label in predicted else 1 - each.score for each in scores)
    return LabelScore(label=encode_label_set(predicted), score=certainty)


def _correctness(correct: Sequence[bool]) -> "SplitCorrectness":
    import numpy as np

    from app.jobs.results.comparison import SplitCorrectness

    return SplitCorrectness("", np.packbits(correct).tobytes(), len(correct))


def format_differing_texts_as_csv(texts: Iterable[DifferingText]) -> str:
    """Return a header and one row per text. No cell is a formula to a spreadsheet."""
    output = io.StringIO()
    writer = csv.writer(output)
    writer.writerow(["row", "text", "old", "new", "score", "true_label"])
    for each in texts:
        cells = (each.row, each.text, each.old, each.new, f"{each.score:.4f}", each.true_label)
        writer.writerow([escape_formula(cell) for cell in cells])
    return output.getvalue()


def to_json(comparison: OldModelComparison) -> Json:
    """Return the comparison for scripts, with the first of the texts that differ."""
    old, difference = comparison.old_answers, comparison.difference
    return {
        "texts": len(old.answers),
        "left_out": {"trained_on": old.trained_on, "repeated": old.repeated},
        "truncated": comparison.truncated,
        "agreement": comparison.agreement,
        "old_accuracy": comparison.old_accuracy,
        "new_accuracy": comparison.new_accuracy,
        "labels_from_training_data": old.labels_from_training_data,
        "difference": difference and {
            "difference": difference.difference,
            "low": difference.low,
            "high": difference.high,
            "p": difference.p,
            "only_new": difference.only_a,
            "only_old": difference.only_b,
        },
        "unknown_answers": dict(old.unknown),
        "differing": comparison.differing[:MAX_SHOWN_ROWS],
    }  # fmt: skip


def print_external_model_comparison(comparison: OldModelComparison) -> None:
    """Print both models side by side, what follows, and the first texts that differ."""
    agreement, difference = comparison.agreement, comparison.difference
    texts = f"{agreement.texts:,} text{'s' if agreement.texts > 1 else ''}"
    print_line("")
    print_line(f"Both models on the same {texts}, on which {comparison.model} is not trained:")
    print_table(
        ["", ">share", ">95% interval", ">texts"],
        [
            ("same answer", *_share_cells(agreement)),
            *(
                (f"{name} correct", *_share_cells(accuracy))
                for name, accuracy in (
                    ("old model", comparison.old_accuracy),
                    (comparison.model, comparison.new_accuracy),
                )
                if accuracy is not None
            ),
        ],
        empty="",
    )
    for sentence in describe_difference(difference) if difference else [NO_TRUE_LABELS]:
        print_line(sentence)
    for sentence in _caveats(comparison):
        print_warning(sentence)
    if comparison.differing:
        _print_differing(comparison.differing)


NO_TRUE_LABELS = (
    "No true label is known for these texts, so the agreement does not say which model is right. "
    'Add the field "label" to rows that you have checked.'
)


def describe_difference(difference: "PairedAccuracyComparison") -> list[str]:
    """Return whether one of the models is better, and how sure that is.

    The exact McNemar test decides, as in the comparison of jobs.
    """
    from app.jobs.results.comparison import SIGNIFICANCE_LEVEL
    from lora_core.verdict import WIDE_INTERVAL

    points, low, high = (100 * x for x in (difference.difference, difference.low, difference.high))
    if difference.p >= SIGNIFICANCE_LEVEL:
        headline = "The two models are within noise of each other"
    elif points > 0:
        headline = "The new model is better"
    else:
        headline = "The new model is worse"
    sentences = [
        f"{headline}: {points:+.1f} points ({low:+.1f} to {high:+.1f}; exact McNemar test "
        f"p = {difference.p:.2g}).",
        f"Of {difference.texts:,} texts, only the new model gets {difference.only_a:,} right, and "
        f"only the old one {difference.only_b:,}.",
    ]
    if difference.high - difference.low > WIDE_INTERVAL:
        sentences.append(
            f"With so few texts the difference is uncertain by ± {(high - low) / 2:.0f} points: "
            "add answers with true labels for more texts."
        )
    return sentences


def _caveats(comparison: OldModelComparison) -> Iterable[str]:
    """Yield what a reader of the table must know."""
    old = comparison.old_answers
    if old.unknown:
        first = [
            f"{_quote(answer)} ({count:,})"
            for answer, count in Counter(old.unknown).most_common(MAX_SHOWN_ANSWERS)
        ]
        more = len(old.unknown) - len(first)
        yield (
            f"{sum(old.unknown.values()):,} old answers are no label of the training data, and "
            f"count as wrong: {', '.join(first)}{f' and {more:,} others' if more else ''}."
        )
    if old.labels_from_training_data:
        yield (
            f"{old.labels_from_training_data:,} true labels come from the training file, which the "
            "old model was probably trained on: its accuracy on new texts may be lower."
        )
    if old.trained_on:
        yield f"{old.trained_on:,} texts were left out, because the new model is trained on them."
    if old.repeated:
        yield f"{old.repeated:,} rows were left out, because their text is in an earlier row."
    if comparison.truncated:
        yield (
            f"{comparison.truncated:,} texts were truncated to the maximum length of the new model."
        )


def _print_differing(differing: Sequence[DifferingText]) -> None:
    shown = differing[:MAX_SHOWN_ROWS]
    print_line("")
    print_line(f"Different answers ({len(shown):,} of {len(differing):,}):")
    print_table(
        [">row", "old", "new", ">score", "true label", "text"],
        [
            (
                each.row,
                _shorten(each.old),
                each.new,
                format_percent(each.score),
                each.true_label,
                _shorten(each.text),
            )
            for each in shown
        ],
        empty="",
    )


def _share_cells(share: ProportionWithInterval) -> tuple[str, str, int]:
    interval = f"{format_percent(share.low)} to {format_percent(share.high)}"
    return format_percent(share.share), interval, share.texts
