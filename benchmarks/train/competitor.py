"""The competitor: PEFT and the Trainer of transformers, with default or tuned settings."""

from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForSequenceClassification

from benchmarks.silent import silent_progress
from benchmarks.train.ours import right
from benchmarks.train.plan import (
    BASE,
    METHODS,
    RATES,
    SEED,
    SEEDS,
    Place,
    Size,
    accuracy_data,
    rate_data,
)
from benchmarks.train.reviews import read
from benchmarks.train.trainer import Side, arguments, precision, train
from benchmarks.train.window import Window
from lora_core import runtime, runtime_environment
from lora_core.data.tokens import TokenizedSplit
from lora_core.encoders.load import (
    BaseCheckpoint,
    disable_transformers_logging,
    load_classifier,
    resolve_base,
)
from lora_core.fast import first_token
from lora_core.fast.frozen_encoder import build_fastest_forward
from lora_core.forward import Forward
from lora_core.runtime import Runtime
from lora_core.specs.data import Split
from lora_core.specs.method import FullFineTuningSpec, LastLayersBaselineSpec, LoraSpec
from lora_core.specs.train import OptimSpec, RuntimeSpec

LABELS = ("negative", "positive")
# The Trainer's sampler sorts 50 batches together only if there are 200 or more; ours sorts 50 too.
COPIES = 4


def rate(name: str, side: Side, size: Size) -> dict[str, Any]:
    """Reviews per second over steady steps at 512 tokens, and the peak in MB."""
    _, parts = read(rate_data(size.rate_texts), resolve_base(BASE))
    texts = dataset(parts[Split.TRAIN]) * COPIES
    # Batches at random are all alike, so any step may be the last.
    window = Window(size.seconds, size.a_pass if side == "tuned" else 1)
    return _steady(name, side, size, texts, window)


def rate_in_order(name: str, texts: list[dict[str, Any]], size: Size) -> dict[str, Any]:
    """The same for the tuned competitor over `size.pair_steps` steps, on the given texts."""
    window = Window(0, size.pair_steps)
    return _steady(name, "tuned", size, texts, window, train_sampling_strategy="sequential")


def _steady(
    name: str,
    side: Side,
    size: Size,
    texts: list[dict[str, Any]],
    window: Window,
    **more: Any,
) -> dict[str, Any]:
    """A window of one training of a fresh model: its first steps are the warm-up."""
    machine, base = start(size.place), resolve_base(BASE)
    model = build_model(base, METHODS[name], tuned=side == "tuned", head=initial_head(base))
    settings = arguments(RATES[name], side, machine, epochs=100, batch=size.place.batch, **more)
    steps, seconds = train(model, texts, base, settings, window, warmup=size.warmup)
    return {
        "reviews_per_s": steps * size.place.batch / seconds,
        "steps": steps,
        "steps_seconds": seconds,
        "precision": precision(side, machine),
        "peak_mb": machine.peak_memory_mb(),
    }


def accuracy(name: str, size: Size) -> dict[str, Any]:
    """The predictions of the tuned competitor after one epoch at 256 tokens, of each seed.

    They are computed as ours are, with merged adapters, and are not part of any rate.
    """
    machine, base = start(), resolve_base(BASE)
    splits, parts = read(accuracy_data(size), base)
    texts, test = dataset(parts[Split.TRAIN]), parts[Split.TEST]
    correct, seconds = [], 0.0
    for seed in SEEDS[name]:
        head = initial_head(base, seed)
        model = build_model(base, METHODS[name], tuned=True, head=head)
        settings = arguments(RATES[name], "tuned", machine, epochs=1, seed=seed)
        seconds += train(model, texts, base, settings)[1]
        if isinstance(model, PeftModel):
            model = model.merge_and_unload()
        first_token.patch_last_block(model, base.family)
        correct.append(right(answering(model, machine, base, test), test))
    return {
        "correct": correct,
        "data": splits.digest,
        "train_seconds": seconds,
        "peak_mb": runtime.peak_process_memory_mb(),
    }


def answering(model: Any, machine: Runtime, base: BaseCheckpoint, test: TokenizedSplit) -> Forward:
    """Computes logits the way ours does."""
    return build_fastest_forward(
        model,
        machine,
        base.family,
        {Split.TEST: test},
        encoder_dropout=0.0,
        budget=OptimSpec().micro_batch_tokens,
        progress=silent_progress(),
        environment=runtime_environment.describe_environment(
            machine, OptimSpec().micro_batch_tokens
        ),
    )


def start(place: Place = Place()) -> Runtime:
    """Threads, seeds and precision by the rule that ours follows."""
    disable_transformers_logging()
    machine = runtime.setup_runtime(RuntimeSpec(device=place.device, seed=SEED))
    torch.use_deterministic_algorithms(False)  # the competitor does not promise the same bits
    return machine


def initial_head(base: BaseCheckpoint, seed: int = SEED) -> dict[str, Any]:
    """The weights of the head that ours begins with, by module."""
    torch.manual_seed(seed)
    ours, _ = load_classifier(base, LABELS)
    return {name: ours.get_submodule(name).state_dict() for name in base.family.head}


def build_model(
    base: BaseCheckpoint,
    method: LoraSpec | FullFineTuningSpec | LastLayersBaselineSpec,
    *,
    tuned: bool,
    head: dict[str, Any],
) -> Any:
    """The base with a head that trains. Dropout as its config has it; tuned: none.

    The head is `initial_head`: two that differ would blur the paired difference.
    """
    family = base.family
    dropouts = dict.fromkeys((*family.dropouts, *family.head_dropouts), 0.0) if tuned else {}
    model = AutoModelForSequenceClassification.from_pretrained(
        base.directory,
        num_labels=len(LABELS),
        dtype=torch.float32,
        local_files_only=True,
        **dropouts,
    )
    for name, weights in head.items():
        model.get_submodule(name).load_state_dict(weights)
    match method:
        case LoraSpec():
            config = LoraConfig(
                task_type="SEQ_CLS",
                r=method.r,
                lora_alpha=method.alpha,
                lora_dropout=method.dropout,
                target_modules=[path for role in method.targets for path in family.roles[role]],
                modules_to_save=list(family.head),
            )
            return get_peft_model(model, config)
        case LastLayersBaselineSpec():
            model.requires_grad_(False)
            for name in family.head:
                model.get_submodule(name).requires_grad_(True)
    return model


def dataset(part: TokenizedSplit) -> list[dict[str, Any]]:
    """What the collator of the Trainer takes."""
    return [
        {"input_ids": ids.tolist(), "labels": int(label)}
        for ids, label in zip(part.ids, part.targets, strict=True)
    ]
