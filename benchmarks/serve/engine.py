"""The engine without a server: the reference for the overhead of serving."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from app.serving.loaded_model import EngineSelectingEncoderLoader
from lora_core.cache import cache_dir
from lora_core.data.batching import length_sorted_batches
from lora_core.inference.engines import list_auto_engine_candidates
from lora_core.inference.predictor import Predictor
from lora_core.process_settings import available_cores

AT_ONCE = 256  # texts that are sorted by length together
TURN = 20  # lone texts of one engine before the next one has its turn


def load(directory: Path) -> Any:
    """Load a model as the service does, on the fastest engine.

    Fails if that one does not reproduce the logits: the service would compute on another one, and
    its speed would be called that of the fastest.
    """
    predictor = EngineSelectingEncoderLoader("auto", cache_dir() / "bench-serve" / "engines")(
        directory, imported=False
    )
    fastest, engine = next(iter(predictor.engine_speeds)), predictor.engine.name
    assert engine == fastest, f"{fastest} was rejected, and the service would use {engine}"
    return predictor


def offline(predictor: Any, texts: Sequence[str], seconds: float) -> dict[str, float]:
    """Offline throughput from texts to logits, in texts per second.

    Rounds of `AT_ONCE` texts until the time is over, after one to warm up. As in the service,
    each core computes batches of its own.
    """
    encoding = computing = flops = 0.0
    done, tokens = -AT_ONCE, 0
    with ThreadPoolExecutor(available_cores()) as workers:
        for start in cycle(range(0, len(texts) - AT_ONCE + 1, AT_ONCE)):
            began = time.perf_counter()
            items = predictor.encode(texts[start : start + AT_ONCE])
            encoded = time.perf_counter()
            lengths = np.array([item.length for item in items])
            batches = length_sorted_batches(lengths, predictor.engine.max_batch_tokens)
            texts_of = ([items[i] for i in batch] for batch in batches)
            list(workers.map(partial(_compute, predictor), texts_of))
            ended = time.perf_counter()
            done += AT_ONCE
            if done:
                encoding += encoded - began
                computing += ended - encoded
                tokens += int(lengths.sum())
                flops += sum(needed_flops(predictor, n) for n in lengths)
            if encoding + computing >= seconds:
                break
    total = encoding + computing
    return {
        "per_s": done / total,
        "encoding_share": encoding / total,
        "texts": done,
        "tokens_per_text": tokens / done,
        "flops_per_text": flops / done,
    }


def needed_flops(predictor: Any, length: int) -> float:
    """FLOPs of the products for one text: of the last block, keys and values are computed for all
    tokens and the rest for the first one."""
    shape = predictor.engine.shape
    layer = 2 * shape.block_multiplications * length + 4 * length**2 * shape.width
    last = 2 * 2 * shape.width**2 * length + 2 * shape.block_multiplications
    return float((shape.layers - 1) * layer + last)


def compare(directory: Path, texts: Sequence[str], single_texts: int) -> dict[str, Any]:
    """Every engine of this machine: milliseconds of lone texts, in turns, and how far the logits
    are from those in float32."""
    names = [
        "torch-fp32",
        *(name for name in list_auto_engine_candidates() if name != "torch-fp32"),
    ]
    predictors = {name: Predictor.load(directory, engine=name) for name in names}
    took: dict[str, list[float]] = {name: [] for name in names}
    for start in (0, *range(0, single_texts, TURN)):  # the first turn warms up
        for name in names:
            took[name] += one_by_one(predictors[name], texts[start : start + TURN])
    exact, *_ = logits = [
        np.asarray(predictors[name].forward(predictors[name].encode(texts))) for name in names
    ]
    return {
        name: {
            "single_ms_p50": float(np.median(took[name][TURN:])),
            "same_labels": float((found.argmax(-1) == exact.argmax(-1)).mean()),
            "rms_error": float(np.sqrt(np.square(found - exact).mean())),
            "max_error": float(np.abs(found - exact).max()),
        }
        for name, found in zip(names, logits, strict=True)
    }


def _compute(predictor: Any, items: Sequence[Any]) -> None:
    predictor.engine.logits(items, [predictor.adapter] * len(items), threads=1)


def one_by_one(predictor: Any, texts: Sequence[str], *, pause: float = 0.0) -> list[float]:
    """Milliseconds of the forward pass of each text alone, on all cores, `pause` seconds apart."""
    took = []
    for text in texts:
        (item,) = predictor.encode([text])
        time.sleep(pause)
        began = time.perf_counter()
        predictor.engine.logits([item], [predictor.adapter], threads=available_cores())
        took.append((time.perf_counter() - began) * 1000)
    return took
