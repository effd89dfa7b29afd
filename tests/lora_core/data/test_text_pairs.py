"""Tests of text pairs: reading, splitting, duplicates, and tokens against transformers."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import datasets
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from lora_core.data import files, load
from lora_core.data.checks import check_data
from lora_core.data.duplicates import find_near_duplicates, group_duplicates
from lora_core.data.file_inspection import build_profile, preview_rows, read_contents
from lora_core.data.load import load_splits
from lora_core.data.rows import ColumnSelection, TextRow
from lora_core.data.split import draw_splits
from lora_core.data.tokens import (
    check_tokenizer_adds_special_tokens,
    indices_after_longest_first_truncation,
    tokenize_with_cache,
)
from lora_core.errors import LoraCoreError
from lora_core.errors.base_model import PairsNotSeparated
from lora_core.errors.data import IncompletePair, MissingColumn, MissingText, SameTextPairColumn
from lora_core.inference.tokenization import ModelTokenizer
from lora_core.specs.data import DataSpec, Split
from tests.tiny_base import make_pairs, tokenizer

PAIRS = ColumnSelection("first", "label", pair="second")
NAMES = ["second", "label", "first", "split"]
ROWS = [["a film", "same", "the film", "train"], ["bad", "other", "good", "test"]]
FAMILIES = {family: tokenizer(family) for family in ("bert", "roberta")}


def write_csv(path: Path) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([NAMES, *ROWS])


def write_tsv(path: Path) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter="\t").writerows([NAMES, *ROWS])


def write_xlsx(path: Path) -> None:
    book = openpyxl.Workbook()
    for row in [NAMES, *ROWS]:
        book.active.append(row)
    book.save(path)


def write_jsonl(path: Path) -> None:
    lines = [json.dumps(dict(zip(NAMES, row, strict=True))) for row in ROWS]
    path.write_text("\n".join(lines))


def write_parquet(path: Path) -> None:
    pq.write_table(pa.table([list(column) for column in zip(*ROWS, strict=True)], NAMES), path)


@pytest.mark.parametrize("write", [write_csv, write_tsv, write_xlsx, write_jsonl, write_parquet])
def test_pairs_are_read_from_every_format(write: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / f"pairs.{write.__name__.removeprefix('write_')}"
    write(path)
    assert files.read_rows(path, PAIRS) == [
        TextRow(1, "the film", "same", "train", "a film"),
        TextRow(2, "good", "other", "test", "bad"),
    ]
    records = list(files.iter_whole_rows(path, "first", pair_column="second"))
    assert [record.text for record in records] == [("the film", "a film"), ("good", "bad")]


def test_pairs_are_read_from_a_split_of_the_hub() -> None:
    columns = {"second": ["a", "b"], "label": [1, 0], "first": ["c", "d"]}
    features = datasets.Features(
        {
            "second": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["other", "same"]),
            "first": datasets.Value("string"),
        }
    )
    data = datasets.Dataset.from_dict(columns, features=features)
    assert load._read_hub_split("hub:org/pairs", data, PAIRS) == [
        TextRow(1, "c", "same", pair="a"),
        TextRow(2, "d", "other", pair="b"),
    ]


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ("a,,x\n,b,x\nc,d,y\n", IncompletePair, "one text is empty: 2 (first: 1, 2)"),
        ("a,b,x\n , ,y\n", MissingText, "rows without text: 1 (first: 2)"),
    ],
)
def test_pair_with_an_empty_text_is_refused(
    rows: str, error: type[LoraCoreError], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text(f"first,second,label\n{rows}")
    with pytest.raises(error) as raised:
        files.read_rows(path, PAIRS)
    assert message in str(raised.value)
    with pytest.raises(error):
        list(files.iter_whole_rows(path, "first", pair_column="second"))


def test_columns_of_a_pair_are_checked(tmp_path: Path) -> None:
    path = make_pairs(tmp_path / "pairs.csv")
    with pytest.raises(SameTextPairColumn):
        files.read_rows(path, ColumnSelection("first", pair="first"))
    with pytest.raises(MissingColumn, match="third"):
        files.read_rows(path, ColumnSelection("first", pair="third"))
    with pytest.raises(MissingColumn, match="third"):
        load_splits(DataSpec(text_pair_column="third"))  # of a sample, which has no pairs


def test_profile_and_preview_have_both_texts(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    write_csv(path)
    contents = read_contents(path, ColumnSelection("first", None, pair="second"))
    profile = build_profile(contents)
    assert (profile.text_pair_column, profile.max_characters) == ("second", 14)
    [row, _] = preview_rows(path, PAIRS, after=0, limit=2).rows
    assert (row.text, row.text_pair, row.characters) == ("the film", "a film", 14)
    single = preview_rows(path, ColumnSelection("first"), after=0, limit=1)
    assert "text_pair" not in single.model_dump(mode="json")["rows"][0]


def row(number: int, text: str, pair: str, label: str = "x", split: str | None = None) -> TextRow:
    return TextRow(number, text, label, split, pair)


def test_pairs_are_the_same_if_both_texts_are() -> None:
    rows = [row(1, "a", "b"), row(2, "a", "c"), row(3, "b", "a"), row(4, " a", "b ")]
    distinct, groups = group_duplicates(rows)
    assert [each.number for each in distinct] == [1, 2, 3]
    assert [[each.number for each in group] for group in groups] == [[1, 4]]


def test_duplicate_pairs_stay_together_in_drawn_splits() -> None:
    rows = [row(i, f"text {i % 30}", f"pair {i % 40}", "xy"[i % 2]) for i in range(240)]
    splits = draw_splits(rows, {Split.TEST: 40, Split.VALIDATION: 40}, seed=0)
    seen: dict[tuple[str, str | None], set[Split]] = {}
    for split, drawn in splits.items():
        for each in drawn:
            seen.setdefault((each.text, each.pair), set()).add(split)
    assert {len(found) for found in seen.values()} == {1}


def test_leaks_and_digest_cover_both_texts(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    lines = ["a,b,x,train", "c,d,y,train", "a,z,x,test", "c,d,y,test", "e,f,x,validation"]
    path.write_text("\n".join(["first,second,label,split", *lines]))
    single = load_splits(DataSpec(source=str(path), text_column="first"))
    splits = load_splits(DataSpec(source=str(path), text_column="first", text_pair_column="second"))
    assert (single.leaked, splits.leaked) == (2, 1)
    assert (single.are_pairs, splits.are_pairs) == (False, True)
    assert [example.input for example in splits.train] == [("a", "b"), ("c", "d")]
    path.write_text(path.read_text().replace("c,d,y,train", "c,g,y,train"))
    changed = load_splits(
        DataSpec(source=str(path), text_column="first", text_pair_column="second")
    )
    assert len({single.digest, splits.digest, changed.digest}) == 3


def test_near_duplicates_need_two_similar_texts() -> None:
    premise = "the long story of a hero who walks and walks until the very end of the film"
    rows = [
        row(1, premise, "the hero walks until the very end of this film and does not stop"),
        row(2, premise, "nobody in this film ever moves"),
        row(
            3,
            f"{premise} again",
            "the hero walks until the very end of this film and does not stop",
        ),
    ]
    [found] = find_near_duplicates(rows)
    assert (found.earlier.number, found.later.number) == (1, 3)


def test_data_checks_report_pairs(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    lines = [f"text {i},pair {i},{'xy'[i % 2]}" for i in range(40)]
    path.write_text("\n".join(["first,second,label", *lines, "text 0,pair 0,y", "text 0,pair 1,x"]))
    report = check_data(read_contents(path, PAIRS))
    findings = {finding.code: finding for finding in report.findings}
    [example] = findings["conflicting_labels"].examples
    assert [(each.text, each.text_pair) for each in example.rows] == [("text 0", "pair 0")] * 2
    assert findings["duplicates"].count == 1


# -- Tokens ---------------------------------------------------------------------------------------


def reference(tokens: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tokens.to_str()),
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


TEXT = st.lists(st.sampled_from(["film", "good", "a", "boring", "[SEP]"]), min_size=1, max_size=30)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", FAMILIES)
@given(first=TEXT, second=TEXT, max_length=st.integers(8, 40))
def test_truncation_and_segments_are_those_of_transformers(
    family: str, side: str, first: list[str], second: list[str], max_length: int
) -> None:
    pair = (" ".join(first), " ".join(second))
    plain = reference(FAMILIES[family])
    plain.truncation_side = side
    expected = plain(*pair, truncation="longest_first", max_length=max_length)
    model_tokenizer = ModelTokenizer(FAMILIES[family], max_length, pairs=True)
    [ours] = model_tokenizer.encode([pair], side=side)  # type: ignore[arg-type]
    assert list(ours.ids) == expected["input_ids"]
    start = ours.length if ours.segment_start is None else ours.segment_start
    assert [int(i >= start) for i in range(ours.length)] == expected["token_type_ids"]
    assert ours.truncated == (len(plain(*pair)["input_ids"]) > max_length)


def test_pairs_are_tokenized_for_training_like_for_serving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORAWORKS_CACHE", str(tmp_path))
    pairs = [("a good film", "bad"), ("film " * 20, "good " * 30), ("a", "the end " * 12)]
    items = ModelTokenizer(FAMILIES["bert"], 16, pairs=True).encode(pairs)
    for _ in ("computed", "from the cache"):
        tokens = tokenize_with_cache(FAMILIES["bert"], pairs, 16)
        assert [ids.tolist() for ids in tokens] == [list(item.ids) for item in items]
        assert tokens.segment_starts is not None
        assert tokens.segment_starts.tolist() == [item.segment_start for item in items]
        assert tokens.truncated == 2
    joined = tokenize_with_cache(FAMILIES["bert"], [text for pair in pairs for text in pair], 16)
    assert joined.segment_starts is None


def test_every_special_token_remains() -> None:
    assert indices_after_longest_first_truncation([None, 0, 0, 0, None, 1, None], 4) == [0, 1, 4, 6]
    assert indices_after_longest_first_truncation([None, 0, 0, 0, None, 1, 1, None], 5, "left") == [
        0,
        3,
        4,
        6,
        7,
    ]


def test_tokenizer_must_separate_pairs() -> None:
    tokens = Tokenizer.from_str(tokenizer("bert").to_str())
    check_tokenizer_adds_special_tokens(tokens, "base", pairs=True)
    template = json.loads(tokens.to_str())
    template["post_processor"]["pair"] = [
        piece
        for piece in template["post_processor"]["pair"]
        if piece.get("SpecialToken", {}).get("type_id") != 0
        or piece["SpecialToken"]["id"] == "[CLS]"
    ][:3]
    with pytest.raises(PairsNotSeparated):
        check_tokenizer_adds_special_tokens(
            Tokenizer.from_str(json.dumps(template)), "base", pairs=True
        )
