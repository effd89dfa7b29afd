"""What a model reads: a text, or a pair of texts."""

from collections.abc import Sequence

from lora_core.errors.artifact import EmptyInput, TextPairRequired, TextPairUnsupported

TextInput = str | tuple[str, str]


def text_or_pair(text: str, pair: str | None) -> TextInput:
    """Return a text, or the pair with its second text if there is one."""
    return text if pair is None else (text, pair)


def texts_of_input(text: TextInput) -> Sequence[str]:
    """Return the one text, or the two of a pair."""
    return [text] if isinstance(text, str) else text


def count_characters(text: TextInput) -> int:
    """Return the length of a text, or of both texts of a pair."""
    return sum(map(len, texts_of_input(text)))


def check_inputs(texts: Sequence[TextInput], *, pairs: bool) -> None:
    """Raise `TextPairRequired` or `TextPairUnsupported` for an input of the other kind, and
    `EmptyInput`."""
    for index, text in enumerate(texts):
        if isinstance(text, str) == pairs:
            raise (TextPairRequired if pairs else TextPairUnsupported)(index=index)
        if not all(each.strip() for each in texts_of_input(text)):
            raise EmptyInput(index=index)


def text_to_dict(text: TextInput) -> dict[str, str]:
    """Return a text as an object with `text` and, of a pair, `text_pair`, as in transformers."""
    return {"text": text} if isinstance(text, str) else {"text": text[0], "text_pair": text[1]}
