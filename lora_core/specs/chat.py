"""Examples in chat form: which part of a prompt is the text, and how an answer names its label."""

import json
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, Field, StrictBool, StringConstraints

from lora_core.specs.fields import FrozenModel

SYSTEM_ROLES = frozenset({"system", "developer"})
MAX_PHRASE_CHARACTERS = 100_000


class ChatMessage(NamedTuple):
    """One message of a conversation."""

    role: str
    text: str


def join_text_parts(texts: Sequence[str]) -> str:
    """Return the text of a message whose content is a list of text parts."""
    return "\n".join(texts)


def _reject_nul(phrase: str) -> str:
    if "\0" in phrase:
        raise ValueError("must not contain a NUL character")
    return phrase


_Phrase = Annotated[
    str, StringConstraints(max_length=MAX_PHRASE_CHARACTERS), AfterValidator(_reject_nul)
]


class PromptFormat(FrozenModel):
    """What all prompts of a training file have in common, which their texts leave out.

    Prompts and answers at prediction time are read and written in the same format.
    """

    prefix: _Phrase = Field(
        default="", description="The beginning of every last user message, in whole words."
    )
    suffix: _Phrase = Field(default="", description="Its end, such as a separator.")
    system_in_text: StrictBool = Field(
        default=False, description="System messages differ, so they are part of the text."
    )
    answer_prefix: _Phrase = Field(default="", description="White space before each label.")
    answer_key: _Phrase | None = Field(
        default=None, description="Answers are JSON objects with this single key."
    )
    answer_quoted: StrictBool = Field(
        default=True, description="The value of that key is a string, not a number or boolean."
    )

    def text_of_prompt(self, prompt: str) -> str:
        """Return the text of a prompt."""
        text = _without_first_words(prompt.strip(), self.prefix).strip()
        end = self._end_without_suffix(text, len(text))
        if not any(character.isalnum() for character in self.suffix):
            # Scripts that add a separator may add it to a prompt that has it: OpenAI's cookbook.
            # There may be thousands of them, so the text is not copied for each.
            while (earlier := self._end_without_suffix(text, end)) not in (0, end):
                end = earlier
        return text[:end]

    def _end_without_suffix(self, text: str, end: int) -> int:
        """Return where `text[:end]` ends without the suffix and white space before it."""
        start = end - len(self.suffix)
        is_word = start <= 0 or text[start - 1].isspace()
        if not (is_word and text.endswith(self.suffix, 0, end)):
            return end
        while start > 0 and text[start - 1].isspace():
            start -= 1
        return start

    def text_of_messages(self, messages: Sequence[ChatMessage]) -> str:
        """Return the text of the messages before an answer, one message per line."""
        last_user = max((i for i, each in enumerate(messages) if each.role == "user"), default=-1)
        texts = [
            self.text_of_prompt(each.text) if i == last_user else each.text.strip()
            for i, each in enumerate(messages)
            if self.system_in_text or each.role not in SYSTEM_ROLES
        ]
        return "\n".join(text for text in texts if text)

    def label_of_answer(self, answer: str) -> str:
        """Return the label that an answer names.

        A JSON object other than that of the format is a label as a whole, in canonical form.
        """
        fields = parse_json_object(answer)
        if fields is None:
            return answer.strip()
        if self.answer_key is not None and list(fields) == [self.answer_key]:
            value = fields[self.answer_key]
            if isinstance(value, str) is self.answer_quoted:
                return value.strip() if self.answer_quoted else json.dumps(value)
        return json.dumps(fields, ensure_ascii=False, sort_keys=True, separators=(",", ":"))

    def format_answer(self, label: str) -> str:
        """Return a label as the training file wrote it."""
        if self.answer_key is None:
            return self.answer_prefix + label
        key = json.dumps(self.answer_key, ensure_ascii=False)
        value = json.dumps(label, ensure_ascii=False) if self.answer_quoted else label
        return f"{self.answer_prefix}{{{key}: {value}}}"


def _without_first_words(text: str, words: str) -> str:
    """Return the text without these words at its start, unless a longer word begins there."""
    rest = text.removeprefix(words)
    return rest if not rest or rest[0].isspace() else text


def parse_json_object(answer: str) -> dict[str, Any] | None:
    """Return the fields of an answer that is a JSON object; None for any other text."""
    if not answer.lstrip().startswith("{"):
        return None
    try:
        fields = json.loads(answer)
        json.dumps(fields, allow_nan=False)  # Python also reads NaN and infinity
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None
