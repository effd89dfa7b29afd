"""The components that the tokenizer of an import may have, with bounded parameters.

Named and written as in `tokenizer.json`. Fields that no version of the library wrote are refused.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, model_validator

from lora_core.imports import charsmap

VOCABULARY = 1_000_000
TOKEN = 256  # characters; that of GPT-2 has one of 128
PIECE = 128  # characters of Unigram, which looks at each of them at each place
ADDED = 2_000  # tokens
COMPONENTS = 32  # of one kind, those in sequences included
AFFIX = 16  # characters that a component puts somewhere

Count = Annotated[int, Field(ge=0, lt=2**31)]
Token = Annotated[str, Field(min_length=1, max_length=TOKEN)]
Affix = Annotated[str, Field(max_length=AFFIX)]
Inserted = Annotated[str, Field(max_length=AFFIX, pattern="^[ -~\N{LOWER ONE EIGHTH BLOCK}]*$")]
Letter = Annotated[str, Field(min_length=1, max_length=1)]
Scheme = Literal["always", "never", "first"]
Behavior = Literal["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]
# Of tokenizers that transformers knows: each takes time in proportion to the text.
KnownRegex = Literal[
    r" {2,}",
    r"\s+",
    r"\s{2,}|[\n\r\t]",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Pattern(_Part):
    String: Annotated[str, Field(min_length=1, max_length=AFFIX)] | None = None
    Regex: KnownRegex | None = None

    @model_validator(mode="after")
    def _one(self) -> "Pattern":
        if (self.String is None) == (self.Regex is None):
            raise ValueError("must have either String or Regex")
        return self


class Replace(_Part):
    """Never by more characters, nor by such that another normalizer makes much of."""

    type: Literal["Replace"]
    pattern: Pattern
    content: Inserted

    @model_validator(mode="after")
    def _no_longer(self) -> "Replace":
        shortest = len(self.pattern.String or ("  " if self.pattern.Regex == r" {2,}" else " "))
        if len(self.content) > shortest:
            raise ValueError("must not replace by more characters than it finds")
        return self


# -- normalizers ---------------------------------------------------------------------------------


class Unicode(_Part):
    type: Literal["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt", "ByteLevel"]


class BertNormalizer(_Part):
    type: Literal["BertNormalizer"]
    clean_text: bool
    handle_chinese_chars: bool
    strip_accents: bool | None = None
    lowercase: bool


class Strip(_Part):
    type: Literal["Strip"]
    strip_left: bool
    strip_right: bool


class Prepend(_Part):
    type: Literal["Prepend"]
    prepend: Annotated[Inserted, Field(max_length=1)]


class Precompiled(_Part):
    type: Literal["Precompiled"]
    precompiled_charsmap: Annotated[str, Field(max_length=4 * charsmap.BYTES // 3 + 4)] | None


class Normalizers(_Part):
    type: Literal["Sequence"]
    normalizers: Annotated[list["Normalizer"], Field(max_length=COMPONENTS)]


Normalizer = Annotated[
    Unicode | BertNormalizer | Strip | Prepend | Replace | Precompiled | Normalizers,
    Field(discriminator="type"),
]

# -- pre-tokenizers ------------------------------------------------------------------------------


class Words(_Part):
    type: Literal["BertPreTokenizer", "Whitespace", "WhitespaceSplit", "UnicodeScripts"]


class ByteLevel(_Part):
    """As a post-processor and a decoder, too."""

    type: Literal["ByteLevel"]
    add_prefix_space: bool = True
    trim_offsets: bool = True
    use_regex: bool = True


class Metaspace(_Part):
    """As a decoder, too."""

    type: Literal["Metaspace"]
    replacement: Letter
    prepend_scheme: Scheme = "always"
    split: bool = True
    add_prefix_space: bool | None = None  # as older versions of the library wrote it
    str_rep: Letter | None = None


class Punctuation(_Part):
    type: Literal["Punctuation"]
    behavior: Behavior = "Isolated"


class Digits(_Part):
    type: Literal["Digits"]
    individual_digits: bool


class Split(_Part):
    type: Literal["Split"]
    pattern: Pattern
    behavior: Behavior
    invert: bool


class Delimiter(_Part):
    type: Literal["CharDelimiterSplit"]
    delimiter: Letter


class FixedLength(_Part):
    type: Literal["FixedLength"]
    length: Annotated[int, Field(ge=1, lt=2**31)]


class PreTokenizers(_Part):
    type: Literal["Sequence"]
    pretokenizers: Annotated[list["PreTokenizer"], Field(max_length=COMPONENTS)]


PreTokenizer = Annotated[
    Words
    | ByteLevel
    | Metaspace
    | Punctuation
    | Digits
    | Split
    | Delimiter
    | FixedLength
    | PreTokenizers,
    Field(discriminator="type"),
]

# -- models --------------------------------------------------------------------------------------


def _is_token(value: Any, most: int = TOKEN) -> bool:
    return isinstance(value, str) and len(value) <= most


def _vocabulary(value: Any) -> dict[str, int]:
    """Told as one fault: pydantic would keep one for each entry."""
    if not isinstance(value, dict) or len(value) > VOCABULARY:
        raise ValueError(f"must be an object of at most {VOCABULARY:,} tokens")
    if not all(_is_token(k) and type(v) is int and 0 <= v < 2**31 for k, v in value.items()):
        raise ValueError(f"must have ids, of tokens of at most {TOKEN} characters")
    return value


def _pieces(value: Any) -> list[tuple[str, float]]:
    if not isinstance(value, list) or len(value) > VOCABULARY:
        raise ValueError(f"must be a list of at most {VOCABULARY:,} pieces")
    for piece in value:
        if not isinstance(piece, list) or len(piece) != 2 or not _is_token(piece[0], PIECE):
            raise ValueError(f"must have pieces of at most {PIECE} characters")
        if type(piece[1]) is not float and type(piece[1]) is not int:
            raise ValueError("must have a score for each piece")
        if not abs(piece[1]) <= 1e30:
            raise ValueError("must have finite scores")
    return value


def _merges(value: Any) -> list[Any]:
    """Of two tokens each, or of a text with a space between them."""
    if not isinstance(value, list) or len(value) > VOCABULARY:
        raise ValueError(f"must be a list of at most {VOCABULARY:,} merges")
    for merge in value:
        pair = merge if isinstance(merge, list) else [merge]
        if len(pair) > 2 or not all(isinstance(x, str) and len(x) <= 2 * TOKEN for x in pair):
            raise ValueError("must be pairs of tokens")
    return value


Vocabulary = Annotated[dict[str, int], PlainValidator(_vocabulary)]


class WordPiece(_Part):
    type: Literal["WordPiece"]
    unk_token: Token
    continuing_subword_prefix: Affix
    max_input_chars_per_word: Annotated[int, Field(ge=1, le=200)]  # it takes the cube of them
    vocab: Vocabulary

    def ids(self) -> Sequence[int]:
        return list(self.vocab.values())


class BPE(_Part):
    type: Literal["BPE"]
    dropout: Annotated[float, Field(ge=0, le=0)] | None = None  # else it answers at random
    unk_token: Token | None = None
    continuing_subword_prefix: Affix | None = None
    end_of_word_suffix: Affix | None = None
    fuse_unk: bool = False
    byte_fallback: bool = False
    ignore_merges: bool = False
    vocab: Vocabulary
    merges: Annotated[list[Any], PlainValidator(_merges)]

    def ids(self) -> Sequence[int]:
        return list(self.vocab.values())


class Unigram(_Part):
    type: Literal["Unigram"]
    unk_id: Count | None = None
    byte_fallback: bool = False
    vocab: Annotated[list[tuple[str, float]], PlainValidator(_pieces)]

    def ids(self) -> Sequence[int]:
        return range(len(self.vocab))


class WordLevel(_Part):
    type: Literal["WordLevel"]
    unk_token: Token
    vocab: Vocabulary

    def ids(self) -> Sequence[int]:
        return list(self.vocab.values())


Model = Annotated[WordPiece | BPE | Unigram | WordLevel, Field(discriminator="type")]

# -- what follows: special tokens, decoders ------------------------------------------------------

Special = Annotated[tuple[Token, Count], Field(strict=False)]


class Ends(_Part):
    """A special token before a text, and one behind it."""

    type: Literal["BertProcessing", "RobertaProcessing"]
    sep: Special
    cls: Special
    trim_offsets: bool = True
    add_prefix_space: bool = True


class Here(_Part):
    """A special token of a template, or the text."""

    id: Token
    type_id: Annotated[int, Field(ge=0, le=1)]


class Piece(_Part):
    SpecialToken: Here | None = None
    Sequence: Here | None = None


class Meant(_Part):
    id: Token
    ids: Annotated[list[Count], Field(max_length=1)]
    tokens: Annotated[list[Token], Field(max_length=1)]


class Template(_Part):
    type: Literal["TemplateProcessing"]
    single: Annotated[list[Piece], Field(max_length=8)]
    pair: Annotated[list[Piece], Field(max_length=16)]
    special_tokens: Annotated[dict[Token, Meant], Field(max_length=16)]

    @model_validator(mode="after")
    def _one_text(self) -> "Template":
        texts = [piece.Sequence.id for piece in self.single if piece.Sequence is not None]
        if texts != ["A"]:
            raise ValueError("must have the text once in `single`")
        return self


class Processors(_Part):
    type: Literal["Sequence"]
    processors: Annotated[list["Processor"], Field(max_length=4)]


Processor = Annotated[Ends | Template | ByteLevel | Processors, Field(discriminator="type")]


class Plain(_Part):
    type: Literal["ByteFallback", "Fuse"]


class Affixes(_Part):
    """Nothing is decoded here: their settings are only held to be short."""

    type: Literal["WordPiece", "BPEDecoder", "CTC", "Strip"]
    prefix: Affix = ""
    suffix: Affix = ""
    content: Affix = ""
    pad_token: Affix = ""
    word_delimiter_token: Affix = ""
    cleanup: bool = True
    start: Count = 0
    stop: Count = 0


class Decoders(_Part):
    type: Literal["Sequence"]
    decoders: Annotated[list["Decoder"], Field(max_length=COMPONENTS)]


Decoder = Annotated[
    Plain | Affixes | ByteLevel | Metaspace | Replace | Decoders, Field(discriminator="type")
]


class Added(_Part):
    id: Count
    content: Token
    single_word: bool
    lstrip: bool
    rstrip: bool
    normalized: bool
    special: bool


class Off(_Part):
    """How it cut and padded: that is turned off before anything is read."""

    direction: Literal["Left", "Right"] = "Right"
    max_length: Count = 0
    stride: Count = 0
    strategy: Any = None
    pad_to_multiple_of: Count | None = None
    pad_id: Count = 0
    pad_type_id: Count = 0
    pad_token: Affix = ""


class File(_Part):
    """A whole `tokenizer.json`."""

    version: Literal["1.0"]
    truncation: Off | None = None
    padding: Off | None = None
    added_tokens: Annotated[list[Added], Field(max_length=ADDED)]
    normalizer: Normalizer | None = None
    pre_tokenizer: PreTokenizer | None = None
    post_processor: Processor | None = None
    decoder: Decoder | None = None
    model: Model
