"""Try a tokenizer on difficult texts, with limits on time and output."""

import time
from collections.abc import Iterator

from tokenizers import Tokenizer

from lora_core.errors.artifact import UnsupportedTokenizer
from lora_core.rust_panics import convert_panics

TEXT_CHARACTERS = 4_000  # per text
MAX_SECONDS = 10.0  # of CPU time over all cores and texts; BERT takes 0.2
MAX_TOKENS_PER_BYTE = 16  # NFKC and bytes produce 11
MAX_SPECIAL_TOKENS = 16  # per text
SUFFIX = "\N{CURRENCY SIGN}"  # makes a regular expression that fails to match backtrack

_REPEATED_PARTS = (
    *map(chr, range(32, 127)),
    *("a ", "a, ", "word ", "The ", "\t\r\n", "[CLS] ", "<s>", "##", "don't ", "1.5e-3 "),
    *("\N{LATIN SMALL LETTER SHARP S}", "I\N{COMBINING DOT ABOVE}", "e\N{COMBINING ACUTE ACCENT}"),
    *("\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}", "\N{LATIN SMALL LIGATURE FFI}"),
    *("\N{CJK UNIFIED IDEOGRAPH-4E2D}", "\N{HANGUL SYLLABLE GAG}", "\N{ARABIC LETTER ALEF}"),
    *("\N{LOWER ONE EIGHTH BLOCK}", "\N{NO-BREAK SPACE}", "\N{ZERO WIDTH JOINER}"),
    *("\N{WOMAN}\N{ZERO WIDTH JOINER}\N{PERSONAL COMPUTER}", "\N{REPLACEMENT CHARACTER}"),
    "\N{ARABIC LIGATURE SALLALLAHOU ALAYHE WASALLAM}",  # NFKC expands it most
)


def try_tokenizer(tokenizer: Tokenizer) -> None:
    """Raise `UnsupportedTokenizer` if it fails, is slow, or produces too many tokens."""
    started = time.process_time()
    for text in _texts():
        try:
            with convert_panics():
                [encoding] = tokenizer.encode_batch_fast([text])
                tokenizer.encode(text)
        except MemoryError:
            raise
        except Exception as error:
            problem = f"it fails on a text ({type(error).__name__})"
            raise UnsupportedTokenizer(problem=problem) from error
        tokens, size = len(encoding.ids), len(text.encode())
        if tokens > MAX_TOKENS_PER_BYTE * size + MAX_SPECIAL_TOKENS:
            raise UnsupportedTokenizer(problem=f"it produces {tokens:,} tokens for {size:,} bytes")
        if time.process_time() - started > MAX_SECONDS:
            raise UnsupportedTokenizer(
                problem=f"it takes more than {MAX_SECONDS:g} s for a few texts"
            )


def _texts() -> Iterator[str]:
    yield from ("", " ", "a")
    for sequence in _REPEATED_PARTS:
        yield sequence * (TEXT_CHARACTERS // len(sequence))
        yield sequence * (TEXT_CHARACTERS // len(sequence)) + SUFFIX
    # Some characters of every script, in order and mixed.
    characters = [chr(i) for i in range(1, 0x11000, 17) if not 0xD800 <= i < 0xE000]
    yield "".join(characters[:TEXT_CHARACTERS])
    yield " ".join(characters[i * 7919 % len(characters)] for i in range(TEXT_CHARACTERS // 2))
