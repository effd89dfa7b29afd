"""Long texts in windows: overlapping pieces of `max_length` tokens, whose logits are averaged.

A window has the special token before the text, some tokens of it, and the special token after it.
Consecutive windows share a quarter of their tokens, and the last one ends with the text: as with
`stride` and `return_overflowing_tokens` in transformers. Does not import torch.
"""

from collections.abc import Sequence

from lora_core.errors.spec import PairsInWindowsUnsupported
from lora_core.specs.data import DataSpec, LongTexts

MAX_WINDOWS = 16  # of one text; what is longer is truncated
SPECIAL_TOKEN_COUNT = 2  # of a window: one before, one after


def window_overlap(max_length: int) -> int:
    """Return the number of tokens that consecutive windows share: the `stride` of transformers."""
    return (max_length - SPECIAL_TOKEN_COUNT) // 4


def max_tokens_read(max_length: int, long_texts: LongTexts) -> int:
    """Return the number of tokens that are read of a text, with its special tokens."""
    if long_texts == "cut":
        return max_length
    step = max_length - SPECIAL_TOKEN_COUNT - window_overlap(max_length)
    return max_length + (MAX_WINDOWS - 1) * step


def check_no_windowed_pairs(data: DataSpec) -> None:
    """Raise `PairsInWindowsUnsupported` for pairs of texts, which cannot be read in windows."""
    if data.long_texts == "windows" and data.text_pair_column is not None:
        raise PairsInWindowsUnsupported()


def split_into_windows(ids: Sequence[int], max_length: int) -> list[list[int]]:
    """Return the windows of a text's token ids, whose first and last are the special tokens."""
    first, *content, last = ids
    size = max_length - SPECIAL_TOKEN_COUNT
    step = size - window_overlap(max_length)
    starts = range(0, max(len(content) - size, 0) + step, step)
    return [[first, *content[start : start + size], last] for start in starts]


def mean_tokens_computed(mean_tokens: float, data: DataSpec, max_length: int) -> float:
    """Return the mean number of tokens that are computed of texts with `mean_tokens` tokens."""
    read = min(mean_tokens, max_tokens_read(max_length, data.long_texts))
    if data.long_texts == "cut" or mean_tokens <= max_length:
        return read
    return read * max_length / (max_length - window_overlap(max_length))
