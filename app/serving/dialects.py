"""What clients of two kinds mean with a body, and the form of the answer that they expect.

Those of text-embeddings-inference get a flat list for a text and a nested one for several; those of
the Hugging Face hub a nested one always. The second kind sends the field `parameters`; JavaScript
clients of the hub do so only when they are given some, so the address may name the dialect.
"""

from dataclasses import dataclass
from typing import Literal

from app.serving.errors import Empty, FunctionClash, PairRefused, TooManyInputs
from app.serving.schemas import RefPredict
from lora_core.specs.predict import Function, Side

Dialect = Literal["hf", "tei"]


@dataclass(frozen=True, slots=True)
class Question:
    """The same in both dialects."""

    texts: list[str]
    nested: bool
    truncate: bool
    side: Side
    function: Function | None  # None: probabilities
    top_k: int | None
    abstain_below: float | None


def understand(body: RefPredict, dialect: Dialect | None, *, most: int) -> Question:
    """Raises `Empty`, `TooManyInputs`, `PairRefused`, `FunctionClash`."""
    parameters = body.parameters
    hub = dialect == "hf" or (dialect is None and "parameters" in body.model_fields_set)
    function = parameters.function_to_apply if parameters else None
    if body.raw_scores and function is not None:
        raise FunctionClash()
    return Question(
        texts=_texts(body.inputs, most=most),
        nested=hub or isinstance(body.inputs, list),
        truncate=body.truncate is not False,
        side="left" if body.truncation_direction.lower() == "left" else "right",
        function="none" if body.raw_scores else function,
        top_k=(parameters.top_k if parameters else None) or body.top_k,
        abstain_below=body.abstain_below,
    )


def _texts(inputs: str | list[str | list[str]], *, most: int) -> list[str]:
    entries = inputs if isinstance(inputs, list) else [inputs]
    if not entries:
        raise Empty(what="The list of inputs")
    if len(entries) > most:
        raise TooManyInputs(count=len(entries), limit=most)
    texts: list[str] = []
    for index, entry in enumerate(entries):
        if isinstance(entry, list):
            if len(entry) != 1:
                raise PairRefused(index=index, count=len(entry))
            entry = entry[0]
        if not entry.strip():
            raise Empty(what=f"Input {index}")
        texts.append(entry)
    return texts
