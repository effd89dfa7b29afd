"""Examples in chat form: what of a prompt is the text, and how an answer names its label."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lora_core.data import file_inspection, load
from lora_core.data.chat import ChatExample, describe_prompt_format, infer_prompt_format
from lora_core.data.rows import ColumnSelection
from lora_core.errors import LoraCoreError
from lora_core.errors.data import (
    FreeTextChatAnswers,
    MalformedRow,
    MissingText,
    NulByte,
    UnseenLabel,
)
from lora_core.specs.chat import ChatMessage, PromptFormat
from lora_core.specs.data import DataSpec, Split

Record = dict[str, Any]


def chat(prompt: str, label: str, system: str | None = "Classify the review.") -> Record:
    messages = [] if system is None else [{"role": "system", "content": system}]
    messages += [{"role": "user", "content": prompt}, {"role": "assistant", "content": label}]
    return {"messages": messages}


def text_part(text: str) -> Record:
    return {"type": "text", "text": text}


def completion(prompt: str, label: str) -> Record:
    return {"prompt": prompt, "completion": label}


def write(path: Path, records: list[Record]) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in records), encoding="utf-8")
    return path


def read(tmp_path: Path, records: list[Record]) -> file_inspection.FileContents:
    return file_inspection.read_contents(write(tmp_path / "job.jsonl", records), ColumnSelection())


def texts_and_labels(found: file_inspection.FileContents) -> list[tuple[str, str]]:
    return [(row.text, row.label) for row in found.rows]


def test_messages_are_read_as_text_and_label(tmp_path: Path) -> None:
    found = read(tmp_path, [chat("a good film", "good"), chat("bad", "bad"), chat("so so", "bad")])
    assert texts_and_labels(found) == [("a good film", "good"), ("bad", "bad"), ("so so", "bad")]
    assert file_inspection.build_profile(found).prompt_format == PromptFormat()


def test_what_all_prompts_share_is_left_out(tmp_path: Path) -> None:
    records = [
        chat(f"Rate this review.\n\nReview: {text}\n\n###\n\n", label)
        for text, label in (("fine film", "good"), ("awful", "bad"), ("a mess of film", "bad"))
    ]
    found = read(tmp_path, records)
    assert [text for text, _ in texts_and_labels(found)] == ["fine film", "awful", "a mess of film"]
    prompt_format = found.parse_info.prompt_format
    assert prompt_format == PromptFormat(prefix="Rate this review.\n\nReview:", suffix="###")
    assert prompt_format is not None
    described = describe_prompt_format(prompt_format)
    assert "Rate this review." in described
    assert "###" in described
    assert "any system message" in described


def test_old_prompts_lose_their_separator_and_completions_their_space(tmp_path: Path) -> None:
    records = [
        completion("good film\n\n###\n\n", " positive"),
        completion("bad\n\n###\n\n", " negative"),
    ]
    found = read(tmp_path, records)
    assert texts_and_labels(found) == [("good film", "positive"), ("bad", "negative")]
    prompt_format = found.parse_info.prompt_format
    assert prompt_format == PromptFormat(suffix="###", answer_prefix=" ")
    assert prompt_format is not None
    assert prompt_format.format_answer("positive") == " positive"


def test_different_system_messages_are_part_of_the_text(tmp_path: Path) -> None:
    found = read(tmp_path, [chat("hm", "a", system="Shop one"), chat("hm", "b", system="Shop two")])
    assert texts_and_labels(found) == [("Shop one\nhm", "a"), ("Shop two\nhm", "b")]


def test_the_conversation_before_the_answer_is_the_text(tmp_path: Path) -> None:
    turns = [
        {"role": "developer", "content": "Route the customer."},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "Yes?", "weight": 0},
        {"role": "user", "content": [text_part("my card"), text_part("is lost")]},
        {"role": "assistant", "content": "card", "weight": 1},
    ]
    found = read(tmp_path, [{"messages": turns}, chat("bill", "invoice", "Route the customer.")])
    assert texts_and_labels(found)[0] == ("hello\nYes?\nmy card\nis lost", "card")


@pytest.mark.parametrize(
    ("answers", "labels", "expected"),
    [
        (['{"intent": "buy"}', '{"intent":"sell"}'], ["buy", "sell"], {"answer_key": "intent"}),
        (
            ['{"stars": 1}', '{"stars": 2.5}'],
            ["1", "2.5"],
            {"answer_key": "stars", "answer_quoted": False},
        ),
        (
            ['{"spam": true}', '{"spam": false}'],
            ["true", "false"],
            {"answer_key": "spam", "answer_quoted": False},
        ),
        (['{"b": 1, "a": "x"}', '{"a": "y", "b": 2}'], ['{"a":"x","b":1}', '{"a":"y","b":2}'], {}),
        (['{"a": "x"}', '{"b": "y"}'], ['{"a":"x"}', '{"b":"y"}'], {}),
        (['{"a": "x"}', '{"a": 1}'], ['{"a":"x"}', '{"a":1}'], {}),
        (['{"a": null}', '{"a": "x"}'], ['{"a":null}', '{"a":"x"}'], {}),
        (["{not json", "{either"], ["{not json", "{either"], {}),
        (['{"a": NaN}', '{"a": 1}'], ['{"a": NaN}', '{"a":1}'], {}),
    ],
)
def test_answers_in_json(
    tmp_path: Path, answers: list[str], labels: list[str], expected: Record
) -> None:
    records = [chat(f"text {i}", answer) for i, answer in enumerate(answers)]
    found = read(tmp_path, records)
    assert [label for _, label in texts_and_labels(found)] == labels
    prompt_format = found.parse_info.prompt_format
    assert prompt_format == PromptFormat(prefix="text", **expected)
    assert prompt_format is not None
    for answer, label in zip(answers, labels, strict=True):
        written = prompt_format.format_answer(label)
        assert prompt_format.label_of_answer(written) == label
        if "answer_key" in expected:
            assert json.loads(written) == json.loads(answer)


@pytest.mark.parametrize("key", ["\0", "a\n", "k" * 101])
def test_a_key_that_is_no_word_is_a_part_of_the_label(tmp_path: Path, key: str) -> None:
    labels = [json.dumps({key: value}, separators=(",", ":")) for value in "xy"]
    found = read(tmp_path, [chat("one", labels[0]), chat("two", labels[1])])
    assert [label for _, label in texts_and_labels(found)] == labels
    assert found.parse_info.prompt_format == PromptFormat()


def test_white_space_before_all_labels_may_be_long(tmp_path: Path) -> None:
    found = read(tmp_path, [chat("one", " " * 100_001 + "a"), chat("two", " " * 100_001 + "b")])
    assert [label for _, label in texts_and_labels(found)] == ["a", "b"]


def test_a_file_with_the_named_columns_is_an_ordinary_table(tmp_path: Path) -> None:
    path = write(tmp_path / "job.jsonl", [completion("q one", "a"), completion("q two", "b")])
    columns = ColumnSelection("prompt", "completion")
    assert [row.text for row in file_inspection.read_contents(path, columns).rows] == [
        "q one",
        "q two",
    ]


def test_the_layout_shows_text_label_and_other_fields(tmp_path: Path) -> None:
    record = {**chat("good", "a"), "id": 7}
    path = write(tmp_path / "job.jsonl", [record, {**chat("bad", "b"), "id": 8}])
    layout = file_inspection.read_file_layout(path)
    assert layout.columns == ("text", "label", "id")
    assert layout.rows == (("good", "a", "7"), ("bad", "b", "8"))
    assert (layout.text_column, layout.label_column) == ("text", "label")


@pytest.mark.parametrize(
    ("record", "columns"),
    [
        (completion("question %d", "A free answer, number %d."), ColumnSelection("prompt", None)),
        ({"messages": [{"role": "user", "content": "a"}], "body": "text %d", "topic": "%d"},
         ColumnSelection("body", "topic")),
    ],
)  # fmt: skip
def test_the_layout_shows_the_fields_of_what_is_no_labeled_chat(
    tmp_path: Path, record: Record, columns: ColumnSelection
) -> None:
    lines = [json.dumps(record).replace("%d", str(i)) for i in range(30)]
    path = write(tmp_path / "job.jsonl", [json.loads(line) for line in lines])
    assert len(file_inspection.read_contents(path, columns).rows) == 30
    layout = file_inspection.read_file_layout(path)
    assert layout.columns == tuple(record)


def test_a_preview_shows_the_rows_as_training_reads_them(tmp_path: Path) -> None:
    path = write(tmp_path / "job.jsonl", [chat("Text: good", "a"), chat("Text: bad", "b")])
    rows = file_inspection.preview_rows(path, ColumnSelection(), after=1, limit=5).rows
    assert [(row.row, row.text, row.label) for row in rows] == [(2, "bad", "b")]


# -- Files that cannot be read --------------------------------------------------------------------

GOOD = chat("good", "a")
BAD: list[tuple[Record, type[LoraCoreError], str]] = [
    ({"messages": []}, MalformedRow, "not a list of messages"),
    ({"messages": "hi"}, MalformedRow, "not a list of messages"),
    ({"text": "x", "label": "a"}, MalformedRow, "no field 'messages'"),
    ({"messages": ["hi"]}, MalformedRow, "message 1 is not an object"),
    ({"messages": [{"role": "user", "content": "hi"}]}, MalformedRow, "'assistant'"),
    ({"messages": [{"role": "assistant", "content": "a"}]}, MalformedRow, "role 'user'"),
    (
        {"messages": [*GOOD["messages"][:2], {**GOOD["messages"][2], "weight": 0}]},
        MalformedRow,
        "weight 0",
    ),
    (
        {"messages": [{"role": "tool", "content": "1"}, *GOOD["messages"]]},
        MalformedRow,
        "message 1 has the role 'tool'",
    ),
    ({"messages": [{"content": "1"}, *GOOD["messages"]]}, MalformedRow, "role 'None'"),
    (
        {"messages": [*GOOD["messages"][:2], {"role": "assistant", "tool_calls": [{"id": "1"}]}]},
        MalformedRow,
        "calls a tool",
    ),
    (
        {"messages": [*GOOD["messages"][:2], {"role": "assistant", "content": None}]},
        MalformedRow,
        "null, not a string",
    ),
    (
        {"messages": [*GOOD["messages"][:2], {"role": "assistant", "audio": {"id": "1"}}]},
        MalformedRow,
        "audio",
    ),
    (
        {
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
                GOOD["messages"][2],
            ]
        },
        MalformedRow,
        "'image_url'",
    ),
    ({**GOOD, "tools": [{"type": "function"}]}, MalformedRow, "tools"),
    (chat("\ud800", "a"), MalformedRow, "lone surrogate"),
    (chat("bad", "a", system="\ud800"), MalformedRow, "lone surrogate"),
    (chat("nul\0", "a"), NulByte, "NUL"),
    (chat("", "a"), MissingText, "first: 2"),
]


@pytest.mark.parametrize(("record", "error", "words"), BAD)
def test_a_bad_line_is_named(
    tmp_path: Path, record: Record, error: type[LoraCoreError], words: str
) -> None:
    with pytest.raises(error) as raised:
        read(tmp_path, [GOOD, record, chat("three", "b")])
    assert words in str(raised.value)
    assert "row 2" in str(raised.value) or "2" in str(raised.value.detail.get("rows"))


def test_a_prompt_without_completion_is_named(tmp_path: Path) -> None:
    with pytest.raises(MalformedRow, match="row 2: no field 'completion'"):
        read(tmp_path, [completion("a", "b"), {"prompt": "c"}])
    for value, kind in (
        (1, "a number"), (0.5, "a number"), (True, "true or false"), (None, "null"),
        ([], "a list"), ({}, "an object"),
    ):  # fmt: skip
        with pytest.raises(MalformedRow, match=f"row 2: prompt is {kind}, not a string"):
            read(tmp_path, [completion("a", "b"), {"prompt": value, "completion": "b"}])


def test_examples_of_preferences_are_refused(tmp_path: Path) -> None:
    record = {"input": {"messages": []}, "preferred_output": [], "non_preferred_output": []}
    with pytest.raises(MalformedRow, match="row 1: two answers of which one is preferred"):
        read(tmp_path, [record])


@pytest.mark.parametrize(
    ("answers", "rows"),
    [
        (["yes", "no", "Dear customer, " + "thank you " * 10], "3"),
        (["yes", "no", "first line\nsecond line"], "3"),
        ([f"The answer is {i}." for i in range(12)], "1, 2, 3, 4, 5, 6, 7, 8, 9, 10"),
    ],
)
def test_free_text_is_refused_with_its_rows(tmp_path: Path, answers: list[str], rows: str) -> None:
    with pytest.raises(FreeTextChatAnswers) as raised:
        read(tmp_path, [chat(f"text {i}", answer) for i, answer in enumerate(answers)])
    assert raised.value.detail["rows"] == rows
    assert raised.value.detail["of"] == str(len(answers))


def test_many_labels_in_a_small_file_are_no_free_text(tmp_path: Path) -> None:
    labels = [f"intent_{i}" for i in range(7)] + ["intent_0"] * 4
    found = read(tmp_path, [chat(f"text {i}", label) for i, label in enumerate(labels)])
    assert len(found.labels) == 7


# -- The format of the training file holds for the other files ------------------------------------


def test_validation_is_read_in_the_format_of_the_training_file(tmp_path: Path) -> None:
    train = write(
        tmp_path / "train.jsonl",
        [chat(f"Text: number {i}", f'{{"l": "{"ab"[i % 2]}"}}', f"S {i}") for i in range(12)],
    )
    validation = write(tmp_path / "val.jsonl", [chat("Text: only one", '{"l": "a"}', "S")] * 2)
    source = {Split.TRAIN: str(train), Split.VALIDATION: str(validation)}
    splits = load.load_splits(DataSpec(source=source, test_size=2))
    expected = PromptFormat(prefix="Text: number", answer_key="l", system_in_text=True)
    assert splits.prompt_format == expected
    assert [each.text for each in splits.validation] == ["S\nText: only one"] * 2
    assert splits.labels == ("a", "b")
    given = DataSpec(source=source, test_size=2, prompt_format=PromptFormat(answer_key="l"))
    assert [each.text for each in load.load_splits(given).validation] == ["Text: only one"] * 2


def test_answers_of_another_format_are_unknown_labels(tmp_path: Path) -> None:
    train = write(
        tmp_path / "train.jsonl", [chat(f"t {i}", f'{{"l": "{"ab"[i % 2]}"}}') for i in range(12)]
    )
    validation = write(tmp_path / "val.jsonl", [chat("x", '{"m": "a"}'), chat("y", '{"m": "b"}')])
    source = {Split.TRAIN: str(train), Split.VALIDATION: str(validation)}
    with pytest.raises(UnseenLabel):
        load.load_splits(DataSpec(source=source, test_size=2))


def test_specs_without_a_format_are_stored_as_before() -> None:
    assert "prompt_format" not in DataSpec().model_dump(mode="json")
    assert "prompt_format" not in DataSpec().model_dump_json()
    spec = DataSpec(prompt_format=PromptFormat(prefix="x"))
    assert DataSpec.model_validate_json(spec.model_dump_json()) == spec


# -- Properties -----------------------------------------------------------------------------------

words = st.sampled_from(["a", "b", "ab", "Text:", "###", "ü", "a."])
gaps = st.sampled_from([" ", "\n", "\n\n", "\t", "\u2003"])


@st.composite
def prompts(draw: st.DrawFn) -> str:
    parts = draw(st.lists(st.tuples(gaps, words), min_size=1, max_size=6))
    return "".join(gap + word for gap, word in parts) + draw(st.sampled_from(["", " ", "\n"]))


def examples(texts: list[str]) -> list[ChatExample]:
    return [
        ChatExample(i, (ChatMessage("user", text),), "a", {})
        for i, text in enumerate(texts, start=1)
    ]


@given(st.lists(prompts(), min_size=1, max_size=6))
def test_a_text_loses_only_what_all_prompts_share(texts: list[str]) -> None:
    prompt_format = infer_prompt_format("f", examples(texts))
    prefix, suffix = prompt_format.prefix.split(), prompt_format.suffix.split()
    for prompt in texts:
        text = prompt_format.text_of_prompt(prompt)
        assert text
        left = prompt.split()[len(prefix) : -len(suffix) or None]
        while suffix == ["###"] == left[-1:] and len(left) > 1:  # a separator may be repeated
            left.pop()
        assume(len(suffix) < 2 or set(suffix) != {"###"} or left[-len(suffix) :] != suffix)
        assert text.split() == left
    if len({each.strip() for each in texts}) == 1:
        assert prompt_format == PromptFormat()


@given(st.lists(prompts(), min_size=2, max_size=6, unique_by=lambda each: tuple(each.split())))
def test_what_is_left_shares_no_whole_words(prompts: list[str]) -> None:
    texts = [" ".join(each.split()) for each in prompts]  # the same words after other gaps differ
    prompt_format = infer_prompt_format("f", examples(texts))
    left = [prompt_format.text_of_prompt(each) for each in texts]
    assume(min(len(each.split()) for each in left) > 1)
    assume(len({each.strip() for each in left}) > 1)
    # A separator that a prompt has twice is removed twice, so that words before it may be shared.
    removed = {len(a.split()) - len(b.split()) for a, b in zip(texts, left, strict=True)}
    assume(len(removed) == 1)
    assert infer_prompt_format("f", examples(left)) == PromptFormat()


@given(
    st.lists(st.sampled_from(["a", "b c", "ü", "1", "true", "{x"]), min_size=1, max_size=5),
    st.sampled_from(["", " ", "\n"]),
    st.sampled_from([None, "intent", 'ü "key"']),
)
def test_labels_survive_detection_and_writing(
    labels: list[str], white_space: str, key: str | None
) -> None:
    answers = [
        white_space + (label if key is None else json.dumps({key: label})) for label in labels
    ]
    given_examples = [
        each._replace(answer=answer)
        for each, answer in zip(examples(["x"] * len(labels)), answers, strict=True)
    ]
    prompt_format = infer_prompt_format("f", given_examples)
    assert [prompt_format.label_of_answer(answer) for answer in answers] == labels
    for label, answer in zip(labels, answers, strict=True):
        written = prompt_format.format_answer(label)
        assert prompt_format.label_of_answer(written) == label
        assert written.startswith(white_space)
        if key is None:
            assert written == answer
        else:
            assert json.loads(written) == json.loads(answer)


@given(prompts(), st.sampled_from(["Text:", "ab"]), st.sampled_from(["###", ""]))
def test_a_prompt_of_the_format_gives_its_text(text: str, prefix: str, suffix: str) -> None:
    assume(not suffix or not text.strip().endswith(suffix))  # of those, all are left out
    prompt_format = PromptFormat(prefix=prefix, suffix=suffix)
    prompt = f"{prefix} {text.strip()}\n\n{suffix}\n\n"
    assert prompt_format.text_of_prompt(prompt) == text.strip()
    assert (
        prompt_format.text_of_messages([ChatMessage("system", "S"), ChatMessage("user", prompt)])
        == text.strip()
    )


def test_a_separator_may_be_repeated() -> None:
    """OpenAI's cookbook adds the separator to prompts that have it."""
    prompt_format = PromptFormat(prefix="Text:", suffix="###")
    for prompt in ("Text: hi\n\n###\n\n\n\n###\n\n", "hi ### ### ###", "Text: hi"):
        assert prompt_format.text_of_prompt(prompt) == "hi"
    assert prompt_format.text_of_prompt("Text: ###\n\n###") == "###"
    assert PromptFormat(suffix="very").text_of_prompt("very very very") == "very very"
    assert prompt_format.text_of_prompt("hi####\n\n###") == "hi####"


def test_time_does_not_grow_with_the_square_of_the_separators() -> None:
    """The service reads prompts on its event loop, and this one fits into a body."""
    prompt = "a film" + " ###" * 490_000
    assert PromptFormat(suffix="###").text_of_prompt(prompt) == "a film"


def test_a_longer_word_is_not_cut() -> None:
    prompt_format = PromptFormat(prefix="I", suffix="b")
    assert prompt_format.text_of_prompt("It is ab") == "It is ab"
    assert prompt_format.text_of_prompt("I am b") == "am"
