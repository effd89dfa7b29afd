"""A tokenizer is tried on texts that are hard for one, where time and memory are limited."""

import time
from collections.abc import Iterator

from tokenizers import Tokenizer

from lora_core.errors.artifact import TokenizerUnfit
from lora_core.rust_panics import contained

LETTERS = 4_000  # of each text
SECONDS = 10.0  # of all cores, for all texts; that of BERT takes 0.2
MOST = 16  # tokens of one byte; NFKC and bytes make 11
ENDS = 16  # tokens that a text may have besides its own
END = "\N{CURRENCY SIGN}"  # after it an expression that searches in vain begins to try again

_REPEATED = (
    *map(chr, range(32, 127)),
    *("a ", "a, ", "word ", "The ", "\t\r\n", "[CLS] ", "<s>", "##", "don't ", "1.5e-3 "),
    *("\N{LATIN SMALL LETTER SHARP S}", "I\N{COMBINING DOT ABOVE}", "e\N{COMBINING ACUTE ACCENT}"),
    *("\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}", "\N{LATIN SMALL LIGATURE FFI}"),
    *("\N{CJK UNIFIED IDEOGRAPH-4E2D}", "\N{HANGUL SYLLABLE GAG}", "\N{ARABIC LETTER ALEF}"),
    *("\N{LOWER ONE EIGHTH BLOCK}", "\N{NO-BREAK SPACE}", "\N{ZERO WIDTH JOINER}"),
    *("\N{WOMAN}\N{ZERO WIDTH JOINER}\N{PERSONAL COMPUTER}", "\N{REPLACEMENT CHARACTER}"),
    "\N{ARABIC LIGATURE SALLALLAHOU ALAYHE WASALLAM}",  # the one that NFKC makes most of
)


def try_out(tokenizer: Tokenizer) -> None:
    """Raises `TokenizerUnfit` if it fails, is slow, or makes more of a text than it should."""
    began = time.process_time()
    for text in _texts():
        try:
            with contained():
                [encoding] = tokenizer.encode_batch_fast([text])
                tokenizer.encode(text)
        except MemoryError:
            raise
        except Exception as error:
            problem = f"it fails on a text ({type(error).__name__})"
            raise TokenizerUnfit(problem=problem) from error
        tokens, size = len(encoding.ids), len(text.encode())
        if tokens > MOST * size + ENDS:
            raise TokenizerUnfit(problem=f"it makes {tokens:,} tokens of {size:,} bytes")
        if time.process_time() - began > SECONDS:
            raise TokenizerUnfit(problem=f"it takes more than {SECONDS:g} s for a few texts")


def _texts() -> Iterator[str]:
    yield from ("", " ", "a")
    for part in _REPEATED:
        yield part * (LETTERS // len(part))
        yield part * (LETTERS // len(part)) + END
    # Of every script some, in their order and mixed.
    letters = [chr(i) for i in range(1, 0x11000, 17) if not 0xD800 <= i < 0xE000]
    yield "".join(letters[:LETTERS])
    yield " ".join(letters[i * 7919 % len(letters)] for i in range(LETTERS // 2))
