"""What each technique of our training brings: `python -m benchmarks.techniques --method lora_all`.

Each is left out in turn, in a process of its own, and everything on is measured between them.
Those for bf16 alone are measured where that is fast; without the native engine, "native attention"
gains nothing. Prints a line for each, and as its last line
one JSON object: technique → how many times faster the steps are with it.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks import child_process, machine
from benchmarks.train.plan import METHODS, rate_data, train_spec
from lora_core.cpu import has_fast_bf16
from lora_core.process_settings import limit_openmp_spinning, retain_freed_memory

NOTHING = "nothing"


def first_token() -> None:
    from lora_core.fast import first_token

    first_token.patch_last_block = lambda *_: None


def folding() -> None:
    from lora_core.fast import folded_lora as law

    law.TOKENS_PER_RANK = sys.maxsize


def rows_as_masks() -> None:
    from lora_core.fast import frozen_encoder
    from lora_core.forward import Forward

    frozen_encoder.BlockwiseForward = lambda model, machine, _, **pad: Forward(  # type: ignore[attr-defined]
        model, machine, **pad
    )


def texts_of_like_length() -> None:
    from lora_core.data import batching

    batching.POOL_BATCHES = 1  # updates are drawn at random


def attention_by_text() -> None:
    from lora_core.fast import unfused_attention

    unfused_attention.patch_attention = lambda _: None


def native_attention() -> None:
    from lora_core.fast import unfused_attention

    # The same, unfused, by torch.
    unfused_attention.best_library = lambda: None  # type: ignore[attr-defined]


def steps_of_lengths() -> None:
    from lora_core.fast import unfused_attention

    unfused_attention.LENGTH_STEP = 1


def cast_weights() -> None:
    from lora_core.fast import cast_weights

    cast_weights.patch_frozen_linears = lambda *_: None


LEFT_OUT: Mapping[str, Callable[[], None]] = {
    "first token": first_token,
    "folding": folding,
    "rows as masks": rows_as_masks,
    "texts of like length": texts_of_like_length,
}
IN_BF16: Mapping[str, Callable[[], None]] = {
    # By the native engine where it was built, else unfused by torch; without: the fused kernel.
    "attention by text": attention_by_text,
    "native attention": native_attention,
    "lengths in steps": steps_of_lengths,
    "cast weights": cast_weights,
}
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "micro-batches": {"micro_batch_tokens": 1_048_576},
    "no dropout in the encoder": {"encoder_dropout": 0.1},
}
MEMORY = "kept memory"
ALWAYS = (*LEFT_OUT, *SETTINGS, MEMORY)
TECHNIQUES = (*ALWAYS, *IN_BF16) if has_fast_bf16() else ALWAYS


def rate(method: str, without: str, seconds: float, texts: int) -> float:
    """Reviews per second of steady steps at 512 tokens, in this process."""
    limit_openmp_spinning()
    if without != MEMORY:
        retain_freed_memory()
    {**LEFT_OUT, **IN_BF16}.get(without, lambda: None)()
    from benchmarks.train.ours import ready, steady  # only now: torch reads what was set above
    from benchmarks.train.window import Window

    spec = train_spec(method, rate_data(texts), epochs=100)
    optim = spec.optim.model_copy(update=dict(SETTINGS.get(without, {})))
    prepared = ready(spec.model_copy(update={"optim": optim}))
    steady(prepared, Window(0, 2))
    _, reviews, elapsed = steady(prepared, Window(seconds, texts // spec.optim.batch_size))
    return reviews / elapsed


def measure(arguments: argparse.Namespace, without: str) -> float:
    """The same from a new process."""
    words = ["benchmarks.techniques", "--without", without]
    for name in ("method", "seconds", "texts"):
        words += [f"--{name}", str(getattr(arguments, name))]
    return float(child_process.last_line(f"without {without}", *words))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", choices=METHODS, default="lora_qv")
    parser.add_argument("--seconds", type=float, default=20.0, help="of steady steps, for each")
    parser.add_argument("--texts", type=int, default=160, help="one pass over them at least")
    parser.add_argument("--without", choices=(NOTHING, *TECHNIQUES), help="measure this one here")
    arguments = parser.parse_args()
    if arguments.without:
        print(rate(arguments.method, arguments.without, arguments.seconds, arguments.texts))
        return
    gains: dict[str, Any] = {}
    before = measure(arguments, NOTHING)
    for technique in TECHNIQUES:
        left_out, after = measure(arguments, technique), measure(arguments, NOTHING)
        gains[technique] = round((before + after) / 2 / left_out, 3)
        print(f"{technique:28} {gains[technique]:5.2f}x", flush=True)
        before = after
    print(json.dumps({"method": arguments.method, **gains, "processor": machine.processor()}))


if __name__ == "__main__":
    main()
