"""Which tokenizers are accepted: those of common models, whichever version wrote them."""

import base64
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from lora_core.errors.artifact import UnsupportedTokenizer
from lora_core.model_imports import tokenizer
from lora_core.model_imports.tokenizer import max_charsmap_expansion, stress_test_tokenizer
from lora_core.model_imports.tokenizer_schema import KnownRegex
from lora_core.samples import minilm
from tests.hostile_archives import TRIGGER, charsmap
from tests.slow import slow_but
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


def save_tokenizer(made: Tokenizer, folder: Path) -> Path:
    path = folder / "tokenizer.json"
    made.save(str(path))
    return path


def build_tokenizer(name: str = "BPE", **parts: Any) -> Tokenizer:
    made = Tokenizer(MODELS[name])
    made.add_special_tokens(["<unk>", "<s>", "</s>"])
    for part, value in parts.items():
        setattr(made, part, value)
    return made


@pytest.mark.parametrize("family", slow_but(FAMILIES, "bert", "xlm-roberta"))
def test_family_tokenizers_are_accepted(family: str, tmp_path: Path) -> None:
    largest = tokenizer.validate_tokenizer_get_max_id(save_tokenizer(tiny(family), tmp_path))
    assert largest == max(tiny(family).get_vocab().values())
    stress_test_tokenizer(tiny(family))


def test_sample_tokenizer_is_accepted_quickly() -> None:
    path = minilm.build_cached_checkpoint() / "tokenizer.json"
    began = time.process_time()
    assert tokenizer.validate_tokenizer_get_max_id(path) == 30_521
    stress_test_tokenizer(Tokenizer.from_file(str(path)))
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
def test_common_components_are_accepted(
    parts: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer, "_TEXT_CHARACTERS", 400)  # those of families read whole texts
    made = build_tokenizer(**parts)
    assert tokenizer.validate_tokenizer_get_max_id(save_tokenizer(made, tmp_path)) == 5
    stress_test_tokenizer(made)


@pytest.mark.parametrize("name", list(MODELS))
def test_truncation_and_padding_settings_are_accepted(name: str, tmp_path: Path) -> None:
    made = build_tokenizer(name)
    made.enable_truncation(8, stride=2)
    made.enable_padding(length=8, pad_to_multiple_of=8)
    assert tokenizer.validate_tokenizer_get_max_id(save_tokenizer(made, tmp_path)) == 5


def test_older_file_versions_are_accepted(tmp_path: Path) -> None:
    path = save_tokenizer(build_tokenizer(pre_tokenizer=pre_tokenizers.Metaspace()), tmp_path)
    content = json.loads(path.read_text())
    content["model"]["merges"] = ["a b"]
    del content["model"]["ignore_merges"], content["pre_tokenizer"]["split"]
    content["pre_tokenizer"] |= {"str_rep": "_", "add_prefix_space": True}
    path.write_text(json.dumps(content))
    tokenizer.validate_tokenizer_get_max_id(path)


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
def test_invalid_model_setting_is_refused(place: str, value: Any, tmp_path: Path) -> None:
    path = save_tokenizer(build_tokenizer(), tmp_path)
    content = json.loads(path.read_text())
    content["model"][place] = value
    path.write_text(json.dumps(content))
    with pytest.raises(UnsupportedTokenizer, match=place):
        tokenizer.validate_tokenizer_get_max_id(path)


@pytest.mark.parametrize(
    ("template", "texts"), [("single", "AA"), ("pair", "AAB"), ("pair", "A"), ("pair", ["B", "A"])]
)
def test_template_must_contain_each_text_once(
    template: str, texts: Sequence[str], tmp_path: Path
) -> None:
    path = save_tokenizer(build_tokenizer(post_processor=PROCESSORS[2]), tmp_path)
    content = json.loads(path.read_text())
    pieces = [{"Sequence": {"id": text, "type_id": 0}} for text in texts]
    content["post_processor"][template] = pieces
    path.write_text(json.dumps(content))
    with pytest.raises(UnsupportedTokenizer, match=f"exactly once, in order, in `{template}`"):
        tokenizer.validate_tokenizer_get_max_id(path)


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
def test_expanding_components_are_refused(name: str, tmp_path: Path) -> None:
    part = LENGTHENING[name]
    kind = "normalizer" if isinstance(part, normalizers.Normalizer) else "pre_tokenizer"
    with pytest.raises(
        UnsupportedTokenizer, match=r"more than|longer than|characters per byte|pattern|match"
    ):
        tokenizer.validate_tokenizer_get_max_id(
            save_tokenizer(build_tokenizer(**{kind: part}), tmp_path)
        )


def test_max_expansion_matches_the_library() -> None:
    made = normalizers.Precompiled(base64.b64decode(charsmap("abcdefg")))
    assert made.normalize_str(f"x{TRIGGER}") == "xabcdefg"
    assert max_charsmap_expansion(charsmap("abcdefg")) == 7


def test_cyclic_or_dangling_trie_is_refused() -> None:
    circle = (0).to_bytes(4, "little") * 2
    for units in (
        [0, *((letter << 10) | letter for letter in range(1, 256))],  # each is below each
        [0, (0x1FFFFF << 10) | (1 << 8) | 1],  # a key whose value is elsewhere
        [],
    ):
        trie = b"".join(unit.to_bytes(4, "little") for unit in units)
        content = len(trie).to_bytes(4, "little") + trie + b"a\0"
        with pytest.raises(UnsupportedTokenizer):
            max_charsmap_expansion(base64.b64encode(content).decode())
    for content in (b"", b"\0" * 3, circle, (2**31).to_bytes(4, "little") + b"a"):
        with pytest.raises(UnsupportedTokenizer):
            max_charsmap_expansion(base64.b64encode(content).decode())
    with pytest.raises(UnsupportedTokenizer):
        max_charsmap_expansion("not base 64")


@pytest.mark.parametrize(
    ("normalizer", "problem"),
    [
        (normalizers.Replace(Regex("(?:a+a+)+$"), ""), "fails on a text"),
        (normalizers.Replace("a", "b c " * 12), "tokens for"),
    ],
)
def test_trial_detects_slow_or_expanding_tokenizers(
    normalizer: normalizers.Normalizer, problem: str
) -> None:
    made = tiny()
    made.normalizer = normalizer
    with pytest.raises(UnsupportedTokenizer, match=problem):
        stress_test_tokenizer(made)
