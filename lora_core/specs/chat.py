"""Examples in chat form: which part of a prompt is the text, and how an answer names its label."""

import json
from collections.abc import Sequence
from typing import Annotated, NamedTuple

from pydantic import StringConstraints

from lora_core.specs.fields import FrozenModel

SYSTEM_ROLES = frozenset({"system", "developer"})
_Phrase = Annotated[str, StringConstraints(max_length=100_000)]


class ChatMessage(NamedTuple):
    """One message of a conversation."""

    role: str
    text: str


class PromptFormat(FrozenModel):
    """What all prompts of a training file have in common, which their texts leave out.

    Prompts and answers at prediction time are read and written in the same format.
    """

    prefix: _Phrase = ""  # of the last user message, without surrounding white space
    suffix: _Phrase = ""
    system_in_text: bool = False  # system messages differ, so they are part of the text
    answer_prefix: _Phrase = ""  # white space before each label
    answer_key: _Phrase | None = None  # answers are JSON objects with this single key

    def text_of_prompt(self, prompt: str) -> str:
        """Return the text of a prompt."""
        text = prompt.strip().removeprefix(self.prefix)
        while self.suffix and text.endswith(self.suffix):
            text = text.removesuffix(self.suffix).rstrip()
        return text.strip()

    def text_of_messages(self, messages: Sequence[ChatMessage]) -> str:
        """Return the text of the messages before an answer, one message per line."""
        last_user = max((i for i, each in enumerate(messages) if each.role == "user"), default=-1)
        texts = [
            self.text_of_prompt(each.text) if i == last_user else each.text.strip()
            for i, each in enumerate(messages)
            if self.system_in_text or each.role not in SYSTEM_ROLES
        ]
        return "\n".join(text for text in texts if text)

    def answer_of(self, label: str) -> str:
        """Return a label as the training file wrote it."""
        if self.answer_key is not None:
            return json.dumps({self.answer_key: label}, ensure_ascii=False)
        return self.answer_prefix + label
