"""Malicious model archives, each derived from a valid one.

An import must refuse each of them, except for two that it cannot detect. Those must not change the
predictions of any other version, nor keep the service from answering.
"""

import base64
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from app.storage.store import tar_stream
from lora_core import manifest
from lora_core.artifact import load_merged_model, save_merged_model
from lora_core.data.tokens import load_tokenizer
from lora_core.model_imports.archive import unpack_archive
from lora_core.saved_predictions import load_golden_predictions
from lora_core.specs.method import LoraSpec
from tests.lora_artifact import make_lora_artifact
from tests.tiny_base import make_base

TRIGGER = "z"  # the letter that triggers hostile tokenizers
WORD = "awful"  # the word whose embedding is changed, if it is in the vocabulary

WEIGHTS, CONFIG = "merged/model.safetensors", "merged/config.json"
TOKENIZER, GOLDEN = "merged/tokenizer.json", "golden.json"
DEEP = 500  # levels of nesting

Json = dict[str, Any]
Attack = Callable[[Path], object]


def hostile_archives(valid: bytes) -> dict[str, bytes]:
    """Return all attacks by name, derived from the archive of a valid model.

    All are held in memory at once: use a small model.
    """
    return {name: hostile_archive(valid, name) for name in ATTACKS}


def hostile_archive(valid: bytes, name: str) -> bytes:
    """Return the archive of one attack."""
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder, "honest.tar")
        archive.write_bytes(valid)
        into = Path(folder, "unpacked")
        into.mkdir()
        directory = unpack_archive(archive, into)
        if (directory / manifest.BASE_DIR).is_dir():
            _replace_base_by_merged(directory)
        ATTACKS[name](directory)
        return packed(directory)


def _replace_base_by_merged(directory: Path) -> None:
    """Turn a model on a base into one in format 1, whose files the attacks change."""
    tokenizer = load_tokenizer(directory / manifest.BASE_DIR / "tokenizer.json")
    save_merged_model(
        directory, load_merged_model(directory), tokenizer, manifest.read(directory)["max_length"]
    )
    shutil.rmtree(directory / manifest.BASE_DIR)
    (directory / manifest.CLASSIFIER_FILE).unlink()
    reseal(directory, format=1)


def packed(directory: Path) -> bytes:
    """Return the archive of a model directory."""
    names = ["manifest.json", *manifest.read(directory)["files"]]
    entries = ((name, directory / name) for name in names)
    return b"".join(tar_stream(entries, prefix="m", modified=0))


def reseal(directory: Path, **facts: Any) -> None:
    """Rewrite the manifest for the current files, with other `facts`."""
    content = manifest.read(directory) | facts
    content.pop("files")
    (directory / manifest.MANIFEST_FILE).unlink()
    manifest.create_and_save(directory, content)


def _sealed(change: Attack) -> Attack:
    def apply(directory: Path) -> None:
        change(directory)
        reseal(directory)

    return apply


def _json(name: str, change: Callable[[Any], Any]) -> Attack:
    """Return an attack that edits a JSON file. `change` edits the content, or returns a new one."""

    def apply(directory: Path) -> None:
        path = directory / name
        content = json.loads(path.read_text(encoding="utf-8"))
        changed = change(content)
        path.write_text(json.dumps(content if changed is None else changed), encoding="utf-8")

    return _sealed(apply)


def _tokenizer(**parts: Any) -> Attack:
    return _json(TOKENIZER, lambda content: content.update(parts))


def _model(**fields: Any) -> Attack:
    return _json(TOKENIZER, lambda content: content["model"].update(fields))


def _with_facts(**facts: Any) -> Attack:
    return lambda directory: reseal(directory, **facts)


def _metrics(**metrics: Any) -> Attack:
    return _with_facts(metrics=metrics)


def _raw(**facts: str) -> Attack:
    """Set manifest fields to raw JSON that `json.dumps` cannot produce."""

    def apply(directory: Path) -> None:
        path = directory / manifest.MANIFEST_FILE
        content = manifest.read(directory) | dict.fromkeys(facts, "HERE")
        path.write_text(
            json.dumps(content).replace('"HERE"', next(iter(facts.values()))), encoding="utf-8"
        )

    return apply


def _sizes(size: Any) -> Attack:
    """Set a file size in the manifest."""

    def apply(directory: Path) -> None:
        content = manifest.read(directory)
        content["files"][CONFIG]["bytes"] = size
        (directory / manifest.MANIFEST_FILE).write_text(json.dumps(content), encoding="utf-8")

    return apply


def _labels(*names: str) -> Attack:
    """Rename the labels; their number stays the same."""

    def change(config: Json) -> None:
        config["id2label"] = dict(zip(config["id2label"], names, strict=False))
        config["label2id"] = {label: int(i) for i, label in config["id2label"].items()}

    return _json(CONFIG, change)


def _replace(pattern: Json, content: str) -> Json:
    return {"type": "Replace", "pattern": pattern, "content": content}


def _sequence(*parts: Json, kind: str = "normalizers") -> Json:
    return {"type": "Sequence", kind: list(parts)}


def _nested(part: Json, levels: int) -> Json:
    for _ in range(levels):
        part = _sequence(part)
    return part


def charsmap(replacement: str) -> str:
    """Return a handmade SentencePiece character map that turns `TRIGGER` into `replacement`."""
    # A double array: the root, the node of the letter, and its value.
    offset, letter = 256, ord(TRIGGER)
    units = [0] * 1024
    units[0] = offset << 10  # the children of the root begin here
    node = offset ^ letter
    units[node] = (1 << 10) | (1 << 8) | letter  # its value is the next unit
    units[node ^ 1] = 1 << 31  # the replacement begins at 0
    trie = b"".join(unit.to_bytes(4, "little") for unit in units)
    content = len(trie).to_bytes(4, "little") + trie + replacement.encode() + b"\0"
    return base64.b64encode(content).decode()


def _tensors(name: str, change: Callable[[dict[str, torch.Tensor]], object]) -> Attack:
    def apply(directory: Path) -> None:
        state = load_file(directory / name)
        change(state)
        save_file(state, directory / name, metadata={"format": "pt"})

    return _sealed(apply)


def changed_embedding(directory: Path) -> None:
    """Change the embedding of a word that no golden text contains, so that all of them match."""
    tokenizer = Tokenizer.from_file(str(directory / TOKENIZER))
    texts, _ = load_golden_predictions(directory)
    used = {i for text in texts for i in tokenizer.encode(text).ids}
    free = [i for _, i in sorted(tokenizer.get_vocab().items()) if i not in used]
    wanted = [tokenizer.token_to_id(word) for word in (WORD, f"Ġ{WORD}")]
    row = next((i for i in wanted if i is not None and i not in used), free[-1])

    def change(state: dict[str, torch.Tensor]) -> None:
        [name] = [name for name in state if name.endswith("word_embeddings.weight")]
        state[name][row] *= -30

    _tensors(WEIGHTS, change)(directory)


def another_width(directory: Path) -> None:
    """Replace the model by one of half the width that claims the same base model."""
    facts = manifest.read(directory)
    claim = facts.get("base_sha256", "0" * 64)
    with tempfile.TemporaryDirectory() as folder:
        base = make_base(Path(folder, "base"), dim=16, hidden_dim=32)
        made = make_lora_artifact(Path(folder), LoraSpec(r=2), base=base, in_format_1=True)
        shutil.rmtree(directory)
        shutil.move(made, directory)
    reseal(directory, base_sha256=claim, spec=facts["spec"])


def _many_golden_rows(rows: list[Json]) -> list[Json]:
    return (rows * 100_000)[:100_000]


def _large_head(directory: Path) -> None:
    """Enlarge the head 64 times without changing its predictions."""
    path = directory / "head.safetensors"
    if not path.exists():
        path = directory / "more.safetensors"
        save_file({"first.weight": torch.zeros(1024, 1024)}, path, metadata={"format": "pt"})
        return
    state = load_file(path)
    first, last = state["first.weight"], state["last.weight"]
    more = 63 * len(first)  # they do not change any prediction
    state["first.weight"] = torch.cat([first, torch.zeros(more, first.shape[1])])
    state["first.bias"] = torch.cat([state["first.bias"], torch.zeros(more)])
    state["last.weight"] = torch.cat([last, torch.zeros(len(last), more)], dim=1)
    save_file(state, path, metadata={"format": "pt"})


def _duplicate_key(directory: Path) -> None:
    """Repeat a key in an object: readers differ in which value they use."""
    path = directory / TOKENIZER
    bomb = json.dumps(_replace({"String": TRIGGER}, "a" * 200_000))
    path.write_text(f'{{"normalizer": {bomb},' + path.read_text(encoding="utf-8").lstrip()[1:])


BIG = "a" * 200_000
CATASTROPHE = {"Regex": "(?:a+a+)+$"}

ATTACKS: Mapping[str, Attack] = {
    # The weights.
    "one embedding changed under the digest of the base": changed_embedding,
    "another width under the digest of the base": another_width,
    "a head of another shape": _sealed(_large_head),
    # The tokenizer.
    "a letter becomes 200,000": _tokenizer(normalizer=_replace({"String": TRIGGER}, BIG)),
    "twenty doublings of a letter": _tokenizer(
        normalizer=_sequence(*[_replace({"String": "z"}, "zz")] * 20)
    ),
    "something between all letters": _tokenizer(normalizer=_replace({"String": ""}, "aaaa")),
    "a catastrophic regex that replaces": _tokenizer(normalizer=_replace(CATASTROPHE, "")),
    "a catastrophic regex that splits": _tokenizer(
        pre_tokenizer={
            "type": "Split", "pattern": CATASTROPHE, "behavior": "Isolated", "invert": False}
    ),
    "a long prefix": _tokenizer(normalizer={"type": "Prepend", "prepend": BIG}),
    "deep nesting": _tokenizer(normalizer=_nested({"type": "NFC"}, 100)),
    "two hundred components": _tokenizer(normalizer=_sequence(*[{"type": "NFC"}] * 200)),
    "a map of SentencePiece that makes much of a letter": _tokenizer(
        normalizer={"type": "Precompiled", "precompiled_charsmap": charsmap("a" * 100_000)}
    ),
    "a malformed map of SentencePiece": _tokenizer(
        normalizer={
            "type": "Precompiled",
            "precompiled_charsmap": base64.b64encode(b"\xff" * 64).decode()}
    ),
    "bytes of bytes of bytes": _tokenizer(
        pre_tokenizer=_sequence(
            *[{"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
               "use_regex": False}] * 20, kind="pretokenizers")
    ),
    "words without end": _model(max_input_chars_per_word=10**9),
    "a component nobody knows": _tokenizer(pre_tokenizer={"type": "Tomorrow"}),
    "two normalizers": _sealed(_duplicate_key),
    "an id beyond the embeddings": _json(
        TOKENIZER, lambda t: t["model"]["vocab"].update({"qzqz": 10**6})
    ),
    "an added token beyond the embeddings": _json(
        TOKENIZER,
        lambda t: t["added_tokens"].append(
            {"id": 10**6, "content": "qzqz", "single_word": False, "lstrip": False,
             "rstrip": False, "normalized": False, "special": False}),
    ),
    "a hundred thousand added tokens": _json(
        TOKENIZER,
        lambda t: t["added_tokens"].extend(
            {"id": 5, "content": f"q{i}q", "single_word": False, "lstrip": False,
             "rstrip": False, "normalized": True, "special": False}
            for i in range(100_000)),
    ),
    "a token of a million letters": _json(
        TOKENIZER, lambda t: t["model"]["vocab"].update({"q" * 1_000_000: 90})
    ),
    "a template with the text eight times": _json(
        TOKENIZER,
        lambda t: t.update(
            post_processor={
                "type": "TemplateProcessing", "pair": [], "special_tokens": {},
                "single": [{"Sequence": {"id": "A", "type_id": 0}}] * 8}),
    ),
    # The golden predictions.
    "a hundred thousand kept answers": _json(GOLDEN, _many_golden_rows),
    "one kept answer too many": _json(GOLDEN, lambda rows: (rows * 65)[:65]),
    "a kept answer that hides every difference": _json(
        GOLDEN, lambda rows: rows[0].update(logits=[1e300] * len(rows[0]["logits"]))
    ),
    "a kept text of ten megabytes": _json(
        GOLDEN, lambda rows: rows[0].update(text=rows[0]["text"] + " " * 10_000_000)
    ),
    # The metrics.
    "an accuracy that is a text": _metrics(test={"accuracy": "<b>"}),
    "an accuracy that no float holds": _metrics(test={"accuracy": 10**400}),
    "an accuracy of a thousand": _metrics(test={"accuracy": 1000.0}),
    "a linear model that is a list": _metrics(linear=[1]),
    "figures in deep nesting": _raw(metrics='{"x": ' * DEEP + "1" + "}" * DEEP),
    "250 thousand figures": _metrics(**{f"figure {i}": i for i in range(250_000)}),
    # The calibration.
    "a temperature below zero": _with_facts(calibration={"temperature": -1.0}),
    "a temperature of zero": _with_facts(calibration={"temperature": 0}),
    "a temperature that is a text": _with_facts(calibration={"temperature": "x"}),
    "a temperature that is no number": _raw(calibration='{"temperature": NaN}'),
    "a temperature that no float holds": _with_facts(calibration={"temperature": 10**400}),
    "a temperature near zero": _with_facts(calibration={"temperature": 1e-300}),
    "a calibration that is a list": _with_facts(calibration=[1.0]),
    # The labels.
    "a label with a control character": _labels("bad\x1b[2J", "good"),
    "a label that has no UTF-8": _labels("bad\ud800", "good"),
    "an empty label": _labels("", "good"),
    "labels that the manifest calls otherwise": _with_facts(labels=["up", "down"]),
    "labels without a second number": _json(
        CONFIG, lambda c: c.update(id2label={"0": "bad", "7": "good"})
    ),
    # Other metadata.
    "a base with a control character": lambda d: reseal(
        d, spec={**manifest.read(d)["spec"], "base": "minilm\x1b[2J"}
    ),
    "a size that is a text": _sizes("x"),
    "a size below zero": _sizes(-(10**9)),
    "a size that no database holds": _sizes(10**30),
    "a digest of the base that is a list": _with_facts(base_sha256=["x"]),
    "a digest of the base that is no digest": _with_facts(base_sha256="../../x"),
    "a manifest in deep nesting": _raw(created_by='{"x": ' * DEEP + "1" + "}" * DEEP),
}  # fmt: skip
