"""The engine without a server: the reference for the overhead of serving."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from app.serving.loaded_model import EncoderLoader
from lora_core.cache import cache_dir
from lora_core.data.batching import length_sorted_batches
from lora_core.process_settings import available_cores

AT_ONCE = 256  # texts that are sorted by length together


def load(directory: Path) -> Any:
    """Load a model as the service does: on the fastest engine that reproduces its logits."""
    return EncoderLoader("auto", cache_dir() / "bench-serve" / "engines")(directory, imported=False)


def offline(predictor: Any, texts: Sequence[str], seconds: float) -> dict[str, float]:
    """Offline throughput from texts to logits, in texts per second.

    Rounds of `AT_ONCE` texts until the time is over, after one to warm up. As in the service,
    each core computes batches of its own.
    """
    encoding = computing = 0.0
    done = -AT_ONCE
    with ThreadPoolExecutor(available_cores()) as workers:
        for start in cycle(range(0, len(texts) - AT_ONCE + 1, AT_ONCE)):
            began = time.perf_counter()
            items = predictor.encode(texts[start : start + AT_ONCE])
            encoded = time.perf_counter()
            lengths = np.array([item.length for item in items])
            batches = length_sorted_batches(lengths, predictor.engine.batch_tokens)
            texts_of = ([items[i] for i in batch] for batch in batches)
            list(workers.map(partial(_compute, predictor), texts_of))
            ended = time.perf_counter()
            done += AT_ONCE
            if done:
                encoding += encoded - began
                computing += ended - encoded
            if encoding + computing >= seconds:
                break
    total = encoding + computing
    return {"per_s": done / total, "encoding_share": encoding / total, "texts": done}


def _compute(predictor: Any, items: Sequence[Any]) -> None:
    predictor.engine.logits(items, [predictor.adapter] * len(items), threads=1)


def one_by_one(predictor: Any, texts: Sequence[str]) -> list[float]:
    """Milliseconds of the forward pass of each text alone, on all cores."""
    took = []
    for text in texts:
        (item,) = predictor.encode([text])
        began = time.perf_counter()
        predictor.engine.logits([item], [predictor.adapter], threads=available_cores())
        took.append((time.perf_counter() - began) * 1000)
    return took
