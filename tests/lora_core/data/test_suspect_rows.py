"""Labels that were flipped are found, and those that were not are left alone."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics.pairwise import cosine_similarity

from lora_core.data import suspect_rows
from lora_core.data.file_inspection import FileContents
from lora_core.data.label_readers import LabelFormat, list_target_columns
from lora_core.data.label_review_schemas import SuspectLabelReport, text_label_digest
from lora_core.data.rows import ColumnSelection, ParseInfo, TextRow
from lora_core.data.suspect_rows import find_suspect_rows
from lora_core.specs.task import SeveralTargetsSpec

WORDS = {"pos": "great lovely fine moving warm", "neg": "dull boring weak stale cold"}
TOPICS = {"food": "soup bread taste menu", "room": "bed bath view shower"}
FILLER = [
    "the",
    "a",
    "film",
    "plot",
    "was",
    "and",
    "it",
    "some",
    "very",
    "of",
    "in",
    "on",
    "with",
    "day",
    "time",
]
WRONG = (4, 23, 61)  # rows whose labels are changed


def texts(count: int = 120, words: dict[str, str] = WORDS) -> list[TextRow]:
    """Return rows whose words show their labels, which alternate."""
    random, labels = np.random.default_rng(0), sorted(words)
    return [
        TextRow(
            i + 1,
            " ".join([*random.choice(words[label].split(), 2), *random.choice(FILLER, 4)]),
            label,
        )
        for i in range(count)
        for label in (labels[i % len(labels)],)
    ]


def check(
    rows: list[TextRow], label_format: LabelFormat | None = None, target: str | None = None
) -> SuspectLabelReport:
    columns = ColumnSelection(label_format=label_format or LabelFormat())
    return find_suspect_rows(FileContents(rows, columns, (), None, ParseInfo()), target)


def flip(rows: list[TextRow]) -> list[TextRow]:
    other = {"pos": "neg", "neg": "pos"}
    return [replace(row, label=other[row.label]) if row.number in WRONG else row for row in rows]


def test_flipped_names_are_found() -> None:
    rows = flip(texts())
    report = check(rows)
    assert {each.row for each in report.suspects[:3]} == set(WRONG)
    assert (report.rows, report.checked, report.target) == (120, 120, None)
    assert report.found == len(report.suspects)
    assert report.agreement == pytest.approx(1 - len(WRONG) / 120, abs=0.05)
    for each in report.suspects[:3]:
        row = rows[each.row - 1]
        assert (each.text, each.label) == (row.text, row.label)
        assert {each.label, each.proposed} == {"pos", "neg"}
        assert each.confidence is not None
        assert each.confidence > 0.5
        assert each.digest == text_label_digest(row, None, row.label)
    scores = [each.score for each in report.suspects]
    assert scores == sorted(scores, reverse=True)


def test_right_labels_are_left_alone() -> None:
    report = check(texts())
    assert (report.found, report.agreement) == (0, 1.0)


def test_nearest_rows_are_the_most_similar_with_the_proposed_label() -> None:
    rows = flip(texts())
    report = check(rows)
    doubted = {each.row for each in report.suspects}
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    similarity = cosine_similarity(vectorizer.fit_transform([row.text for row in rows]))
    for each in report.suspects[:3]:
        candidates = [
            row.number
            for row in rows
            if row.label == each.proposed and row.number not in doubted
        ]  # fmt: skip
        best = sorted(candidates, key=lambda number: -similarity[each.row - 1, number - 1])[:3]
        found = [similarity[each.row - 1, near.row - 1] for near in each.nearest]
        assert found == pytest.approx([similarity[each.row - 1, n - 1] for n in best])
        assert {near.label for near in each.nearest} == {each.proposed}


def test_pairs() -> None:
    rows = [replace(row, pair=f"{row.text} again") for row in flip(texts())]
    report = check(rows)
    assert {each.row for each in report.suspects[:3]} == set(WRONG)
    assert report.suspects[0].text_pair == rows[report.suspects[0].row - 1].pair


def test_wrong_sets_are_found_name_by_name() -> None:
    random = np.random.default_rng(2)
    rows = []
    for i, mood in enumerate(texts(240)):
        topic = ("food", "room")[random.integers(2)]
        names = {topic} | ({"pos"} if mood.label == "pos" else set())
        words = " ".join(random.choice(TOPICS[topic].split(), 2))
        rows.append(TextRow(i + 1, f"{mood.text} {words}", json.dumps(sorted(names))))
    right = {number: rows[number - 1].label for number in (*WRONG, 90, 140)}
    for number, label in right.items():
        wrong = json.dumps(sorted({"pos"} ^ set(json.loads(label))))
        rows[number - 1] = replace(rows[number - 1], label=wrong)
    report = check(rows, LabelFormat("multi_label"))
    found = {each.row: each for each in report.suspects[:3]}
    assert found.keys() <= right.keys()
    for number, each in found.items():
        assert (each.names, each.proposed) == (("pos",), right[number])
        has_pos = "pos" in json.loads(right[number])
        assert {"pos" in json.loads(near.label or "") for near in each.nearest} == {has_pos}


def numbers(count: int = 200) -> list[TextRow]:
    random = np.random.default_rng(1)
    rows = []
    for i in range(count):
        words = random.choice(["fine", "great", "so"], 2, replace=False)
        number = 3.0 + ("fine" in words) + 2 * ("great" in words) + random.normal(scale=0.1)
        rows.append(TextRow(i + 1, " ".join([*words, *random.choice(FILLER, 2)]), repr(number)))
    return rows


def test_wrong_numbers_are_found_in_units_of_their_spread() -> None:
    rows = numbers()
    shifted = {number: float(rows[number - 1].label) + 5 for number in WRONG}
    rows = [
        replace(row, label=repr(shifted[row.number])) if row.number in WRONG else row
        for row in rows
    ]
    report = check(rows, LabelFormat("regression"))
    assert {each.row for each in report.suspects[:3]} == set(WRONG)
    assert 0.1 < (report.spread or 0) < 0.4  # with the noise that the model has of few texts
    for each in report.suspects[:3]:
        residual = abs(float(each.label) - float(each.proposed))
        assert each.score == pytest.approx(residual / (report.spread or 0), rel=0.05)
        assert each.confidence is None
        near = [float(row.label or "nan") for row in each.nearest]
        assert all(abs(n - float(each.proposed)) <= (report.spread or 0) for n in near)
    assert min(each.score for each in report.suspects) >= suspect_rows.MIN_SPREADS


def test_equal_numbers_have_no_spread() -> None:
    rows = [replace(row, label="1.0" if i else "2.0") for i, row in enumerate(numbers(40))]
    report = check(rows, LabelFormat("regression"))
    assert report.task == "regression"


def test_each_of_several_targets_is_checked_alone() -> None:
    right, wrong = texts(), flip(texts())
    spec = SeveralTargetsSpec.model_validate({"targets": "mood,second"})
    label_format = LabelFormat("several_targets", targets=list_target_columns(spec))
    rows = [
        replace(row, label=json.dumps({"mood": row.label, "second": other.label}))
        for row, other in zip(right, wrong, strict=True)
    ]
    assert check(rows, label_format, "mood").found == 0
    report = check(rows, label_format, "second")
    assert report.target == "second"
    assert {each.row for each in report.suspects[:3]} == set(WRONG)
    assert report.suspects[0].digest == text_label_digest(
        rows[report.suspects[0].row - 1], "second", report.suspects[0].label
    )


def test_duplicates_are_held_out_together() -> None:
    """A text would otherwise confirm its own wrong label."""
    rows = flip(texts())
    rows += [replace(row, number=row.number + 120) for row in rows]
    assert {each.row for each in check(rows).suspects[:6]} == {
        number + shift for number in WRONG for shift in (0, 120)
    }


def test_rare_labels_are_not_judged() -> None:
    rows = texts()
    rows[:4] = [replace(row, label="rare") for row in rows[:4]]
    assert {1, 2, 3, 4}.isdisjoint(each.row for each in check(rows).suspects)


def test_few_texts_tell_nothing() -> None:
    report = check(flip(texts(suspect_rows.MIN_TEXTS - 1)))
    assert (report.rows, report.found) == (suspect_rows.MIN_TEXTS - 1, 0)


def test_texts_without_words() -> None:
    rows = [replace(row, text="!") for row in texts(40)]
    assert all(each.nearest == () for each in check(rows).suspects)


def test_a_large_file_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suspect_rows, "MAX_TEXTS", 60)
    report = check(texts())
    assert (report.rows, report.checked) == (120, 60)


@pytest.mark.parametrize("limit", ["MAX_WORK", "MAX_CHARACTER_WORK", "MAX_CHARACTERS"])
def test_time_is_bounded(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setattr(suspect_rows, limit, 1)
    assert check(texts()).checked == suspect_rows.MIN_TEXTS


def test_a_report_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suspect_rows, "MAX_SUSPECTS", 2)
    report = check(flip(texts()))
    assert len(report.suspects) == 2
    assert report.found >= 3


def test_long_texts_are_shortened() -> None:
    rows = [replace(row, text=f"{row.text} " + "x" * 1000) for row in flip(texts())]
    suspect = check(rows).suspects[0]
    assert suspect.characters == len(rows[suspect.row - 1].text)
    assert len(suspect.text) == 500
    assert re.fullmatch("[0-9a-f]{64}", suspect.digest)
