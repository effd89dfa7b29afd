"""Adapters trained by `peft`, imported as artifacts."""

import json
import re
import warnings
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from lora_core import manifest
from lora_core.artifact import (
    inject_saved_adapter,
    load_base_with_head,
    read_saved_adapter,
    resolve_base_or_artifact,
)
from lora_core.encoders.load import encoder_weights_sha256, load_classifier
from lora_core.errors.adapter import (
    AdapterBaseNotNamed,
    AdapterLabelCountMismatch,
    AdapterNotFinite,
    AdapterNotFound,
    AdapterShapeMismatch,
    AdapterTensorNamesMismatch,
    UnsupportedAdapterSetting,
)
from lora_core.errors.artifact import (
    ArtifactCorrupt,
    SafetensorsHeaderTooLarge,
    UnsupportedTokenizer,
)
from lora_core.errors.base_model import (
    BaseNotFound,
    PairsNotSeparated,
    SpecialTokensNotAdded,
    UnsafeWeights,
)
from lora_core.errors.spec import MaxLengthTooLarge, PairsInWindowsUnsupported
from lora_core.export.hugging_face import export_adapter
from lora_core.inference.predictor import Predictor
from lora_core.model_card import ExportFormat, model_card
from lora_core.model_imports.peft import import_adapter
from lora_core.peft_format import DEFAULTS, AdapterConfig
from lora_core.saved_predictions import check_golden_predictions
from lora_core.specs.chat import PromptFormat
from lora_core.specs.data import DataSpec
from lora_core.specs.method import LoraSpec
from lora_core.specs.task import MultiLabelSpec, RegressionSpec, SingleLabelSpec, TaskSpec
from lora_core.tasks.base import Calibration
from tests.lora_artifact import make_lora_artifact
from tests.slow import slow_but
from tests.tiny_base import FAMILIES, make_base, tokenizer

TEXTS = ["a good film", "not a very good story and it was boring", "dull"]
QUERY = dict.fromkeys(FAMILIES, "query") | {"distilbert": "q_lin", "modernbert": "Wqkv"}
MLP = dict.fromkeys(FAMILIES, "intermediate.dense") | {"distilbert": "lin1", "modernbert": "Wi"}
WORDS = dict.fromkeys(FAMILIES, "word_embeddings") | {"modernbert": "tok_embeddings"}
LAYERS = dict.fromkeys(FAMILIES, "layer") | {"modernbert": "layers"}
Change = Callable[[dict[str, Any], dict[str, Tensor]], object]


class TrainedAdapter:
    """An adapter of `peft` and its logits in PEFT."""

    def __init__(self, folder: Path, family: str, labels: int = 2, **settings: Any) -> None:
        self.base = make_base(folder / "base", family)
        self.directory = folder / "adapter"
        model, _ = load_classifier(
            resolve_base_or_artifact(str(self.base)), [str(i) for i in range(labels)]
        )
        wanted: dict[str, Any] = {
            "r": 3,
            "lora_alpha": 5,
            "target_modules": [QUERY[family]],
        } | settings
        if family == "bert" and wanted["target_modules"] != "all-linear":
            wanted["modules_to_save"] = ["pooler", *wanted.get("modules_to_save", ())]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wrapped = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", **wanted))
        torch.manual_seed(3)
        for name, parameter in wrapped.named_parameters():
            if parameter.requires_grad:
                nn.init.normal_(parameter, mean=float("magnitude" in name), std=0.1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wrapped.save_pretrained(self.directory)
        self.logits = compute_logits(wrapped, family)
        path = self.directory / "adapter_config.json"
        config = json.loads(path.read_text())
        path.write_text(json.dumps(config | {"base_model_name_or_path": str(self.base)}))

    def change(self, change: Change) -> None:
        config_file = self.directory / "adapter_config.json"
        weights_file = self.directory / "adapter_model.safetensors"
        config, tensors = json.loads(config_file.read_text()), load_file(weights_file)
        change(config, tensors)
        config_file.write_text(json.dumps(config))
        save_file(tensors, weights_file)


@torch.inference_mode()
def compute_logits(model: PreTrainedModel, family: str) -> Tensor:
    """One text at a time, so that nothing is padded."""
    ids = [torch.tensor([tokenizer(family).encode(text).ids]) for text in TEXTS]
    return torch.cat([model.eval()(one).logits for one in ids])


def check_logits(adapter: TrainedAdapter, artifact: Path) -> None:
    predictor = Predictor.load(artifact)
    found = predictor.forward(predictor.encode(TEXTS))
    torch.testing.assert_close(found, adapter.logits, rtol=1e-5, atol=1e-5)


def check_adapter(adapter: TrainedAdapter, artifact: Path, family: str) -> None:
    """`adapter.*` on the base, with the head of the artifact, gives the same without merging."""
    content = json.loads((artifact / "adapter.json").read_text())
    assert content["encoder"] == family
    base = resolve_base_or_artifact(str(adapter.base))
    model = load_base_with_head(artifact)
    original, _ = load_classifier(base, ["x", "y"])
    digests = [encoder_weights_sha256(each, base.family) for each in (model, original)]
    assert digests[0] == digests[1] == manifest.read(artifact)["base_sha256"]
    inject_saved_adapter(model, read_saved_adapter(artifact))
    torch.testing.assert_close(compute_logits(model, family), adapter.logits, rtol=1e-5, atol=1e-5)


KINDS: dict[str, Callable[[str], dict[str, Any]]] = {
    "lora": lambda _: {},
    "rslora": lambda _: {"use_rslora": True},
    "dora": lambda _: {"use_dora": True},
    "dora with the scale of rslora": lambda _: {"use_dora": True, "use_rslora": True},
    "dropout": lambda _: {"lora_dropout": 0.1, "init_lora_weights": "gaussian"},
    "a pattern": lambda f: {"target_modules": rf".*\.\d+\..*\.{QUERY[f]}"},
    "one layer": lambda f: {"layers_to_transform": [1], "layers_pattern": LAYERS[f]},
    "one layer by number": lambda _: {"layers_to_transform": 0},
    "one rank for all by pattern": lambda f: {"rank_pattern": {QUERY[f]: 2}},
    "one alpha for all by pattern": lambda f: {"alpha_pattern": {f"{LAYERS[f]}.*.{QUERY[f]}": 9}},
}
MIXED: dict[str, Callable[[str], dict[str, Any]]] = {
    "ranks": lambda f: {"rank_pattern": {rf"{LAYERS[f]}.1.*{QUERY[f]}": 2}},
    "alphas": lambda f: {"alpha_pattern": {rf"{LAYERS[f]}\.0\..*{QUERY[f]}": 2}},
    "half of a role": lambda f: {"target_modules": [MLP[f]]},
    "another role in each layer": lambda f: {
        "target_modules": rf".*{LAYERS[f]}\.(0\..*{QUERY[f]}|1\..*{MLP[f]})"
    },
    "a part in full": lambda f: {"modules_to_save": [WORDS[f]]},
}


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("family", slow_but(FAMILIES, "roberta", "modernbert"))
def test_imported_adapter_matches_peft(family: str, kind: str, tmp_path: Path) -> None:
    adapter = TrainedAdapter(tmp_path, family, **KINDS[kind](family))
    facts = import_adapter(adapter.directory, tmp_path / "artifact")
    check_logits(adapter, tmp_path / "artifact")
    check_adapter(adapter, tmp_path / "artifact", family)
    assert facts["spec"]["method"]["type"] == "lora"
    assert facts["spec"]["base"] == str(adapter.base)
    assert facts["labels"] == ["LABEL_0", "LABEL_1"]
    assert facts["max_length"] == 64


def test_pooler_adapter_is_merged_into_the_head(tmp_path: Path) -> None:
    """`all-linear` adapts it. On DistilBERT, `peft` 0.21 cannot do it."""
    adapter = TrainedAdapter(tmp_path, "bert", target_modules="all-linear")
    keys = load_file(adapter.directory / "adapter_model.safetensors")
    assert "base_model.model.bert.pooler.dense.lora_A.weight" in keys
    facts = import_adapter(adapter.directory, tmp_path / "artifact")
    check_logits(adapter, tmp_path / "artifact")
    check_adapter(adapter, tmp_path / "artifact", "bert")
    assert facts["spec"]["method"]["targets"] == ["query", "key", "value", "projection", "mlp"]


@pytest.mark.parametrize("kind", list(MIXED))
@pytest.mark.parametrize("family", slow_but(FAMILIES, "roberta", "modernbert"))
def test_adapter_without_a_matching_spec_is_merged(family: str, kind: str, tmp_path: Path) -> None:
    adapter = TrainedAdapter(tmp_path, family, **MIXED[kind](family))
    facts = import_adapter(adapter.directory, tmp_path / "artifact")
    check_logits(adapter, tmp_path / "artifact")
    assert facts["spec"]["method"] == {"type": "merged"}
    assert not list((tmp_path / "artifact").glob("adapter*"))


def test_label_names_from_sidecar_or_argument(tmp_path: Path) -> None:
    adapter = TrainedAdapter(tmp_path, "distilbert", labels=3)
    (adapter.directory / "id2label.json").write_text('{"0": "bad", "1": " so-so", "2": "good "}')
    sidecar = import_adapter(adapter.directory, tmp_path / "one", max_length=16)
    assert (sidecar["labels"], sidecar["max_length"]) == (["bad", "so-so", "good"], 16)
    given = import_adapter(adapter.directory, tmp_path / "two", labels=["x", " y", "z "])
    assert given["labels"] == ["x", "y", "z"]
    check_logits(adapter, tmp_path / "two")
    for labels in (["x", "y"], ["x", "x ", "y"]):
        with pytest.raises(AdapterLabelCountMismatch):
            import_adapter(adapter.directory, tmp_path / "three", labels=labels)
    with pytest.raises(MaxLengthTooLarge):
        import_adapter(adapter.directory, tmp_path / "three", max_length=65)


def test_defaults_match_peft() -> None:
    theirs = {
        each.name: each.default if each.default_factory is MISSING else each.default_factory()
        for each in fields(LoraConfig)
    }
    theirs.pop("runtime_config")  # never written
    assert {name: theirs.get(name) for name in DEFAULTS} == DEFAULTS
    read = set(AdapterConfig.model_fields)
    assert theirs.keys() - read - DEFAULTS.keys() == {"inference_mode", "peft_version"}
    assert not read & DEFAULTS.keys()


NOT_DEFAULT: dict[str, Any] = {
    "bias": "all",
    "fan_in_fan_out": True,
    "exclude_modules": ["x"],
    "lora_bias": True,
    "layer_replication": [[0, 1]],
    "trainable_token_indices": [1],
    "megatron_core": "other",
    "qalora_group_size": 8,
    "use_qalora": True,
    "task_type": "CAUSAL_LM",
    "peft_type": "LOHA",
    "init_lora_weights": "pissa",
    "r": 0,
    "lora_alpha": -1,
    "rank_pattern": {"x": "y"},
    "target_modules": "(",
    "a_setting_of_tomorrow": {"on": True},
}


@pytest.mark.parametrize("key", list(NOT_DEFAULT))
def test_unsupported_setting_is_refused(key: str, tmp_path: Path) -> None:
    adapter = TrainedAdapter(tmp_path, "distilbert")
    adapter.change(lambda config, _: config.update({key: NOT_DEFAULT[key]}))
    with pytest.raises(UnsupportedAdapterSetting, match=f"has {key} = "):
        import_adapter(adapter.directory, tmp_path / "artifact")
    assert not (tmp_path / "artifact").exists()


def test_unknown_setting_that_is_off_is_accepted(tmp_path: Path) -> None:
    adapter = TrainedAdapter(tmp_path, "distilbert")
    adapter.change(lambda config, _: config.update(tomorrow=None, peft_version="9.0"))
    import_adapter(adapter.directory, tmp_path / "artifact")


FIRST = "base_model.model.distilbert.transformer.layer.0.attention.q_lin"
DAMAGES: dict[str, tuple[Change, type[Exception], str]] = {
    "a tensor is missing": (
        lambda _, t: t.pop(f"{FIRST}.lora_B.weight"), AdapterTensorNamesMismatch, "missing"),
    "a tensor too many": (
        lambda _, t: t.update({f"{FIRST}.lora_C.weight": torch.zeros(2)}),
        AdapterTensorNamesMismatch,
        "unexpected"),
    "another prefix": (
        lambda _, t: t.update({"model.x": torch.zeros(2)}), AdapterTensorNamesMismatch,
        "unexpected"),
    "an adapter that the config does not name": (
        lambda c, _: c.update(target_modules=["k_lin"]), AdapterTensorNamesMismatch, "k_lin"),
    "no classifier": (
        lambda _, t: [t.pop(f"base_model.model.classifier.{p}") for p in ("weight", "bias")],
        AdapterTensorNamesMismatch, "here and in the base model"),
    "another rank": (lambda c, _: c.update(r=2), AdapterShapeMismatch, r"\[3, 32\].*\[2, 32\]"),
    "another base": (
        lambda _, t: t.update({f"{FIRST}.lora_A.weight": torch.zeros(3, 40)}), AdapterShapeMismatch,
        r"\[3, 40\]"),
    "not a number": (
        lambda _, t: t[f"{FIRST}.lora_A.weight"].fill_(torch.nan), AdapterNotFinite,
        "q_lin"),
    "infinite": (
        lambda _, t: t["base_model.model.classifier.bias"].fill_(torch.inf),
        AdapterNotFinite, "classifier"),
    "float8": (
        lambda _, t: t.update({n: t[n].to(torch.float8_e4m3fn) for n in t}),
        AdapterNotFound, "float8_e4m3fn; save it as float32"),
    "no base": (
        lambda c, _: c.update(base_model_name_or_path=None), AdapterBaseNotNamed, "--base"),
    "a base that is gone": (
        lambda c, _: c.update(base_model_name_or_path="/nowhere"), BaseNotFound, "nowhere"),
}  # fmt: skip


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_each_damage_has_a_specific_error(damage: str, tmp_path: Path) -> None:
    adapter = TrainedAdapter(tmp_path, "distilbert")
    change, error, words = DAMAGES[damage]
    adapter.change(change)
    if damage == "no classifier":
        file = adapter.base / "model.safetensors"
        left = {n: t for n, t in load_file(file).items() if not n.startswith("classifier")}
        save_file(left, file, metadata={"format": "pt"})
    with pytest.raises(error, match=words):
        import_adapter(adapter.directory, tmp_path / "artifact")
    assert not (tmp_path / "artifact").exists()


def test_pickled_adapter_weights_are_refused(tmp_path: Path) -> None:
    adapter = TrainedAdapter(tmp_path, "distilbert")
    weights = adapter.directory / "adapter_model.safetensors"
    weights.rename(adapter.directory / "adapter_model.bin")
    with pytest.raises(UnsafeWeights, match=re.escape("adapter_model.bin")):
        import_adapter(adapter.directory, tmp_path / "artifact")


def test_invalid_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterNotFound, match="no adapter_config"):
        import_adapter(tmp_path, tmp_path / "artifact")
    adapter = TrainedAdapter(tmp_path / "made", "distilbert")
    weights = adapter.directory / "adapter_model.safetensors"
    weights.write_bytes((2**40).to_bytes(8, "little"))
    with pytest.raises(SafetensorsHeaderTooLarge):
        import_adapter(adapter.directory, tmp_path / "artifact")
    weights.unlink()
    with pytest.raises(AdapterNotFound, match="there is no adapter_model"):
        import_adapter(adapter.directory, tmp_path / "artifact")
    for text in ("[]", "{", "\udc80"):
        config = adapter.directory / "adapter_config.json"
        config.write_text(text, errors="surrogateescape")
        with pytest.raises(AdapterNotFound):
            import_adapter(adapter.directory, tmp_path / "artifact")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda c: c["model"]["vocab"].update(unseen=4096), "more tokens than its encoder"),
        (lambda c: c.update(normalizer={"type": "Replace", "pattern": {"Regex": "(a|a)*$"},
            "content": ""}), "normalizer"),
    ],
    ids=["ids beyond the embeddings", "an expression"],
)  # fmt: skip
def test_unsafe_tokenizer_of_an_adapter_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], problem: str
) -> None:
    adapter = TrainedAdapter(tmp_path, "distilbert")
    content = json.loads((adapter.base / "tokenizer.json").read_text())
    (adapter.directory / "tokenizer.json").write_text(json.dumps(content))
    import_adapter(adapter.directory, tmp_path / "own")
    change(content)
    (adapter.directory / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UnsupportedTokenizer, match=problem):
        import_adapter(adapter.directory, tmp_path / "artifact")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda c: c.update(post_processor=None), SpecialTokensNotAdded),
        (lambda c: c["post_processor"]["pair"].remove(c["post_processor"]["pair"][2]),
            PairsNotSeparated),
    ],
    ids=["none", "none between the texts"],
)  # fmt: skip
def test_tokenizer_must_add_special_tokens(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], error: type[Exception]
) -> None:
    adapter = TrainedAdapter(tmp_path, "distilbert")
    content = json.loads((adapter.base / "tokenizer.json").read_text())
    change(content)
    (adapter.directory / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(error, match=f"tokenizer of '{adapter.directory.name}'"):
        import_adapter(adapter.directory, tmp_path / "artifact", pairs=error is PairsNotSeparated)


def test_copy_of_the_tokenizer_of_its_base_is_as_trusted_as_that(tmp_path: Path) -> None:
    adapter = TrainedAdapter(tmp_path, "distilbert")
    content = json.loads((adapter.base / "tokenizer.json").read_text())
    content["normalizer"] = {"type": "Replace", "pattern": {"Regex": "(a|a)*$"}, "content": ""}
    for directory in (adapter.base, adapter.directory):
        (directory / "tokenizer.json").write_text(json.dumps(content))
    import_adapter(adapter.directory, tmp_path / "artifact")


def test_moved_export_is_imported_on_its_own_base(tmp_path: Path) -> None:
    for seed, name in enumerate(("one", "two")):
        base = make_base(tmp_path / f"base-{name}", seed=seed)
        artifact = make_lora_artifact(tmp_path / name, LoraSpec(r=2), base=base)
        export_adapter(artifact, tmp_path / "peft")
        (tmp_path / "peft").rename(tmp_path / f"peft-{name}")
    (tmp_path / "peft-two").rename(tmp_path / "peft")  # where the first was exported to
    facts = import_adapter(tmp_path / "peft-one", tmp_path / "imported")
    assert facts["spec"]["base"] == str(tmp_path / "peft-one" / "base")
    assert facts["base_sha256"] == manifest.read(tmp_path / "one" / "artifact")["base_sha256"]


@pytest.mark.parametrize("pairs", [True, False])
def test_exported_adapter_says_whether_it_reads_pairs(tmp_path: Path, pairs: bool) -> None:
    export_adapter(make_lora_artifact(tmp_path, LoraSpec(r=2), pairs=pairs), tmp_path / "peft")
    facts = import_adapter(tmp_path / "peft", tmp_path / "imported")
    assert manifest.reads_pairs(facts) is pairs


def test_exported_adapter_keeps_windows_and_prompts(tmp_path: Path) -> None:
    data = DataSpec(
        long_texts="windows", prompt_format=PromptFormat(prefix="Classify:", answer_key="label")
    )
    artifact = make_lora_artifact(tmp_path, LoraSpec(r=2), max_length=16, data=data)
    export_adapter(artifact, tmp_path / "peft")
    card = (tmp_path / "peft" / "README.md").read_text()
    assert "The code above reads the first window only." in card
    assert "has what all prompts of the data have in common" in card
    import_adapter(tmp_path / "peft", tmp_path / "imported")
    ours, theirs = Predictor.load(artifact), Predictor.load(tmp_path / "imported")
    assert theirs.prompt_format == data.prompt_format
    texts = [f"{TEXTS[1]} " * 5, f"{TEXTS[0]} " * 9]
    expected = ours.forward(ours.encode(texts))
    torch.testing.assert_close(theirs.forward(theirs.encode(texts)), expected, rtol=0, atol=1e-5)
    check_golden_predictions(theirs, tmp_path / "imported")
    facts = import_adapter(tmp_path / "peft", tmp_path / "retold", task="multi_label")
    assert manifest.reads_windows(facts)
    assert manifest.prompt_format(facts) == data.prompt_format
    with pytest.raises(PairsInWindowsUnsupported):
        import_adapter(tmp_path / "peft", tmp_path / "pairs", pairs=True)


SCALED = Calibration(scale=(1.5, 0.5), offset=(0.1, -0.2), thresholds=(0.3, 0.6))
TASKS: dict[str, tuple[TaskSpec, Calibration, tuple[str, ...]]] = {
    "thresholds": (
        SingleLabelSpec(tune_thresholds=True),
        Calibration(temperature=1.3, thresholds=(0.2, 0.8)),
        ("bad", "good"),
    ),
    "multi_label": (MultiLabelSpec(), SCALED, ("bad", "good")),
    "regression": (
        RegressionSpec(),
        Calibration(scale=(2.0,), offset=(100.0,), half_width=0.5),
        ("value",),
    ),
}


@pytest.mark.parametrize("kind", TASKS)
def test_exported_adapter_keeps_its_task_and_its_answers(tmp_path: Path, kind: str) -> None:
    task, calibration, labels = TASKS[kind]
    artifact = make_lora_artifact(
        tmp_path, LoraSpec(r=2), task=task, calibration=calibration, labels=labels
    )
    export_adapter(artifact, tmp_path / "peft")
    facts = import_adapter(tmp_path / "peft", tmp_path / "imported")
    assert facts["spec"]["task"] == task.model_dump(mode="json")
    before, after = (
        predictor.decode_outputs(predictor.forward(predictor.encode(TEXTS)))
        for predictor in (Predictor.load(artifact), Predictor.load(tmp_path / "imported"))
    )
    for texts in zip(before, after, strict=True):
        for ours, theirs in zip(*texts, strict=True):
            assert theirs.to_json() == pytest.approx(ours.to_json(), abs=1e-4)


def test_exported_regression_of_large_numbers_can_be_served(tmp_path: Path) -> None:
    """Its logits are checked with an absolute tolerance, which large numbers exceed by rounding."""
    artifact = make_lora_artifact(
        tmp_path,
        LoraSpec(r=2),
        task=RegressionSpec(),
        calibration=Calibration(scale=(5_000_000.0,), offset=(250_000.0,)),
        labels=("value",),
    )
    export_adapter(artifact, tmp_path / "peft")
    import_adapter(tmp_path / "peft", tmp_path / "imported")
    predictors = [Predictor.load(artifact), Predictor.load(tmp_path / "imported")]
    check_golden_predictions(predictors[1], tmp_path / "imported")
    ours, theirs = (
        each.task.predict(each.forward(each.encode(TEXTS)).numpy()) for each in predictors
    )
    assert theirs == pytest.approx(ours, rel=1e-6)


def test_exported_adapter_claims_no_calibration_that_was_not_fitted(tmp_path: Path) -> None:
    artifact = make_lora_artifact(
        tmp_path,
        LoraSpec(r=2),
        task=MultiLabelSpec(),
        calibration=Calibration(scale=(1.0, 1.0), offset=(0.0, 0.0), thresholds=(0.5, 0.5)),
    )
    trained = manifest.read(artifact)
    manifest.save(
        artifact, trained | {"metrics": trained["metrics"] | {"calibration": {"fitted": False}}}
    )
    export_adapter(artifact, tmp_path / "peft")
    facts = import_adapter(tmp_path / "peft", tmp_path / "imported")
    card = model_card(facts, ExportFormat.LORAWORKS, name="m")
    assert "No scale, offset or threshold is fitted." in card
    assert "rotten" not in card  # nor any other default of a run
    assert "epochs" not in card
    assert "| rank, alpha | 2, " in card


@pytest.mark.parametrize(
    "content",
    [
        '{"task": {"type": "ranking"}}',
        '{"task": 1}',
        "[]",
        "{",
        '{"thresholds": {"bad": NaN, "good": 0.5}}',
        '{"thresholds": {"bad": 0.5}}',
        '{"task": {"type": "regression"}}',
        '{"thresholds": {"bad": 0.5, "fine": 0.5}}',
        '{"thresholds": {"bad": 1e9, "good": 0.5}}',
        '{"thresholds": {"bad": -5.0, "good": 0.5}}',
        '{"half_width": -3.0}',
        '{"folded_scale": "2"}',
        '{"folded_scale": 0}',
        '{"long_texts": "whole"}',
        '{"task": {"targets": "bad,good"}}',
    ],
)
def test_invalid_usage_is_refused(tmp_path: Path, content: str) -> None:
    export_adapter(make_lora_artifact(tmp_path, LoraSpec(r=2)), tmp_path / "peft")
    (tmp_path / "peft" / manifest.USAGE_FILE).write_text(content, encoding="utf-8")
    with pytest.raises((ArtifactCorrupt, AdapterLabelCountMismatch)):
        import_adapter(tmp_path / "peft", tmp_path / "imported")
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize("labels", [(), ("no", "yes"), ("good", "bad")])
def test_thresholds_are_those_of_the_labels_in_the_files(
    tmp_path: Path, labels: tuple[str, ...]
) -> None:
    artifact = make_lora_artifact(
        tmp_path, LoraSpec(r=2), task=MultiLabelSpec(), calibration=SCALED, labels=("bad", "good")
    )
    export_adapter(artifact, tmp_path / "peft")
    usage = tmp_path / "peft" / manifest.USAGE_FILE
    content = json.loads(usage.read_text())
    reordered = dict(reversed(content["thresholds"].items()))
    usage.write_text(json.dumps({**content, "thresholds": reordered}))
    facts = import_adapter(tmp_path / "peft", tmp_path / "imported", labels=labels)
    assert facts["calibration"]["thresholds"] == list(SCALED.thresholds)


def test_task_of_other_adapters_is_given(tmp_path: Path) -> None:
    export_adapter(make_lora_artifact(tmp_path, LoraSpec(r=2)), tmp_path / "peft")
    (tmp_path / "peft" / manifest.USAGE_FILE).unlink()
    imported = tmp_path / "imported"
    with pytest.raises(AdapterLabelCountMismatch):
        import_adapter(tmp_path / "peft", imported, task="regression")
    facts = import_adapter(tmp_path / "peft", imported, task="multi_label")
    card = model_card(facts, ExportFormat.LORAWORKS, name="m")
    assert "No scale, offset or threshold is fitted." in card
    predictor = Predictor.load(imported)
    logits = predictor.forward(predictor.encode(TEXTS))
    scores = [dict(row) for row in predictor.decode_label_scores(logits)]
    expected = [dict(zip(predictor.labels, row, strict=True)) for row in logits.sigmoid().tolist()]
    assert scores == [pytest.approx(row, abs=1e-6) for row in expected]
