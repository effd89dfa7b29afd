"""The components that the tokenizer of an import may have, with bounded parameters.

Names and fields are those of `tokenizer.json`. Fields that no version of the library wrote are
refused.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, model_validator

MAX_VOCABULARY = 1_000_000
MAX_TOKEN_CHARACTERS = 256  # GPT-2 has a token of 128
MAX_PIECE_CHARACTERS = 128  # Unigram tries each length at each position
MAX_ADDED_TOKENS = 2_000
MAX_CHARSMAP_BYTES = 1_000_000  # the map of `nmt_nfkc` has 240,007
MAX_COMPONENTS = 32  # of one type, including those in sequences
MAX_AFFIX_CHARACTERS = 16  # that a component inserts

TokenId = Annotated[int, Field(ge=0, lt=2**31)]
Token = Annotated[str, Field(min_length=1, max_length=MAX_TOKEN_CHARACTERS)]
Affix = Annotated[str, Field(max_length=MAX_AFFIX_CHARACTERS)]
Inserted = Annotated[
    str, Field(max_length=MAX_AFFIX_CHARACTERS, pattern="^[ -~\N{LOWER ONE EIGHTH BLOCK}]*$")
]
Character = Annotated[str, Field(min_length=1, max_length=1)]
PrependScheme = Literal["always", "never", "first"]
Behavior = Literal["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]
# From tokenizers that transformers ships; each takes time linear in the text.
KnownRegex = Literal[
    r" {2,}",
    r"\s+",
    r"\s{2,}|[\n\r\t]",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
]


class StrictTokenizerSchema(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class TextPattern(StrictTokenizerSchema):
    String: Annotated[str, Field(min_length=1, max_length=MAX_AFFIX_CHARACTERS)] | None = None
    Regex: KnownRegex | None = None

    @model_validator(mode="after")
    def _one(self) -> "TextPattern":
        if (self.String is None) == (self.Regex is None):
            raise ValueError("must have either String or Regex")
        return self


class Replace(StrictTokenizerSchema):
    """A replacement by no more characters, and by none that another normalizer expands."""

    type: Literal["Replace"]
    pattern: TextPattern
    content: Inserted

    @model_validator(mode="after")
    def _must_not_lengthen(self) -> "Replace":
        shortest = len(self.pattern.String or ("  " if self.pattern.Regex == r" {2,}" else " "))
        if len(self.content) > shortest:
            raise ValueError("must not be longer than the text that it replaces")
        return self


# -- normalizers ---------------------------------------------------------------------------------


class PlainNormalizer(StrictTokenizerSchema):
    type: Literal["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt", "ByteLevel"]


class BertNormalizer(StrictTokenizerSchema):
    type: Literal["BertNormalizer"]
    clean_text: bool
    handle_chinese_chars: bool
    strip_accents: bool | None = None
    lowercase: bool


class StripNormalizer(StrictTokenizerSchema):
    type: Literal["Strip"]
    strip_left: bool
    strip_right: bool


class PrependNormalizer(StrictTokenizerSchema):
    type: Literal["Prepend"]
    prepend: Annotated[Inserted, Field(max_length=1)]


class PrecompiledCharsmapNormalizer(StrictTokenizerSchema):
    type: Literal["Precompiled"]
    precompiled_charsmap: Annotated[str, Field(max_length=4 * MAX_CHARSMAP_BYTES // 3 + 4)] | None


class NormalizerSequence(StrictTokenizerSchema):
    type: Literal["Sequence"]
    normalizers: Annotated[list["Normalizer"], Field(max_length=MAX_COMPONENTS)]


Normalizer = Annotated[
    PlainNormalizer
    | BertNormalizer
    | StripNormalizer
    | PrependNormalizer
    | Replace
    | PrecompiledCharsmapNormalizer
    | NormalizerSequence,
    Field(discriminator="type"),
]

# -- pre-tokenizers ------------------------------------------------------------------------------


class WordPreTokenizer(StrictTokenizerSchema):
    type: Literal["BertPreTokenizer", "Whitespace", "WhitespaceSplit", "UnicodeScripts"]


class ByteLevel(StrictTokenizerSchema):
    """Also used as post-processor and decoder."""

    type: Literal["ByteLevel"]
    add_prefix_space: bool = True
    trim_offsets: bool = True
    use_regex: bool = True


class Metaspace(StrictTokenizerSchema):
    """Also used as decoder."""

    type: Literal["Metaspace"]
    replacement: Character
    prepend_scheme: PrependScheme = "always"
    split: bool = True
    add_prefix_space: bool | None = None  # written by older versions of the library
    str_rep: Character | None = None


class PunctuationPreTokenizer(StrictTokenizerSchema):
    type: Literal["Punctuation"]
    behavior: Behavior = "Isolated"


class DigitsPreTokenizer(StrictTokenizerSchema):
    type: Literal["Digits"]
    individual_digits: bool


class SplitPreTokenizer(StrictTokenizerSchema):
    type: Literal["Split"]
    pattern: TextPattern
    behavior: Behavior
    invert: bool


class CharDelimiterPreTokenizer(StrictTokenizerSchema):
    type: Literal["CharDelimiterSplit"]
    delimiter: Character


class FixedLengthPreTokenizer(StrictTokenizerSchema):
    type: Literal["FixedLength"]
    length: Annotated[int, Field(ge=1, lt=2**31)]


class PreTokenizerSequence(StrictTokenizerSchema):
    type: Literal["Sequence"]
    pretokenizers: Annotated[list["PreTokenizer"], Field(max_length=MAX_COMPONENTS)]


PreTokenizer = Annotated[
    WordPreTokenizer
    | ByteLevel
    | Metaspace
    | PunctuationPreTokenizer
    | DigitsPreTokenizer
    | SplitPreTokenizer
    | CharDelimiterPreTokenizer
    | FixedLengthPreTokenizer
    | PreTokenizerSequence,
    Field(discriminator="type"),
]

# -- models --------------------------------------------------------------------------------------


def _is_token(value: Any, max_characters: int = MAX_TOKEN_CHARACTERS) -> bool:
    return isinstance(value, str) and len(value) <= max_characters


def _check_vocabulary(value: Any) -> dict[str, int]:
    """Validate in one step: pydantic would report an error for each entry."""
    if not isinstance(value, dict) or len(value) > MAX_VOCABULARY:
        raise ValueError(f"must be an object of at most {MAX_VOCABULARY:,} tokens")
    if not all(_is_token(k) and type(v) is int and 0 <= v < 2**31 for k, v in value.items()):
        raise ValueError(f"must have ids, of tokens of at most {MAX_TOKEN_CHARACTERS} characters")
    return value


def _check_pieces(value: Any) -> list[tuple[str, float]]:
    if not isinstance(value, list) or len(value) > MAX_VOCABULARY:
        raise ValueError(f"must be a list of at most {MAX_VOCABULARY:,} pieces")
    for piece in value:
        if (
            not isinstance(piece, list)
            or len(piece) != 2
            or not _is_token(piece[0], MAX_PIECE_CHARACTERS)
        ):
            raise ValueError(f"must have pieces of at most {MAX_PIECE_CHARACTERS} characters")
        if type(piece[1]) is not float and type(piece[1]) is not int:
            raise ValueError("must have a score for each piece")
        if not abs(piece[1]) <= 1e30:
            raise ValueError("must have finite scores")
    return value


def _check_merges(value: Any) -> list[Any]:
    """Validate merges: pairs of tokens, or texts with a space between them."""
    if not isinstance(value, list) or len(value) > MAX_VOCABULARY:
        raise ValueError(f"must be a list of at most {MAX_VOCABULARY:,} merges")
    for merge in value:
        pair = merge if isinstance(merge, list) else [merge]
        if len(pair) > 2 or not all(
            isinstance(x, str) and len(x) <= 2 * MAX_TOKEN_CHARACTERS for x in pair
        ):
            raise ValueError("must be pairs of tokens")
    return value


Vocabulary = Annotated[dict[str, int], PlainValidator(_check_vocabulary)]


class WordPiece(StrictTokenizerSchema):
    type: Literal["WordPiece"]
    unk_token: Token
    continuing_subword_prefix: Affix
    max_input_chars_per_word: Annotated[int, Field(ge=1, le=200)]  # time is cubic in them
    vocab: Vocabulary

    def ids(self) -> Sequence[int]:
        return list(self.vocab.values())


class BPE(StrictTokenizerSchema):
    type: Literal["BPE"]
    dropout: Annotated[float, Field(ge=0, le=0)] | None = None  # otherwise tokenization is random
    unk_token: Token | None = None
    continuing_subword_prefix: Affix | None = None
    end_of_word_suffix: Affix | None = None
    fuse_unk: bool = False
    byte_fallback: bool = False
    ignore_merges: bool = False
    vocab: Vocabulary
    merges: Annotated[list[Any], PlainValidator(_check_merges)]

    def ids(self) -> Sequence[int]:
        return list(self.vocab.values())


class Unigram(StrictTokenizerSchema):
    type: Literal["Unigram"]
    unk_id: TokenId | None = None
    byte_fallback: bool = False
    vocab: Annotated[list[tuple[str, float]], PlainValidator(_check_pieces)]

    def ids(self) -> Sequence[int]:
        return range(len(self.vocab))


class WordLevel(StrictTokenizerSchema):
    type: Literal["WordLevel"]
    unk_token: Token
    vocab: Vocabulary

    def ids(self) -> Sequence[int]:
        return list(self.vocab.values())


Model = Annotated[WordPiece | BPE | Unigram | WordLevel, Field(discriminator="type")]

# -- what follows: special tokens, decoders ------------------------------------------------------

SpecialTokenAndId = Annotated[tuple[Token, TokenId], Field(strict=False)]


class BertOrRobertaProcessing(StrictTokenizerSchema):
    """Adds a special token before a text, and one after it."""

    type: Literal["BertProcessing", "RobertaProcessing"]
    sep: SpecialTokenAndId
    cls: SpecialTokenAndId
    trim_offsets: bool = True
    add_prefix_space: bool = True


class TemplateReference(StrictTokenizerSchema):
    """A special token of a template, or the text."""

    id: Token
    type_id: Annotated[int, Field(ge=0, le=1)]


class TemplatePiece(StrictTokenizerSchema):
    SpecialToken: TemplateReference | None = None
    Sequence: TemplateReference | None = None


class TemplateSpecialToken(StrictTokenizerSchema):
    id: Token
    ids: Annotated[list[TokenId], Field(max_length=1)]
    tokens: Annotated[list[Token], Field(max_length=1)]


class TemplateProcessing(StrictTokenizerSchema):
    type: Literal["TemplateProcessing"]
    single: Annotated[list[TemplatePiece], Field(max_length=8)]
    pair: Annotated[list[TemplatePiece], Field(max_length=16)]
    special_tokens: Annotated[dict[Token, TemplateSpecialToken], Field(max_length=16)]

    @model_validator(mode="after")
    def _each_text_once(self) -> "TemplateProcessing":
        for template, texts in (("single", ["A"]), ("pair", ["A", "B"])):
            pieces: list[TemplatePiece] = getattr(self, template)
            if [piece.Sequence.id for piece in pieces if piece.Sequence is not None] != texts:
                raise ValueError(f"must contain each text exactly once, in order, in `{template}`")
        return self


class PostProcessorSequence(StrictTokenizerSchema):
    type: Literal["Sequence"]
    processors: Annotated[list["PostProcessor"], Field(max_length=4)]


PostProcessor = Annotated[
    BertOrRobertaProcessing | TemplateProcessing | ByteLevel | PostProcessorSequence,
    Field(discriminator="type"),
]


class PlainDecoder(StrictTokenizerSchema):
    type: Literal["ByteFallback", "Fuse"]


class AffixDecoder(StrictTokenizerSchema):
    """Nothing is decoded here, so only the length of settings is bounded."""

    type: Literal["WordPiece", "BPEDecoder", "CTC", "Strip"]
    prefix: Affix = ""
    suffix: Affix = ""
    content: Affix = ""
    pad_token: Affix = ""
    word_delimiter_token: Affix = ""
    cleanup: bool = True
    start: TokenId = 0
    stop: TokenId = 0


class DecoderSequence(StrictTokenizerSchema):
    type: Literal["Sequence"]
    decoders: Annotated[list["Decoder"], Field(max_length=MAX_COMPONENTS)]


Decoder = Annotated[
    PlainDecoder | AffixDecoder | ByteLevel | Metaspace | Replace | DecoderSequence,
    Field(discriminator="type"),
]


class AddedToken(StrictTokenizerSchema):
    id: TokenId
    content: Token
    single_word: bool
    lstrip: bool
    rstrip: bool
    normalized: bool
    special: bool


class TruncationAndPadding(StrictTokenizerSchema):
    """Settings of truncation and padding, which are turned off after loading."""

    direction: Literal["Left", "Right"] = "Right"
    max_length: TokenId = 0
    stride: TokenId = 0
    strategy: Any = None
    pad_to_multiple_of: TokenId | None = None
    pad_id: TokenId = 0
    pad_type_id: TokenId = 0
    pad_token: Affix = ""


class TokenizerFile(StrictTokenizerSchema):
    """A complete `tokenizer.json`."""

    version: Literal["1.0"]
    truncation: TruncationAndPadding | None = None
    padding: TruncationAndPadding | None = None
    added_tokens: Annotated[list[AddedToken], Field(max_length=MAX_ADDED_TOKENS)]
    normalizer: Normalizer | None = None
    pre_tokenizer: PreTokenizer | None = None
    post_processor: PostProcessor | None = None
    decoder: Decoder | None = None
    model: Model
