"""Try a base model before anything is trained: what is adapted, whether it is computed right, and
how fast.

The texts are random tokens. The encoder of the server is compared with transformers on each text
alone, and a merged adapter with the unmerged one, after training steps of LoRA on all roles.
"""

import copy
import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from lora_core import compatibility, fine_tuning_methods
from lora_core.adapters import adapter_layers, merge_adapters
from lora_core.artifact import check_merged_logits, resolve_base_or_artifact
from lora_core.data.tokens import (
    TokenizedSplit,
    check_tokenizer_adds_special_tokens,
    load_tokenizer,
)
from lora_core.encoders.encoder_parts import pretrained_blocks
from lora_core.encoders.families import EncoderFamily, FastPathFamily
from lora_core.encoders.load import load_classifier
from lora_core.encoders.pooling import set_pooling
from lora_core.encoders.safety import check_has_fast_tokenizer
from lora_core.errors.base_model import BaseNotBatchInvariant, BaseNotFound, UnreadableBase
from lora_core.errors.training import NonFiniteLoss
from lora_core.events import NullObserver
from lora_core.fast.optimize import optimize
from lora_core.forward import Forward
from lora_core.inference.engines import build_encoder
from lora_core.inference.tokenization import TokenizedText
from lora_core.progress_reporter import ProgressReporter
from lora_core.resolve_defaults import default_learning_rate
from lora_core.results import AdaptedLayers, BaseModelReport
from lora_core.runtime import Runtime, peak_process_memory_mb, setup_runtime
from lora_core.saved_predictions import logit_difference_and_limit
from lora_core.specs.data import Split
from lora_core.specs.method import LoraSpec
from lora_core.specs.train import RuntimeSpec

_TEXTS = 16
_MAX_TOKENS = 128  # of the longest text
_STEPS = 3  # of training; the fastest counts
_LABELS = ("0", "1")


class _Quiet(NullObserver):
    """Ignores events, and never stops."""

    def requested(self) -> bool:
        return False


def run_base_model_check(name: str, revision: str | None = None) -> BaseModelReport:
    """Load a base and try it on this machine.

    Raises `BaseNotBatchInvariant`, `MergeMismatch`, `NonFiniteLoss`, `UnreadableBase`, and what
    loading raises.
    """
    base = resolve_base_or_artifact(name, revision)
    if revision is not None and base.commit is None:
        raise BaseNotFound(base=name, reason="only hub models have revisions, so omit it")
    check_has_fast_tokenizer(base.name, (path.name for path in base.directory.iterdir()))
    shape = compatibility.read_encoder_shape(base.config, base=base.name)
    check_tokenizer_adds_special_tokens(
        load_tokenizer(base.directory / "tokenizer.json"), base.name
    )
    runtime = setup_runtime(RuntimeSpec())
    family = base.family
    model, _ = load_classifier(base, _LABELS)
    set_pooling(model, family, shape.pooling)
    texts = _random_texts(shape, model.config.pad_token_id)
    tokens = sum(text.length for text in texts)
    difference, inference_seconds = _compare_with_transformers(model, texts, base.name)

    method = LoraSpec()
    parameters = sum(p.numel() for p in model.parameters())
    lora = fine_tuning_methods.build_method(method)
    lora.prepare(model, family)
    counts = lora.count_parameters(model)
    adapted = tuple(_adapted_layers(model, family))
    model.to(runtime.device)
    step_seconds = _train(model, family, runtime, texts, default_learning_rate(method, shape.width))
    return BaseModelReport(
        base=base.name,
        commit=base.commit,
        model_type=family.model_type,
        road="fast" if isinstance(family, FastPathFamily) else "general",
        blocks=shape.layers,
        passes=shape.block_passes,
        width=shape.width,
        max_tokens=shape.max_tokens,
        parameters=parameters,
        adapted=adapted,
        head=family.head,
        trained_parameters=counts.trainable,
        logits_difference=difference,
        merge_difference=_merge(model, texts, base.name),
        device=runtime.device,
        precision=runtime.precision,
        tokens_per_second=round(tokens / inference_seconds, 1),
        trained_tokens_per_second=round(tokens / step_seconds, 1),
        lora_memory_mb=_memory_mb(counts.total, counts.trainable),
        full_memory_mb=_memory_mb(parameters, parameters),
        peak_memory_mb=round(peak_process_memory_mb(), 1),
    )


def _random_texts(shape: compatibility.EncoderShape, pad_id: int | None) -> list[TokenizedText]:
    """Return texts of random tokens, of 2 up to `_MAX_TOKENS` tokens."""
    generator = np.random.default_rng(0)
    known = np.setdiff1d(np.arange(shape.vocabulary), [pad_id or 0])
    lengths = np.linspace(2, min(_MAX_TOKENS, shape.max_tokens), _TEXTS).astype(int)
    return [TokenizedText(generator.choice(known, n).tolist(), truncated=False) for n in lengths]


@torch.no_grad()
def _alone(model: PreTrainedModel, text: TokenizedText) -> Tensor:
    """Return the logits (classes,) that transformers computes for one text."""
    logits: Tensor = model(torch.tensor([text.ids], device=model.device)).logits[0].cpu()
    return logits


def _stack(logits: Sequence[Tensor], base: str) -> NDArray[np.float32]:
    """Return logits (texts, classes). Raises `UnreadableBase` if one is NaN or infinite."""
    stacked: NDArray[np.float32] = torch.stack(list(logits)).numpy()
    if not np.isfinite(stacked).all():
        raise UnreadableBase(base=base, reason="its logits are not finite")
    return stacked


def _compare_with_transformers(
    model: PreTrainedModel, texts: Sequence[TokenizedText], base: str
) -> tuple[float, float]:
    """Return how far the logits of a batch are from those of each text alone, and its seconds.

    Raises `BaseNotBatchInvariant`, `UnreadableBase`.
    """
    model.eval()
    expected = _stack([_alone(model, text) for text in texts], base)
    engine = build_encoder(copy.deepcopy(model), torch.float32)
    adapters = [engine.extract_adapter(model)] * len(texts)
    logits = engine.logits(texts, adapters)
    started = time.perf_counter()
    engine.logits(texts, adapters)
    seconds = time.perf_counter() - started
    difference, limit = logit_difference_and_limit(_stack(logits, base), expected)
    if not difference <= limit:
        raise BaseNotBatchInvariant(base=base, difference=difference, limit=limit)
    return difference, seconds


def _adapted_layers(model: nn.Module, family: EncoderFamily) -> Iterator[AdaptedLayers]:
    """Yield the layers that adapters are beside, with the parameters of the adapters."""
    adapters = adapter_layers(model)
    count = len(pretrained_blocks(model, family))
    for paths in dict.fromkeys(family.roles.values()):
        names = [f"{family.block_list}.{i}.{path}" for i in range(count) for path in paths]
        sizes = [p.numel() for name in names for _, p in adapters[name].named_adapter_parameters()]
        roles = tuple(role for role in family.roles if family.roles[role] == paths)
        yield AdaptedLayers(roles=roles, layers=paths, parameters=sum(sizes))


def _train(
    model: PreTrainedModel,
    family: EncoderFamily,
    runtime: Runtime,
    texts: Sequence[TokenizedText],
    learning_rate: float,
) -> float:
    """Make some steps, and return the seconds of the fastest. Raises `NonFiniteLoss`."""
    rows = [np.array(text.ids, dtype=np.int32) for text in texts]
    lengths = np.array([text.length for text in texts])
    labels = np.arange(len(texts)) % len(_LABELS)
    split = TokenizedSplit(Split.TRAIN, rows, lengths, labels, model.config.pad_token_id or 0)
    quiet = _Quiet()
    forward: Forward = optimize(
        model,
        family,
        runtime,
        {},
        encoder_dropout=0.0,
        micro_batch_tokens=_TEXTS * _MAX_TOKENS,
        progress=ProgressReporter(quiet, quiet),
        environment={},
    )
    targets = torch.from_numpy(labels).to(runtime.device)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=learning_rate)
    seconds = []
    for step in range(1, _STEPS + 1):
        started = time.perf_counter()
        loss = cross_entropy(forward(split, range(len(texts))).float(), targets)
        torch.autograd.backward(loss)
        norm = nn.utils.clip_grad_norm_(trained, 1.0).item()
        for what, value in (("loss", loss.item()), ("gradient norm", norm)):
            if not np.isfinite(value):
                raise NonFiniteLoss(
                    what=what, value=str(value), step=step, learning_rate=learning_rate
                )
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def _merge(model: PreTrainedModel, texts: Sequence[TokenizedText], base: str) -> float:
    """Merge the adapters, and return how far that moves the logits.

    Raises `MergeMismatch`, `UnreadableBase`.
    """
    model.eval()
    unmerged = [_alone(model, text) for text in texts]
    merge_adapters(model)
    merged = [_alone(model, text) for text in texts]
    return check_merged_logits(_stack(unmerged, base), _stack(merged, base))


def _memory_mb(parameters: int, trained: int) -> float:
    """Return the memory of weights, gradients and the two moments of AdamW, in float32, in MiB.

    Activations come on top: they grow with `optim.micro_batch_tokens`.
    """
    return round(4 * (parameters + 3 * trained) / 2**20, 1)
