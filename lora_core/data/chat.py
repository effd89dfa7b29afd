r"""Examples in chat form: JSON Lines with `messages`, or with `prompt` and `completion`.

They are read as the columns `text` and `label`: the messages before the answer, and the answer. The
format is detected first. What is the same in every prompt says nothing about the label, and would
only use up tokens: an instruction at the beginning, a separator such as `\n\n###\n\n` at the end,
the system message.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from lora_core.data import text_files
from lora_core.data.label_readers import MAX_LABEL_CHARACTERS
from lora_core.data.rows import ColumnSelection
from lora_core.errors.data import FreeTextChatAnswers, MalformedRow, NulByte, format_row_numbers
from lora_core.specs.chat import (
    MAX_PHRASE_CHARACTERS,
    SYSTEM_ROLES,
    ChatMessage,
    PromptFormat,
    join_text_parts,
    parse_json_object,
)
from lora_core.specs.task import TaskType

TEXT, LABEL = "text", "label"  # the columns that the examples are read as
MESSAGES, _PROMPT, COMPLETION = "messages", "prompt", "completion"
_PREFERRED = "preferred_output"  # of OpenAI's method dpo
_ROLES = SYSTEM_ROLES | {"user", "assistant"}
_WHOLE_WORDS_AT_START = re.compile(r"(.*\S)\s", re.DOTALL)
_WHOLE_WORDS_AT_END = re.compile(r"\s(\S.*)", re.DOTALL)

# Answers that are free text. A label that occurs once is normal in a small file of many labels, so
# almost all must do so.
MAX_ANSWER_CHARACTERS = 100
_MIN_COUNTED_ROWS = 10
_MAX_SINGLE_SHARE = 0.8

NumberedObjects = Iterator[tuple[int, dict[str, Any]]]  # the row number and the fields


class ChatExample(NamedTuple):
    """One line of a file."""

    number: int
    messages: tuple[ChatMessage, ...]  # before the answer
    answer: str
    other_fields: dict[str, Any]


def read_flattened_chat(
    path: Path, columns: ColumnSelection
) -> tuple[NumberedObjects, PromptFormat | None]:
    """Return the objects of a `.jsonl` file, and the format of its prompts.

    Examples in chat form have the fields `text` and `label` in place of their messages. Other
    objects are returned as they are, and their format is None.

    Raises `FreeTextChatAnswers` and what `text_files.iter_json_lines` raises, here or on reading.
    """
    objects = text_files.iter_json_lines(path)
    first = next(objects, None)
    if (
        first is not None
        and first[1].keys().isdisjoint({columns.text, MESSAGES})
        and _PREFERRED in first[1]
    ):
        problem = "two answers of which one is preferred; a classifier learns from one, the label"
        raise MalformedRow(file=path.name, row=first[0], problem=problem)
    if first is None or not has_chat_form(first[1], columns):
        return (objects if first is None else chain([first], objects)), None
    prompt_format = columns.prompt_format or infer_prompt_format(
        path.name, read_examples(path), columns.label_format.task
    )
    return _as_columns(read_examples(path), prompt_format), prompt_format


def read_examples(path: Path) -> Iterator[ChatExample]:
    """Yield the examples of a file in chat form. Raises what `read_flattened_chat` raises."""
    for number, record in text_files.iter_json_lines(path):
        yield _parse_example(path.name, number, record)


def has_chat_form(record: Mapping[str, Any], columns: ColumnSelection) -> bool:
    renamed = columns.text != TEXT or columns.label != LABEL or columns.pair is not None
    if renamed or TEXT in record:
        return False
    return MESSAGES in record or (_PROMPT in record and COMPLETION in record)


def _as_columns(examples: Iterable[ChatExample], prompt_format: PromptFormat) -> NumberedObjects:
    for example in examples:
        text = prompt_format.text_of_messages(example.messages)
        label = prompt_format.label_of_answer(example.answer)
        others = {
            name: value for name, value in example.other_fields.items() if name not in (TEXT, LABEL)
        }
        yield example.number, {TEXT: text, LABEL: label, **others}


# -- The format of the prompts --------------------------------------------------------------------


def infer_prompt_format(
    file: str, examples: Iterable[ChatExample], task: TaskType = "single_label"
) -> PromptFormat:
    """Return the format that prompts and answers have in common. Raises `FreeTextChatAnswers`."""
    prompts, answers = CommonPromptFinder(), _Answers()
    for example in examples:
        prompts.add(example.messages)
        answers.add(example.number, example.answer)
    if task == "single_label":  # sets of labels and numbers may be long, and each in one row
        answers.check(file)
    return prompts.format(answer_prefix=answers.prefix, **answers.prompt_format_fields())


class CommonPromptFinder:
    """What the messages before all answers have in common."""

    def __init__(self) -> None:
        self._phrases = _CommonPhrases()
        self._systems: set[str] = set()

    def add(self, messages: Sequence[ChatMessage]) -> None:
        prompt = next((each.text for each in reversed(messages) if each.role == "user"), None)
        if prompt is not None:
            self._phrases.add(prompt)
        if len(self._systems) < 2:
            system = (each.text.strip() for each in messages if each.role in SYSTEM_ROLES)
            self._systems.add("\n".join(system))

    def format(self, **answer: Any) -> PromptFormat:
        """Return the format of these prompts, and of answers with these fields."""
        prefix, suffix = self._phrases.phrases()
        return PromptFormat(
            prefix=prefix, suffix=suffix, system_in_text=len(self._systems) > 1, **answer
        )


class _CommonPhrases:
    """The longest beginning and end that all prompts share."""

    def __init__(self) -> None:
        self._first: str | None = None
        self._differ = False
        self._start = self._end = ""
        self._fewest_words = 0

    def add(self, prompt: str) -> None:
        prompt = prompt.strip()
        words = len(prompt.split())
        if self._first is None:
            self._first, self._fewest_words = prompt, words
            self._start = prompt[:MAX_PHRASE_CHARACTERS]
            self._end = prompt[-MAX_PHRASE_CHARACTERS:]
        self._differ = self._differ or prompt != self._first
        self._fewest_words = min(self._fewest_words, words)
        self._start = _common_start(self._start, prompt)
        if not prompt.endswith(self._end):
            self._end = _common_start(self._end[::-1], prompt[::-1])[::-1]

    def phrases(self) -> tuple[str, str]:
        """Return the phrases in whole words, which leave at least a word of each prompt."""
        if not self._differ:
            return "", ""
        at_start = _WHOLE_WORDS_AT_START.match(self._start)
        prefix = at_start[1] if at_start else ""
        suffix = self._end
        room = self._fewest_words - len(prefix.split())
        while at_end := _WHOLE_WORDS_AT_END.search(suffix):
            suffix = at_end[1]
            if len(suffix.split()) < room:
                return prefix, suffix
        return prefix, ""


def _common_start(phrase: str, other: str) -> str:
    if other.startswith(phrase):  # the usual case, once a few prompts were read
        return phrase
    pairs = enumerate(zip(phrase, other, strict=False))
    return phrase[: next((i for i, (a, b) in pairs if a != b), len(other))]


class _Answers:
    """What all answers have in common, and which of them are no labels."""

    def __init__(self) -> None:
        self.prefix = ""
        self._rows = 0
        self._long_rows: list[int] = []
        self._rows_by_answer: Counter[str] = Counter()
        self._first_rows: dict[str, int] = {}
        self._keys: set[str | None] = set()  # None: not a JSON object with a single key
        self._value_types: set[type] = set()

    def add(self, number: int, answer: str) -> None:
        white_space = answer[: len(answer) - len(answer.lstrip())][:MAX_PHRASE_CHARACTERS]
        self.prefix = _common_start(self.prefix, white_space) if self._rows else white_space
        self._rows += 1
        fields = parse_json_object(answer)
        key = next(iter(fields)) if fields is not None and len(fields) == 1 else None
        if key is not None and (len(key) > MAX_ANSWER_CHARACTERS or not key.isprintable()):
            key = None  # such as a NUL character, which a format cannot have
        value = fields[key] if fields is not None and key is not None else None
        self._keys.add(key if isinstance(value, str | int | float) else None)
        self._value_types.add(str if isinstance(value, str) else float)
        label = PromptFormat().label_of_answer(answer)
        limit = MAX_ANSWER_CHARACTERS if fields is None else MAX_LABEL_CHARACTERS
        if len(label) > limit or len(label.splitlines()) > 1:
            self._long_rows.append(number)
        else:
            self._rows_by_answer[label] += 1
            self._first_rows.setdefault(label, number)

    def prompt_format_fields(self) -> dict[str, Any]:
        """Return the key of the label in every answer, if there is one."""
        (key, *others) = self._keys or {None}
        if others or key is None or len(self._value_types) > 1:
            return {}
        return {"answer_key": key, "answer_quoted": self._value_types == {str}}

    def check(self, file: str) -> None:
        """Raise `FreeTextChatAnswers` if the answers are no labels."""
        if self._long_rows:
            reason = f"longer than {MAX_ANSWER_CHARACTERS} characters, or of several lines"
            raise self._error(file, reason, self._long_rows)
        single = [self._first_rows[each] for each, n in self._rows_by_answer.items() if n == 1]
        if self._rows >= _MIN_COUNTED_ROWS and len(single) > _MAX_SINGLE_SHARE * self._rows:
            raise self._error(file, "found in a single row each", single)

    def _error(self, file: str, reason: str, rows: list[int]) -> FreeTextChatAnswers:
        return FreeTextChatAnswers(
            file=file,
            count=f"{len(rows):,}",
            of=f"{self._rows:,}",
            reason=reason,
            rows=format_row_numbers(rows),
        )


def describe_prompt_format(prompt_format: PromptFormat) -> str:
    """Return what texts leave out, and how answers name their labels."""
    left_out = [
        f"{where} {_quote(phrase)}"
        for where, phrase in (
            ("the beginning", prompt_format.prefix),
            ("the end", prompt_format.suffix),
        )
        if phrase
    ]
    if not prompt_format.system_in_text:
        left_out.append("any system message")
    sentence = "The texts are the prompts of a file in chat form."
    if left_out:
        sentence += f" Left out, because the same in every line: {', '.join(left_out)}."
    if prompt_format.system_in_text:
        sentence += " System messages differ, so they are part of the texts."
    if prompt_format.answer_key is not None:
        sentence += f" The labels are the values of {_quote(prompt_format.answer_key)}."
    return sentence


def _quote(phrase: str) -> str:
    return repr(phrase if len(phrase) <= 200 else f"{phrase[:199]}…")


# -- One line -------------------------------------------------------------------------------------


def _parse_example(file: str, number: int, record: dict[str, Any]) -> ChatExample:
    """Return the example of a line. Raises `MalformedRow`, `NulByte`."""
    line = _Line(file, number)
    others = {
        name: value for name, value in record.items() if name not in (MESSAGES, _PROMPT, COMPLETION)
    }
    if MESSAGES not in record and _PROMPT in record:
        prompt = line.require_text(record[_PROMPT], _PROMPT)
        completion = line.require_text(
            text_files.require_json_field(file, number, record, COMPLETION), COMPLETION
        )
        return ChatExample(number, (ChatMessage("user", prompt),), completion, others)
    *context, last = parse_messages(file, number, record)
    if last.role != "assistant":
        raise line.error("the last message is not of the role 'assistant', whose text is the label")
    if record[MESSAGES][-1].get("weight") == 0:
        raise line.error("the last message has the weight 0, so it is no label")
    if all(each.role != "user" for each in context):
        raise line.error("there is no message of the role 'user'")
    return ChatExample(number, tuple(context), last.text, others)


def parse_messages(file: str, number: int, record: dict[str, Any]) -> list[ChatMessage]:
    """Return the messages of a line, at least one. Raises `MalformedRow`, `NulByte`."""
    line = _Line(file, number)
    if record.get("tools") or record.get("functions"):
        raise line.error("tools: a classifier cannot call them")
    messages = text_files.require_json_field(file, number, record, MESSAGES)
    if not isinstance(messages, list) or not messages:
        raise line.error(f"{MESSAGES!r} is not a list of messages")
    return [line.message(i, each) for i, each in enumerate(messages, start=1)]


class _Line(NamedTuple):
    """A line of a file, for error messages."""

    file: str
    number: int

    def error(self, problem: str) -> MalformedRow:
        return MalformedRow(file=self.file, row=self.number, problem=problem)

    def message(self, position: int, message: object) -> ChatMessage:
        """Return a message; the first has the position 1. Raises `MalformedRow`, `NulByte`."""
        where = f"message {position}"
        if not isinstance(message, dict):
            raise self.error(f"{where} is not an object")
        role = message.get("role")
        if not isinstance(role, str) or role not in _ROLES:
            known = ", ".join(sorted(_ROLES))
            raise self.error(f"{where} has the role {str(role)[:40]!r}; supported are {known}")
        if message.get("tool_calls") or message.get("function_call"):
            raise self.error(f"{where} calls a tool; a classifier answers with a label")
        if message.get("audio"):
            raise self.error(f"{where} contains audio; only text is supported")
        return ChatMessage(role, self._content(message.get("content"), where))

    def _content(self, content: object, where: str) -> str:
        if not isinstance(content, list):
            return self.require_text(content, f"the content of {where}")
        texts = []
        for part in content:
            kind = part.get("type") if isinstance(part, dict) else None
            if not isinstance(part, dict) or kind != "text":
                raise self.error(
                    f"{where} has a part of type {str(kind)[:40]!r}; only text is supported"
                )
            texts.append(self.require_text(part.get("text"), f"a part of {where}"))
        return join_text_parts(texts)

    def require_text(self, value: object, what: str) -> str:
        """Return a string that can be stored."""
        if not isinstance(value, str):
            raise self.error(f"{what} is {_json_type(value)}, not a string")
        if "\0" in value:
            raise NulByte(file=self.file, row=self.number)
        try:
            value.encode()
        except UnicodeEncodeError as error:  # JSON can escape a lone surrogate
            raise self.error("a lone surrogate, which is not a character") from error
        return value


def _json_type(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case list():
            return "a list"
        case _:
            return "an object"
