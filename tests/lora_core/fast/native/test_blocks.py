"""Tests of the native engine: it computes what the torch engines do, with each variant."""

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from lora_core import encoders
from lora_core.encoders.pooling import set_pooling
from lora_core.errors.artifact import EngineUnavailable
from lora_core.fast.native import blocks
from lora_core.fast.native.library import BatchStruct, InvalidArguments, Library
from lora_core.inference.adapter import Adapter, FusedLayerLora
from lora_core.inference.engines import build_encoder
from lora_core.inference.packed_encoder import NativeAdapter, PackedEncoder
from lora_core.inference.tokenization import TokenizedText
from lora_core.specs.pooling import Pooling
from tests import tiny_base
from tests.lora_core.fast.native.libraries import libraries
from tests.slow import slow_but

# One token; around the 16 rows of a tile and the 32 keys of two panels; more than a block of rows.
LENGTHS = (1, 15, 16, 17, 31, 32, 33, 64, 5, 60)
LONG = (150, 7, 129)


YARN = {
    "rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 32,
}  # fmt: skip


def _model(family: str, **changes: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    model = tiny_base.FAMILIES[family](labels=3, max_position_embeddings=160, **changes)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1 and "head" not in name and "classifier" not in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def _mean_pooling(model: PreTrainedModel) -> PreTrainedModel:
    set_pooling(model, encoders.FAMILIES["bert"], Pooling.MEAN)
    return model


def _modernbert(**changes: Any) -> PreTrainedModel:
    return _model(
        "modernbert", hidden_size=64, num_attention_heads=1, intermediate_size=96,
        num_hidden_layers=4, pad_token_id=0, **changes,
    )  # fmt: skip


# Heads of 32, 64 and 128; inputs that one pass of the product holds, and those that take several;
# norms before and after; windows; mean pooling, by a block and by the head; narrow embeddings.
MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "bert": lambda: _model("bert", hidden_size=64, num_attention_heads=2, intermediate_size=160),
    "one block": lambda: _model(
        "bert", hidden_size=64, num_attention_heads=1, intermediate_size=64, num_hidden_layers=1
    ),
    "roberta": lambda: _model("roberta", hidden_size=128, num_attention_heads=1),
    "bert, mean": lambda: _mean_pooling(
        _model("bert", hidden_size=64, num_attention_heads=2, pad_token_id=0)
    ),
    "xlm-roberta": lambda: _model("xlm-roberta", hidden_size=64, num_attention_heads=1),
    "camembert": lambda: _model("camembert", hidden_size=64, num_attention_heads=1),
    "electra": lambda: _model("electra", hidden_size=64, num_attention_heads=2),
    "distilbert": lambda: _model("distilbert", dim=64, n_heads=1, hidden_dim=800),
    "modernbert": _modernbert,
    "modernbert, mean": lambda: _modernbert(classifier_pooling="mean"),
    "modernbert, wide": lambda: _model(
        "modernbert", hidden_size=64, num_attention_heads=2, intermediate_size=32,
        attention_bias=True, mlp_bias=True, norm_bias=True, classifier_bias=True,
        local_attention=100,
    ),
    "modernbert, yarn": lambda: _modernbert(
        rope_parameters={"full_attention": YARN, "sliding_attention": YARN}
    ),
}  # fmt: skip


LARGE = "width 1,024"
MODELS[LARGE] = lambda: _model(  # with heads of 128
    "bert", hidden_size=1024, num_attention_heads=8, intermediate_size=1024, num_hidden_layers=1,
    initializer_range=0.03,
)  # fmt: skip


@pytest.fixture(params=slow_but(MODELS, *(MODELS.keys() - {LARGE})))
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return MODELS[request.param]()


def _texts(lengths: Sequence[int]) -> list[TokenizedText]:
    generator = torch.Generator().manual_seed(1)
    return [TokenizedText(torch.randint(5, 120, (n,), generator=generator).tolist(), False)
            for n in lengths]  # fmt: skip


def _adapters(model: PreTrainedModel, encoder: PackedEncoder) -> list[Adapter]:
    """Return no LoRA, LoRA in some layers, and a rank above one block of 32 in others."""
    plain = build_encoder(model, torch.float32)
    assert isinstance(plain, PackedEncoder)
    head = plain.extract_adapter(model).head
    versions = [Adapter({}, head)]
    for seed, rank, layers in ((1, 3, {"qkv", "down"}), (2, 40, {"projection", "up", "down"})):
        generator = torch.Generator().manual_seed(seed)
        lora = {
            (index, name): FusedLayerLora(
                0.2 * torch.randn(rank, weight.shape[1], generator=generator),
                0.05 * torch.randn(weight.shape[0], rank, generator=generator),
            )
            for index, block in enumerate(plain._blocks)
            for name, (weight, _) in block.layers.items()
            if name in layers
        }
        versions.append(Adapter(lora, head))
    return [encoder.prepare_adapter(version) for version in versions]


def _outputs(
    model: PreTrainedModel,
    dtype: torch.dtype,
    library: Library | None = None,
    *,
    lengths: Sequence[int] = LENGTHS,
    threads: int = 1,
) -> Tensor:
    """Return the states of texts whose versions take turns: (texts, width)."""
    encoder = build_encoder(model, dtype, backend=library or "torch")
    assert isinstance(encoder, PackedEncoder)
    versions = _adapters(model, encoder)
    adapters = [versions[i % len(versions)] for i in range(len(lengths))]
    outputs = encoder.logits_and_states(_texts(lengths), adapters, threads=threads)
    torch.set_num_threads(1)
    return torch.stack([states for _, states in outputs])


@pytest.mark.parametrize("lengths", [LENGTHS, LONG])
def test_states_are_as_near_to_float32_as_those_of_torch(
    model: PreTrainedModel, lengths: Sequence[int]
) -> None:
    exact = _outputs(model, torch.float32, lengths=lengths)
    torch_error = (_outputs(model, torch.bfloat16, lengths=lengths) - exact).square().mean().sqrt()
    for variant, library in libraries().items():
        states = _outputs(model, torch.bfloat16, library, lengths=lengths)
        error = (states - exact).square().mean().sqrt()
        assert error < 1.1 * torch_error, variant  # two blocks of 64 numbers leave it to chance
        assert error < 0.01 * exact.square().mean().sqrt(), variant


def test_a_text_has_the_same_bits_in_any_batch_with_any_threads(model: PreTrainedModel) -> None:
    for variant, library in libraries().items():
        together = _outputs(model, torch.bfloat16, library)
        for threads in (2, 3):
            shared = _outputs(model, torch.bfloat16, library, threads=threads)
            assert torch.equal(together, shared), (variant, threads)
        encoder = build_encoder(model, torch.bfloat16, backend=library)
        versions = _adapters(model, encoder)  # type: ignore[arg-type]
        for i, text in enumerate(_texts(LENGTHS)):
            ((_, alone),) = encoder.logits_and_states([text], [versions[i % len(versions)]])
            assert torch.equal(together[i], alone), (variant, i)


def test_many_short_texts_of_versions_with_other_layers(model: PreTrainedModel) -> None:
    lengths = [1 + i % 3 for i in range(300)]
    exact = _outputs(model, torch.float32, lengths=lengths)
    for variant, library in libraries().items():
        states = _outputs(model, torch.bfloat16, library, lengths=lengths)
        error = (states - exact).square().mean().sqrt()
        assert error < 0.01 * exact.square().mean().sqrt(), variant


@pytest.mark.slow  # attention among 8,192 tokens
def test_the_longest_text_is_computed_with_tables_of_its_length() -> None:
    torch.manual_seed(0)
    model = tiny_base.modernbert(
        hidden_size=64, num_attention_heads=1, intermediate_size=96,
        max_position_embeddings=10_000_000,
    )  # fmt: skip
    exact = _outputs(model, torch.float32, lengths=(8192,))
    for variant, library in libraries().items():
        states = _outputs(model, torch.bfloat16, library, lengths=(8192,))
        error = (states - exact).square().mean().sqrt()
        assert error < 0.01 * exact.square().mean().sqrt(), variant


@pytest.mark.parametrize("shapes", [((8, 32), (192, 8)), ((8, 64), (32, 8))])
def test_lora_weights_of_other_sizes_are_refused(
    shapes: tuple[tuple[int, int], tuple[int, int]],
) -> None:
    model = MODELS["bert"]()
    weights = FusedLayerLora(torch.zeros(shapes[0]), torch.zeros(shapes[1]))
    for library in libraries().values():
        encoder = build_encoder(model, torch.bfloat16, backend=library)
        assert isinstance(encoder, PackedEncoder)
        with pytest.raises(ValueError, match="block 0, qkv, have other sizes"):
            encoder.prepare_adapter(Adapter({(0, "qkv"): weights}, ()))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_stays_visible(value: float) -> None:
    model = MODELS["bert"]()
    with torch.no_grad():
        model.get_parameter("bert.encoder.layer.0.intermediate.dense.bias")[3] = value
    for variant, library in libraries().items():
        assert not _outputs(model, torch.bfloat16, library).isfinite().any(), variant


@pytest.mark.parametrize(
    ("family", "changes", "reason"),
    [
        ("bert", {}, "multiples of 32, and not 8 and 64"),
        ("bert", {"num_attention_heads": 1, "intermediate_size": 72}, "and not 32 and 72"),
        ("bert", {"num_attention_heads": 1, "hidden_act": "relu"}, "the exact GELU"),
        ("bert", {"num_attention_heads": 1, "hidden_act": "gelu_10"}, "the exact GELU"),
        (
            "modernbert",
            {"num_attention_heads": 1, "intermediate_size": 32, "head_dim": 2},
            "rotations of whole heads",
        ),
        (
            "modernbert",
            {"num_attention_heads": 1, "intermediate_size": 32, "hidden_activation": "gelu_new"},
            "the exact",
        ),
    ],
)
def test_what_it_does_not_compute_is_refused(
    family: str, changes: dict[str, Any], reason: str
) -> None:
    for library in libraries().values():
        with pytest.raises(EngineUnavailable, match=f"native-bf16 requires .*{reason}"):
            build_encoder(_model(family, **changes), torch.bfloat16, backend=library)


def _break_rows(batch: BatchStruct) -> None:
    batch.rows = 40


def _break_start(batch: BatchStruct) -> None:
    (ctypes.c_int32 * 3).from_address(batch.starts)[1] = 3


def _break_length(batch: BatchStruct) -> None:
    (ctypes.c_int32 * 3).from_address(batch.lengths)[2] = 0


def _break_end(batch: BatchStruct) -> None:
    (ctypes.c_int32 * 3).from_address(batch.lengths)[2] = 10_000


def _break_versions(batch: BatchStruct) -> None:
    (ctypes.c_int32 * 2).from_address(batch.version_rows)[1] += 1


def _break_texts(batch: BatchStruct) -> None:
    (ctypes.c_int32 * 2).from_address(batch.version_texts)[1] -= 1


def _break_rank(batch: BatchStruct) -> None:
    batch.low_rank[0].a, batch.low_rank[0].b, batch.low_rank[0].rank = batch.x, batch.x, 0


def _remove(name: str) -> Callable[[BatchStruct], None]:
    return lambda batch: setattr(batch, name, None)


POINTERS = ("starts", "lengths", "version_rows", "version_texts", "low_rank", "x", "first")


@pytest.mark.parametrize(
    "damage",
    [_break_rows, _break_start, _break_length, _break_end, _break_versions, _break_texts,
     _break_rank, *(pytest.param(_remove(name), id=f"no {name}") for name in POINTERS)],
)  # fmt: skip
def test_a_batch_with_wrong_bounds_is_refused(
    damage: Callable[[BatchStruct], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = MODELS["bert"]()
    texts = _texts((5, 20, 3))
    for variant, library in libraries().items():
        encoder = build_encoder(model, torch.bfloat16, backend=library)
        adapter = encoder.extract_adapter(model)
        assert isinstance(adapter, NativeAdapter)
        encoder.logits(texts, [adapter] * 3, threads=1)

        def damaged(*arguments: Any) -> BatchStruct:
            batch = BatchStruct(*arguments)
            damage(batch)
            return batch

        with monkeypatch.context() as patched:
            patched.setattr(blocks, "BatchStruct", damaged)
            with pytest.raises(InvalidArguments, match="refused to compute lw_encode"):
                encoder.logits(texts, [adapter] * 3, threads=1)
        assert encoder.nbytes > 0, variant


def test_modernbert_refuses_texts_beyond_its_positions() -> None:
    model = _modernbert()
    for library in libraries().values():
        encoder = build_encoder(model, torch.bfloat16, backend=library)
        with pytest.raises(InvalidArguments, match="refused to compute lw_encode"):
            encoder.logits(_texts((161,)), [encoder.extract_adapter(model)], threads=1)


@pytest.mark.parametrize("x", [torch.zeros(3, 32), torch.zeros(3, 64, dtype=torch.bfloat16)])
def test_embeddings_of_another_width_or_type_are_refused(x: Tensor) -> None:
    for library in libraries().values():
        encoder = build_encoder(MODELS["bert"](), torch.bfloat16, backend=library)
        assert isinstance(encoder, PackedEncoder)
        native = encoder._native
        assert native is not None
        with pytest.raises(InvalidArguments, match=r"embeddings are \(rows, 64\) in float32"):
            native(x, [0], [3], [(3, 1, native.pack_adapter({}))], 1)


@pytest.mark.parametrize("window", [2**31 - 1, -2])
def test_a_window_that_is_none_is_refused(window: int) -> None:
    for library in libraries().values():
        encoder = build_encoder(MODELS["bert"](), torch.bfloat16, backend=library)
        assert isinstance(encoder, PackedEncoder)
        assert encoder._native is not None
        encoder._native._blocks[1].window = window
        with pytest.raises(InvalidArguments, match="refused to compute lw_encode"):
            encoder.logits(_texts((5,)), [encoder.prepare_adapter(Adapter({}, ()))])
