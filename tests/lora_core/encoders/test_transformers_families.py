"""Families that transformers runs: training, serving, export and import against it and PEFT."""

import copy
import itertools
import json
import re
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as PEFT_TARGETS
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    CONFIG_MAPPING,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    pipeline,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)
from transformers.models.mra.modeling_mra import mra2_attention

from lora_core import compatibility, fine_tuning_methods
from lora_core.adapters import adapter_layers
from lora_core.artifact import load_merged_model, resolve_base_or_artifact
from lora_core.data.tokens import TokenizedSplit
from lora_core.encoders import FAMILIES, TRANSFORMERS_FAMILIES, get_family
from lora_core.encoders.encoder_parts import blocks, enable_gradient_checkpointing, family_of
from lora_core.encoders.load import load_classifier
from lora_core.encoders.transformers_families import UNSUITABLE
from lora_core.errors.base_model import (
    ConfigKeyIgnored,
    UnreadableBase,
    UnsupportedEncoder,
    UntrainableEncoder,
    UntrustedCode,
)
from lora_core.errors.spec import PoolingUnsupported
from lora_core.errors.training import StopRequested
from lora_core.export.hugging_face import export_adapter, export_merged
from lora_core.fast.optimize import optimize
from lora_core.forward import Forward
from lora_core.inference.engines import EngineCache
from lora_core.inference.padded_encoder import PaddedEncoder
from lora_core.inference.predictor import Predictor
from lora_core.inference.tokenization import TokenizedText
from lora_core.model_imports.peft import import_adapter
from lora_core.progress_reporter import ProgressReporter
from lora_core.runtime import Runtime
from lora_core.saved_predictions import check_golden_predictions, load_golden_predictions
from lora_core.specs.data import Split
from lora_core.specs.method import FullFineTuningSpec, HeadMode, LayerRole, LoraSpec, LoraVariant
from lora_core.specs.pooling import Pooling
from lora_core.specs.train import TrainSpec
from lora_core.training.checkpoint_schedule import CheckpointSettings
from lora_core.training.encoder import train_encoder
from tests.lora_artifact import make_lora_artifact
from tests.recording_observer import RecordingObserver
from tests.slow import slow_but
from tests.tiny_base import (
    EVERY_FAMILY,
    GENERAL_CONFIGS,
    general,
    make_base,
    make_reviews,
    mostly_slow,
    tokenizer,
)

every_family = pytest.mark.parametrize("family", GENERAL_CONFIGS)
slow_for_most = pytest.mark.parametrize("family", mostly_slow(GENERAL_CONFIGS))
FP32 = Runtime("cpu", "fp32", 1)
TEXTS = ["a good film", "not a very good story and it was boring", "dull", "the plot of it"]
LENGTHS = (2, 3, 17, 40, 128)
TARGETS = {  # PEFT's names of the query layers
    **dict.fromkeys(GENERAL_CONFIGS, "query"),
    **dict.fromkeys(
        ("nomic_bert", "gte", "jina_embeddings_v3", "eurobert", "ultrabert", "esmc"), "q_proj"
    ),
    "deberta-v2": "query_proj", "mpnet": "q",
}  # fmt: skip


def long_model(family: str, **changes: Any) -> PreTrainedModel:
    """Return an encoder for texts of up to 128 tokens."""
    torch.manual_seed(0)
    return general(family, labels=3, max_position_embeddings=130, **changes)


def random_ids() -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(5, 120, (n,), generator=generator).tolist() for n in LENGTHS]


def alone(model: PreTrainedModel, ids: list[int]) -> Tensor:
    """Return the logits that plain transformers computes for one text."""
    with torch.inference_mode():
        logits: Tensor = model(torch.tensor([ids])).logits[0]
    return logits


def train(folder: Path, family: str, method: dict[str, Any], **changes: Any) -> Path:
    """Train on a new base; return the artifact."""
    base, texts = folder / "base", folder / "texts.csv"
    if not base.exists():
        make_base(base, family)
        make_reviews(texts)
    fields = {
        "base": str(base), "method": method, "data": {"source": str(texts)},
        "optim": {"epochs": 1}, "result": {"cross_validation": False},
    }  # fmt: skip
    observer = RecordingObserver()
    out = folder / f"out-{len(list(folder.iterdir()))}"
    spec = TrainSpec.model_validate(fields | changes)
    train_encoder(spec, out_dir=out, observer=observer, stop=observer)
    return out


def test_every_general_family_is_tested() -> None:
    assert GENERAL_CONFIGS.keys() == TRANSFORMERS_FAMILIES.keys()
    assert not FAMILIES.keys() & TRANSFORMERS_FAMILIES.keys()


# -- Serving --------------------------------------------------------------------------------------


@every_family
def test_padded_batches_give_the_logits_of_transformers_for_each_text_alone(family: str) -> None:
    model = long_model(family)
    expected = torch.stack([alone(model, ids) for ids in random_ids()])
    predictor = Predictor.from_model(model, tokenizer(family), 128)
    assert isinstance(predictor.engine, PaddedEncoder)
    logits = predictor.forward([TokenizedText(ids, truncated=False) for ids in random_ids()])
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)


@slow_for_most
def test_versions_share_the_weights_of_their_base_and_a_batch(family: str, tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", family)
    artifacts = [
        make_lora_artifact(tmp_path / str(seed), LoraSpec(r=2), family=family, base=base, seed=seed)
        for seed in range(2)
    ]
    cache = EngineCache()
    predictors = [Predictor.load(each, engine_cache=cache) for each in artifacts]
    engine = predictors[0].engine
    assert predictors[1].engine is engine
    assert max(each.adapter.nbytes for each in predictors) < engine.nbytes / 2
    items = predictors[0].encode(TEXTS)
    adapters = [predictors[i % 2].adapter for i in range(len(items))]
    together = engine.logits(items, adapters)
    for i, item in enumerate(items):
        merged = load_merged_model(artifacts[i % 2])
        expected = alone(merged, list(item.ids))
        torch.testing.assert_close(together[i], expected, rtol=0, atol=1e-5)


@slow_for_most
@pytest.mark.parametrize("variant", [LoraVariant.LORA, LoraVariant.DORA])
def test_bf16_engine_reproduces_the_golden_predictions(
    family: str, variant: LoraVariant, tmp_path: Path
) -> None:
    artifact = make_lora_artifact(tmp_path, LoraSpec(r=2, variant=variant), family=family)
    texts, expected = load_golden_predictions(artifact)
    predictor = Predictor.load(artifact, engine="torch-bf16")
    assert predictor.engine.name == "torch-bf16"
    logits = predictor.forward(predictor.encode(texts)).numpy()
    scale = float(np.abs(expected).max())
    assert np.abs(logits - expected).max() < 0.05 * max(1.0, scale)


# -- Training -------------------------------------------------------------------------------------


def batches() -> list[tuple[list[int], TokenizedSplit]]:
    """Return the texts of six steps, and the split that they are of."""
    generator = torch.Generator().manual_seed(1)
    rows = [
        torch.randint(5, 120, (int(n),), generator=generator).numpy().astype(np.int32)
        for n in torch.randint(3, 20, (24,), generator=generator)
    ]
    lengths: NDArray[np.int64] = np.array([len(row) for row in rows])
    split = TokenizedSplit(Split.TRAIN, rows, lengths, np.arange(24) % 3, 0)
    return [(list(range(start, start + 4)), split) for start in range(0, 24, 4)]


def losses(model: PreTrainedModel, compute: Any) -> list[float]:
    """Return the loss of each step of AdamW."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    seen = []
    for texts, split in batches():
        loss = nn.functional.cross_entropy(
            compute(split, texts), torch.from_numpy(split.targets[texts])
        )
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        seen.append(loss.item())
    return seen


def plain(model: PreTrainedModel) -> Any:
    """Return the forward pass of transformers on a batch that its own way of padding made."""

    def compute(split: TokenizedSplit, texts: list[int]) -> Tensor:
        rows = [torch.tensor(split.ids[i], dtype=torch.int64) for i in texts]
        ids = nn.utils.rnn.pad_sequence(
            rows, batch_first=True, padding_value=model.config.pad_token_id
        )
        mask = nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        logits: Tensor = model(input_ids=ids, attention_mask=mask).logits
        return logits

    return compute


def optimized(model: PreTrainedModel) -> Forward:
    quiet = RecordingObserver()
    return optimize(
        model,
        family_of(model),
        FP32,
        {},
        encoder_dropout=0.0,
        micro_batch_tokens=4096,
        progress=ProgressReporter(quiet, quiet),
        environment={},
    )


@slow_for_most
def test_losses_of_full_fine_tuning_match_transformers(family: str) -> None:
    ours, theirs = long_model(family), long_model(family)
    fine_tuning_methods.build_method(FullFineTuningSpec()).prepare(ours, family_of(ours))
    assert losses(ours, optimized(ours)) == pytest.approx(losses(theirs, plain(theirs)), rel=1e-5)


@slow_for_most
@pytest.mark.parametrize("variant", [LoraVariant.LORA, LoraVariant.DORA])
def test_losses_of_lora_match_peft(family: str, variant: LoraVariant) -> None:
    ours, theirs = long_model(family), long_model(family)
    spec = LoraSpec(r=2, alpha=4, variant=variant)
    fine_tuning_methods.build_method(spec).prepare(ours, get_family(ours.config.to_dict()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of copied heads
        wrapped = get_peft_model(
            theirs,
            LoraConfig(
                task_type="SEQ_CLS", r=2, lora_alpha=4, use_dora=variant is LoraVariant.DORA,
                target_modules=list(adapter_layers(ours)),
                modules_to_save=list(family_of(ours).saved_modules),
            ),
        )  # fmt: skip
    modules = dict(wrapped.base_model.model.named_modules())
    for name, adapter in adapter_layers(ours).items():
        modules[name].lora_A["default"].weight.data.copy_(adapter.A.data)
    trained = sum(p.numel() for p in wrapped.parameters() if p.requires_grad)
    assert fine_tuning_methods.build_method(spec).count_parameters(ours).trainable == trained
    expected = losses(wrapped, plain(wrapped))
    assert losses(ours, optimized(ours)) == pytest.approx(expected, rel=1e-5)


@slow_for_most
def test_gradient_checkpointing_changes_nothing(family: str) -> None:
    runs = []
    for wanted in (False, True):
        model = long_model(family)
        fine_tuning_methods.build_method(FullFineTuningSpec()).prepare(model, family_of(model))
        forward = optimized(model)
        if wanted:
            enable_gradient_checkpointing(model, family_of(model))
        runs.append(losses(model, forward))
    assert runs[0] == runs[1]


METHODS: dict[str, dict[str, Any]] = {
    "lora": {"type": "lora", "r": 2},
    "lora-head": {"type": "lora", "r": 2, "head": "lora", "variant": "rslora"},
    "probe": {"type": "probe"},
    "baseline-0": {"type": "baseline", "blocks": 0},
    "baseline-1": {"type": "baseline", "blocks": 1},
    "full": {"type": "full"},
}


def families_and_methods() -> list[Any]:
    """Return all pairs as parameters. Fast are LoRA on the families that differ, and a probe and
    full fine-tuning on one of them."""
    quick = {(family, "lora") for family in mostly_slow(GENERAL_CONFIGS) if isinstance(family, str)}
    quick |= {("deberta-v2", "full"), ("deberta-v2", "probe")}
    return [
        pytest.param(*pair, marks=() if pair in quick else pytest.mark.slow, id="-".join(pair))
        for pair in itertools.product(GENERAL_CONFIGS, METHODS)
    ]


@pytest.mark.parametrize(("family", "method"), families_and_methods())
def test_run_to_pipeline(family: str, method: str, tmp_path: Path) -> None:
    """Train, save, load, serve, export, and classify in the stock pipeline."""
    artifact = train(tmp_path, family, METHODS[method])
    predictor = Predictor.load(artifact)
    assert check_golden_predictions(predictor, artifact) < 1e-5
    export_merged(artifact, tmp_path / "merged")
    _, info = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "merged", output_loading_info=True
    )
    assert not any(info.values()), info
    classify = pipeline("text-classification", model=str(tmp_path / "merged"), top_k=None)
    for theirs, row in zip(classify(TEXTS), predictor.predict(TEXTS), strict=True):
        expected = {each["label"]: each["score"] for each in theirs}
        assert dict(row) == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow  # tests/lora_core/test_artifact_base_sharing.py has a quick form
@pytest.mark.parametrize(
    "family",
    slow_but(GENERAL_CONFIGS, "deberta-v2"),
)
def test_runs_on_one_base_write_the_same_base(family: str, tmp_path: Path) -> None:
    kept = [METHODS[name] for name in ("lora", "lora-head", "probe", "baseline-0")]
    dropouts = {"epochs": 1, "encoder_dropout": 0.1, "head_dropout": 0.3}
    artifacts = [train(tmp_path, family, method) for method in kept]
    artifacts.append(train(tmp_path, family, METHODS["lora"], optim=dropouts))
    bases = [
        {path.name: path.read_bytes() for path in (each / "base").iterdir()} for each in artifacts
    ]
    assert all(each == bases[0] for each in bases)


@pytest.mark.parametrize("family", slow_but(["deberta-v2", "albert", "nomic_bert"], "albert"))
def test_interrupted_run_is_resumed_exactly(family: str, tmp_path: Path) -> None:
    make_base(tmp_path / "base", family)
    make_reviews(tmp_path / "texts.csv")
    spec = TrainSpec.model_validate({
        "base": str(tmp_path / "base"), "method": METHODS["lora"] | {"dropout": 0.1},
        "data": {"source": str(tmp_path / "texts.csv")}, "result": {"cross_validation": False},
        "optim": {"epochs": 1, "encoder_dropout": 0.1, "head_dropout": 0.2},
    })  # fmt: skip

    def attempt(name: str, stop_at: int | None, resume: Path | None) -> RecordingObserver:
        observer = RecordingObserver(stop_at) if stop_at else RecordingObserver()
        settings = CheckpointSettings(tmp_path / f"checkpoints-{name}", seconds=0.0)
        with suppress(StopRequested):
            train_encoder(
                spec,
                out_dir=tmp_path / name,
                observer=observer,
                stop=observer,
                checkpoint_settings=settings,
                resume=resume,
            )
        return observer

    attempt("whole", None, None)
    observer = attempt("cut", 3, None)
    checkpoint = tmp_path / "checkpoints-cut" / observer.all("checkpoint")[-1].directory
    assert not (tmp_path / "cut").exists()
    attempt("resumed", None, checkpoint)
    for name in ("adapter.safetensors", "head.safetensors"):
        whole, resumed = (load_file(tmp_path / each / name) for each in ("whole", "resumed"))
        assert whole.keys() == resumed.keys()
        assert all(torch.equal(whole[key], resumed[key]) for key in whole)


# -- PEFT -----------------------------------------------------------------------------------------


@slow_for_most
@pytest.mark.parametrize("head", slow_but(HeadMode, HeadMode.TRAIN, HeadMode.LORA))
@pytest.mark.parametrize("variant", [LoraVariant.LORA, LoraVariant.DORA])
def test_peft_reads_exported_adapters(
    family: str, head: HeadMode, variant: LoraVariant, tmp_path: Path
) -> None:
    spec = LoraSpec(r=3, alpha=1.5, head=head, variant=variant)
    artifact = make_lora_artifact(tmp_path, spec, family=family)
    out = tmp_path / "peft"
    export_adapter(artifact, out)
    base = AutoModelForSequenceClassification.from_pretrained(out / "base")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        wrapped = PeftModel.from_pretrained(base, out)
    assert not [each for each in caught if "missing" in str(each.message).lower()]
    batch = AutoTokenizer.from_pretrained(out)(TEXTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        expected = load_merged_model(artifact)(**batch).logits
        logits = wrapped.eval()(**batch).logits
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    texts, golden = load_golden_predictions(artifact)
    assert texts[0] == TEXTS[0]
    torch.testing.assert_close(logits[0], torch.from_numpy(golden[0]), rtol=1e-5, atol=1e-5)


@slow_for_most
@pytest.mark.parametrize("targets", ["query", "all-linear"])
def test_adapters_of_peft_are_imported(family: str, targets: str, tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", family)
    model, _ = load_classifier(resolve_base_or_artifact(str(base)), ["0", "1"])
    wanted = targets if targets == "all-linear" else [TARGETS[family]]
    saved = {} if targets == "all-linear" else {"modules_to_save": list(get_family(
        model.config.to_dict()).saved_modules)}  # fmt: skip
    torch.manual_seed(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = get_peft_model(
            model, LoraConfig(task_type="SEQ_CLS", r=3, target_modules=wanted, **saved)
        )
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                nn.init.normal_(parameter, std=0.1)
        wrapped.save_pretrained(tmp_path / "adapter")
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) |
                                 {"base_model_name_or_path": str(base)}))  # fmt: skip
    facts = import_adapter(tmp_path / "adapter", tmp_path / "artifact")
    # A layer outside of the blocks, such as ALBERT's projection of embeddings, has no role; those
    # with a role in Longformer are two.
    outside = {*OTHER_LAYERS, "albert", "rembert", "roformer", "big_bird", "esm"}
    is_lora = family not in (outside if targets == "all-linear" else {"longformer"})
    assert facts["spec"]["method"]["type"] == ("lora" if is_lora else "merged")
    predictor = Predictor.load(tmp_path / "artifact")
    items = predictor.encode(TEXTS)
    wrapped.eval()
    expected = torch.stack([alone(wrapped.base_model.model, list(item.ids)) for item in items])
    torch.testing.assert_close(predictor.forward(items), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", sorted(TRANSFORMERS_FAMILIES.keys() & PEFT_TARGETS.keys()))
def test_roles_cover_what_peft_adapts_by_default(family: str) -> None:
    paths = [path for paths in TRANSFORMERS_FAMILIES[family].roles.values() for path in paths]
    for target in PEFT_TARGETS[family]:
        assert any(path.endswith(target) for path in paths)


# -- Configs --------------------------------------------------------------------------------------


# Linear layers in a block that have no role: those of places on a page and entities, and
# those that make a block of MobileBERT narrow.
OTHER_LAYERS = {
    "lilt": re.compile(r"layout"),
    "luke": re.compile(r"\.(w2e|e2w|e2e)_query$"),
    "mobilebert": re.compile("bottleneck"),
}


@every_family
def test_roles_are_all_linear_layers_of_a_block_with_the_sizes_of_the_config(family: str) -> None:
    model = general(family)
    description = family_of(model)
    shape = compatibility.read_encoder_shape(model.config.to_dict(), base=family)
    for block in blocks(model, description):
        linears = {
            name: (layer.in_features, layer.out_features)
            for name, layer in block.named_modules()
            if isinstance(layer, nn.Linear)
        }
        sizes = [each for role in LayerRole for each in shape.linear_dims_with_role(role)]
        others = OTHER_LAYERS.get(family)
        assert {
            name: sides for name, sides in linears.items() if not (others and others.search(name))
        } == {name: (d_in, d_out) for name, d_in, d_out in sizes}
    assert shape.layers == len(blocks(model, description))
    assert shape.block_passes == model.config.num_hidden_layers
    head = [model.get_submodule(name).weight.shape for name in description.head]
    assert [tuple(reversed(each)) for each in head] == list(shape.head_linear_dims(2))
    total = sum(p.numel() for p in model.parameters())
    assert compatibility.count_parameters(shape, FullFineTuningSpec(), 2).total == pytest.approx(
        total, rel=0.6 if family in OTHER_LAYERS else 0.2
    )


@every_family
def test_max_length_fits_the_positions(family: str) -> None:
    model = long_model(family)
    limit = compatibility.read_encoder_shape(model.config.to_dict(), base=family).max_tokens
    assert torch.isfinite(alone(model, [5] * limit)).all()


def change_config(directory: Path, **changes: object) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_code_of_a_model_is_neither_run_nor_needed(family: str, tmp_path: Path) -> None:
    directory = make_base(tmp_path / "base", family)
    expected, _ = load_classifier(resolve_base_or_artifact(str(directory)), ["a", "b"])
    marker = tmp_path / "ran"
    (directory / "modeling_x.py").write_text(f"open({str(marker)!r}, 'w')")
    change_config(
        directory,
        auto_map={
            "AutoConfig": "modeling_x.Config",
            "AutoModelForSequenceClassification": "modeling_x.X",
        },
    )
    torch.manual_seed(0)
    model, _ = load_classifier(resolve_base_or_artifact(str(directory)), ["a", "b"])
    assert type(model) is type(expected)
    assert not hasattr(model.config, "auto_map")
    assert not marker.exists()


def test_code_without_a_class_of_transformers_is_refused(tmp_path: Path) -> None:
    directory = make_base(tmp_path / "base")
    change_config(directory, auto_map={"AutoModel": "modeling_x.X"}, model_type="hf_new_bert")
    with pytest.raises(UntrustedCode, match="no class of its own for 'hf_new_bert'"):
        resolve_base_or_artifact(str(directory))


def test_weights_that_only_the_code_of_a_model_has_are_refused(tmp_path: Path) -> None:
    directory = make_base(tmp_path / "base", "bert")
    tensors = load_file(directory / "model.safetensors")
    tensors["bert.encoder.layer.0.gate.weight"] = torch.zeros(2, 2)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    load_classifier(resolve_base_or_artifact(str(directory)), ["a", "b"])
    change_config(directory, auto_map={"AutoModel": "modeling_x.X"})
    with pytest.raises(UnreadableBase, match=r"layer\.0\.gate\.weight"):
        load_classifier(resolve_base_or_artifact(str(directory)), ["a", "b"])


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("nomic_bert", {"n_embd": 768}),
        ("nomic_bert", {"n_layer": 12}),
        ("nomic_bert", {"n_positions": 8192}),
        ("gte", {"d_model": 1024}),
    ],
)
def test_sizes_that_transformers_ignores_are_refused(family: str, changes: dict[str, int]) -> None:
    config = general(family).config.to_dict() | changes
    with pytest.raises(ConfigKeyIgnored, match=next(iter(changes))):
        compatibility.read_encoder_shape(config, base="x")


def test_same_size_under_another_name_is_accepted() -> None:
    config = general("nomic_bert").config.to_dict() | {"n_embd": 32, "n_inner": None}
    assert compatibility.read_encoder_shape(config, base="x").width == 32


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("albert", {"inner_group_num": 2}),
        ("deberta-v2", {"pooler_hidden_act": "tanh"}),
        ("mobilebert", {"classifier_activation": True}),
        ("roformer", {"hidden_act": "relu"}),
    ],
)
def test_configs_that_the_description_does_not_hold_for_are_refused(
    family: str, changes: dict[str, Any]
) -> None:
    config = general(family).config.to_dict() | changes
    with pytest.raises(UnreadableBase, match=next(iter(changes))):
        compatibility.read_encoder_shape(config, base="x")


def test_every_classifier_of_transformers_is_described_or_refused() -> None:
    described = FAMILIES.keys() | TRANSFORMERS_FAMILIES.keys()
    assert not described & UNSUITABLE.keys()
    assert MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES.keys() <= described | UNSUITABLE.keys()


@pytest.mark.parametrize(
    ("model_type", "changes"),
    [
        ("convbert", {"embedding_size": 16}),
        ("fnet", {}),
        ("nystromformer", {}),
        ("yoso", {}),
    ],
)
def test_padding_changes_the_answers_of_encoders_that_are_refused_for_it(
    model_type: str, changes: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 128, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 64, "max_position_embeddings": 64, "initializer_range": 0.1,
    }  # fmt: skip
    config = CONFIG_MAPPING[model_type](**sizes, **changes)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    ids = [5, 6, 7]
    padded = torch.tensor([[*ids, *[config.pad_token_id] * 20]])
    inputs = {"input_ids": padded}
    if model_type != "fnet":  # which reads no mask
        inputs["attention_mask"] = (torch.arange(23) < 3).long()[None]
    with torch.inference_mode():
        assert (model(**inputs).logits[0] - alone(model, ids)).abs().max() > 1e-3


def test_missing_config_keys_have_the_defaults_of_transformers() -> None:
    config = general("mobilebert").config.to_dict()
    del config["classifier_activation"]
    with pytest.raises(UnreadableBase, match="classifier_activation"):
        compatibility.read_encoder_shape(config, base="x")


def test_bigbird_always_has_full_attention(tmp_path: Path) -> None:
    directory = make_base(tmp_path / "base", "big_bird", attention_type="block_sparse")
    artifact = make_lora_artifact(tmp_path, LoraSpec(r=2), family="big_bird", base=directory)
    loaded, _ = load_classifier(resolve_base_or_artifact(str(directory)), ["a", "b"])
    for model in (loaded, load_merged_model(artifact)):
        assert model.config.attention_type == "original_full"


def test_attention_of_mra_is_zero_without_its_kernel() -> None:
    """Which no comparison with transformers would find."""
    query = torch.randn(1, 4, 32, 8)
    mask = torch.ones(1, 1, 1, 32)
    assert not mra2_attention(query, query, query, mask, num_blocks=1, approx_mode="full").any()


@pytest.mark.parametrize("model_type", ["neobert", "gpt2", "squeezebert", "xlnet", "fnet", "qwen3"])
def test_odd_architectures_are_refused_by_name(model_type: str) -> None:
    config = {"model_type": model_type, "auto_map": {"AutoModel": "x.X"}}
    with pytest.raises(UntrainableEncoder, match=f"'{model_type}' model, which cannot be trained"):
        get_family(config)


def test_other_architectures_are_refused_with_the_list_of_supported_ones() -> None:
    with pytest.raises(UnsupportedEncoder, match=r"'t6'.*bert, .*deberta-v2"):
        get_family({"model_type": "t6"})


def test_mean_pooling_is_for_fast_families() -> None:
    config = general("mpnet").config.to_dict()
    with pytest.raises(PoolingUnsupported, match="mpnet runs in transformers' own class"):
        compatibility.read_encoder_shape(config, base="x", pooling=Pooling.MEAN)


@pytest.mark.parametrize("pooling", ["bos", "mean", "late"])
def test_pooling_of_the_config_is_honored(pooling: str) -> None:
    """What the probe reads is the input of the head, averaged if the head reads every token."""
    model = long_model("eurobert", classifier_pooling=pooling)
    forward = optimized(model)
    texts, split = batches()[0]
    with torch.inference_mode():
        x = forward.pooled_states(split, texts)
        logits = forward(split, texts)
    for row, i in enumerate(texts):
        with torch.inference_mode():
            states = model.model(torch.tensor(split.ids[i], dtype=torch.int64)[None])[0][0]
        expected = states[0] if pooling == "bos" else states.mean(dim=0)
        torch.testing.assert_close(x[row], expected, rtol=1e-5, atol=1e-5)
        ids = split.ids[i].tolist()
        torch.testing.assert_close(logits[row], alone(model, ids), rtol=0, atol=1e-5)


def test_copy_of_an_engine_does_not_share_heads() -> None:
    model = general("mpnet")
    engine = PaddedEncoder(copy.deepcopy(model), torch.float32)
    heads = [
        {"first.weight": torch.eye(32), "first.bias": torch.full((32,), bias),
         "last.weight": torch.ones(2, 32), "last.bias": torch.zeros(2)}
        for bias in (0.0, 1.0)
    ]  # fmt: skip
    first, second = (engine.build_adapter(None, head) for head in heads)
    item = TokenizedText([5, 6, 7], truncated=False)
    apart = [engine.logits([item], [each])[0] for each in (first, second)]
    assert not torch.allclose(apart[0], apart[1])
    together = engine.logits([item, item], [second, first])
    torch.testing.assert_close(together, apart[::-1])
