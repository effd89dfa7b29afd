"""Which tokenizers may come in: those of common models, whatever wrote them."""

import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from lora_core.errors.artifact import TokenizerUnfit
from lora_core.imports import tokenizer
from lora_core.imports.charsmap import growth
from lora_core.imports.tokenizer_components import KnownRegex
from lora_core.imports.tokenizer_trial import try_out
from lora_core.samples import minilm
from tests.hostile_archives import TRIGGER, charsmap
from tests.tiny_base import FAMILIES
from tests.tiny_base import tokenizer as tiny

GPT2 = next(each for each in KnownRegex.__args__ if each.startswith("'s"))  # type: ignore[attr-defined]
VOCABULARY = {"<unk>": 0, "<s>": 1, "</s>": 2, "a": 3, "b": 4, "ab": 5}
MODELS = {
    "WordPiece": models.WordPiece(VOCABULARY, unk_token="<unk>"),
    "BPE": models.BPE(VOCABULARY, [("a", "b")], unk_token="<unk>"),
    "Unigram": models.Unigram([(token, -1.5) for token in VOCABULARY], unk_id=0),
    "WordLevel": models.WordLevel(VOCABULARY, unk_token="<unk>"),
}
NORMALIZERS = [
    normalizers.BertNormalizer(),
    normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]),
    normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), normalizers.Strip()]),
    normalizers.Sequence(  # as XLM-R has it
        [
            normalizers.Precompiled(base64.b64decode(charsmap("y"))),
            normalizers.Replace(Regex(" {2,}"), "\N{LOWER ONE EIGHTH BLOCK}"),
        ]
    ),
    normalizers.Sequence([normalizers.Prepend("x"), normalizers.Replace(" ", "_")]),
    normalizers.ByteLevel(),
]
PRE_TOKENIZERS = [
    pre_tokenizers.BertPreTokenizer(),
    pre_tokenizers.ByteLevel(),
    pre_tokenizers.Metaspace(),
    pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Digits()]),
    pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation()]),
    pre_tokenizers.Split(Regex(GPT2), "isolated"),
    pre_tokenizers.Split("x", "removed"),
    pre_tokenizers.CharDelimiterSplit("x"),
    pre_tokenizers.UnicodeScripts(),
    pre_tokenizers.FixedLength(5),
]
PROCESSORS = [
    processors.BertProcessing(("</s>", 2), ("<s>", 1)),
    processors.RobertaProcessing(("</s>", 2), ("<s>", 1)),
    processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 1), ("</s>", 2)],
    ),
    processors.Sequence(
        [
            processors.ByteLevel(),
            processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)]),
        ]
    ),
]
DECODERS = [
    decoders.WordPiece(),
    decoders.ByteLevel(),
    decoders.BPEDecoder(),
    decoders.CTC(),
    decoders.Metaspace(),
    decoders.Sequence([decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]),
    decoders.Sequence([decoders.Replace("_", " ")]),
]


def saved(made: Tokenizer, folder: Path) -> Path:
    path = folder / "tokenizer.json"
    made.save(str(path))
    return path


def built(name: str = "BPE", **parts: Any) -> Tokenizer:
    made = Tokenizer(MODELS[name])
    made.add_special_tokens(["<unk>", "<s>", "</s>"])
    for part, value in parts.items():
        setattr(made, part, value)
    return made


@pytest.mark.parametrize("family", list(FAMILIES))
def test_those_of_the_families_pass(family: str, tmp_path: Path) -> None:
    largest = tokenizer.check(saved(tiny(family), tmp_path))
    assert largest == max(tiny(family).get_vocab().values())
    try_out(tiny(family))


def test_that_of_the_sample_base_passes_in_a_moment() -> None:
    path = minilm.directory() / "tokenizer.json"
    began = time.process_time()
    assert tokenizer.check(path) == 30_521
    try_out(Tokenizer.from_file(str(path)))
    assert time.process_time() - began < 20  # tenths of a second


@pytest.mark.parametrize(
    "parts",
    [
        *({"normalizer": each} for each in NORMALIZERS),
        *({"pre_tokenizer": each} for each in PRE_TOKENIZERS),
        *({"post_processor": each} for each in PROCESSORS),
        *({"decoder": each} for each in DECODERS),
    ],
    ids=lambda parts: next(repr(value)[:60] for value in parts.values()),
)
def test_components_of_common_tokenizers_pass_as_the_library_writes_them(
    parts: dict[str, Any], tmp_path: Path
) -> None:
    made = built(**parts)
    assert tokenizer.check(saved(made, tmp_path)) == 5
    try_out(made)


@pytest.mark.parametrize("name", list(MODELS))
def test_every_kind_of_model_passes_with_cutting_and_padding_on(name: str, tmp_path: Path) -> None:
    made = built(name)
    made.enable_truncation(8, stride=2)
    made.enable_padding(length=8, pad_to_multiple_of=8)
    assert tokenizer.check(saved(made, tmp_path)) == 5


def test_what_older_versions_of_the_library_wrote_passes(tmp_path: Path) -> None:
    path = saved(built(pre_tokenizer=pre_tokenizers.Metaspace()), tmp_path)
    said = json.loads(path.read_text())
    said["model"]["merges"] = ["a b"]
    del said["model"]["ignore_merges"], said["pre_tokenizer"]["split"]
    said["pre_tokenizer"] |= {"str_rep": "_", "add_prefix_space": True}
    path.write_text(json.dumps(said))
    tokenizer.check(path)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("vocab", {"a": -1}),
        ("vocab", {"a": 1.5}),
        ("vocab", {"a": True}),
        ("vocab", [["a", 0]]),
        ("merges", [["a", "b", "c"]]),
        ("merges", "ab"),
        ("dropout", 0.5),
        ("unk_token", ["a"]),
        ("continuing_subword_prefix", "#" * 17),
        ("cache_capacity", 10**12),
    ],
)
def test_a_model_with_something_else_is_refused(place: str, value: Any, tmp_path: Path) -> None:
    path = saved(built(), tmp_path)
    said = json.loads(path.read_text())
    said["model"][place] = value
    path.write_text(json.dumps(said))
    with pytest.raises(TokenizerUnfit, match=place):
        tokenizer.check(path)


LENGTHENING: dict[str, Any] = {
    "doubling": normalizers.Replace("a", "aa"),
    "a letter of which NFKC makes 18": normalizers.Replace(
        "a", "\N{ARABIC LIGATURE SALLALLAHOU ALAYHE WASALLAM}"
    ),
    "two compatibility forms": normalizers.Sequence([normalizers.NFKC(), normalizers.NFKD()]),
    "bytes of bytes": normalizers.Sequence([normalizers.ByteLevel()] * 2),
    "two prefixes": normalizers.Sequence([normalizers.Prepend("x")] * 2),
    "much of one letter": normalizers.Precompiled(base64.b64decode(charsmap("abcdefg"))),
    "bytes of bytes, before the model": pre_tokenizers.Sequence([pre_tokenizers.ByteLevel()] * 2),
    "a prefix before each letter, and again": pre_tokenizers.Sequence(
        [pre_tokenizers.FixedLength(1), pre_tokenizers.Metaspace()] * 2
    ),
}


@pytest.mark.parametrize("name", list(LENGTHENING))
def test_what_makes_more_and_more_of_a_text_is_refused(name: str, tmp_path: Path) -> None:
    part = LENGTHENING[name]
    kind = "normalizer" if isinstance(part, normalizers.Normalizer) else "pre_tokenizer"
    with pytest.raises(TokenizerUnfit, match=r"more (than|characters)|letters of|pattern|match"):
        tokenizer.check(saved(built(**{kind: part}), tmp_path))


def test_growth_is_what_the_library_makes_of_a_letter() -> None:
    made = normalizers.Precompiled(base64.b64decode(charsmap("abcdefg")))
    assert made.normalize_str(f"x{TRIGGER}") == "xabcdefg"
    assert growth(charsmap("abcdefg")) == 7


def test_a_trie_that_leads_around_in_a_circle_or_beyond_its_end() -> None:
    circle = (0).to_bytes(4, "little") * 2
    for units in (
        [0, *((letter << 10) | letter for letter in range(1, 256))],  # each is below each
        [0, (0x1FFFFF << 10) | (1 << 8) | 1],  # a key whose value is elsewhere
        [],
    ):
        trie = b"".join(unit.to_bytes(4, "little") for unit in units)
        content = len(trie).to_bytes(4, "little") + trie + b"a\0"
        with pytest.raises(TokenizerUnfit):
            growth(base64.b64encode(content).decode())
    for content in (b"", b"\0" * 3, circle, (2**31).to_bytes(4, "little") + b"a"):
        with pytest.raises(TokenizerUnfit):
            growth(base64.b64encode(content).decode())
    with pytest.raises(TokenizerUnfit):
        growth("not base 64")


@pytest.mark.parametrize(
    ("normalizer", "problem"),
    [
        (normalizers.Replace(Regex("(?:a+a+)+$"), ""), "fails on a text"),
        (normalizers.Replace("a", "b c " * 12), "tokens of"),
    ],
)
def test_the_trial_finds_what_the_rules_would_miss(
    normalizer: normalizers.Normalizer, problem: str
) -> None:
    made = tiny()
    made.normalizer = normalizer
    with pytest.raises(TokenizerUnfit, match=problem):
        try_out(made)
