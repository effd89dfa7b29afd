"""Cached features of a frozen encoder: shared, and never mixed up."""

import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from lora_core.cache import cache_dir
from lora_core.data.tokens import TokenizedSplit
from lora_core.errors.training import DiskFull
from lora_core.fast import feature_cache
from lora_core.specs.data import Split
from lora_core.specs.train import TrainSpec
from tests.recording_observer import RecordingObserver

Train = Callable[..., tuple[RecordingObserver, Path]]
COUNTS = np.array([2, 1, 3])
ROWS = torch.arange(12.0).reshape(6, 2)


def compute() -> Iterator[tuple[int, torch.Tensor]]:
    yield from ((2, ROWS[3:]), (0, ROWS[:2]), (1, ROWS[2:3]))


def never() -> Iterator[tuple[int, torch.Tensor]]:
    raise AssertionError("it was there already")


def entry(name: str) -> Path:
    return cache_dir() / "features" / f"{name}.npy"


def test_stored_features_are_reused() -> None:
    made = feature_cache.load_or_compute("once", COUNTS, 2, compute)
    found = feature_cache.load_or_compute("once", COUNTS, 2, never)
    assert (made.cache_hit, found.cache_hit) == (False, True)
    for each in (made, found):
        first, second = each.get([2, 0])
        assert torch.equal(first, ROWS[3:])
        assert torch.equal(second, ROWS[:2])


def test_modified_result_does_not_change_the_cache() -> None:
    feature_cache.load_or_compute("shared", COUNTS, 2, compute)
    feature_cache.load_or_compute("shared", COUNTS, 2, never).get([1])[0].zero_()
    assert torch.equal(
        feature_cache.load_or_compute("shared", COUNTS, 2, never).get([1])[0], ROWS[2:3]
    )


@pytest.mark.parametrize("content", [b"", b"no array", None])
def test_damaged_entry_is_recomputed(content: bytes | None) -> None:
    feature_cache.load_or_compute("damaged", COUNTS, 2, compute)
    intact = entry("damaged").read_bytes()
    entry("damaged").write_bytes(intact[:-8] if content is None else content)
    again = feature_cache.load_or_compute("damaged", COUNTS, 2, compute)
    assert not again.cache_hit
    assert entry("damaged").read_bytes() == intact


def test_full_disk_while_features_are_written_has_its_own_error() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_disk() -> Iterator[tuple[int, torch.Tensor]]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))  # simulates a full disk
        yield from compute()

    try:
        with pytest.raises(DiskFull):
            feature_cache.load_or_compute("full", COUNTS, 2, fill_disk)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not entry("full").exists()


def test_oldest_entries_are_evicted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_cache, "MAX_BYTES", 1)
    for name in ("older", "newer"):
        feature_cache.load_or_compute(name, COUNTS, 2, compute)
    assert [entry(name).exists() for name in ("older", "newer")] == [False, True]


def part(*texts: list[int]) -> TokenizedSplit:
    ids = [np.array(text, dtype=np.int32) for text in texts]
    lengths = np.array([len(text) for text in texts])
    return TokenizedSplit(Split.TRAIN, ids, lengths, np.zeros(len(ids), dtype=np.int64), pad_id=0)


def test_cache_key_covers_settings_weights_and_texts() -> None:
    weight = torch.ones(3)
    names = {
        feature_cache.entry_key(feature_cache.hash_encoder(facts, [tensor]), texts)
        for facts, tensor, texts in (
            (["threads=1"], weight, part([1, 2], [3])),
            (["threads=2"], weight, part([1, 2], [3])),
            (["threads=1"], weight * 2, part([1, 2], [3])),
            (["threads=1"], weight, part([1], [2, 3])),
            (["threads=1"], weight, part([3], [1, 2])),
        )
    }
    assert len(names) == 5


@pytest.mark.parametrize("method", [{"type": "baseline"}, {"type": "lora", "layers": [1]}])
def test_second_run_uses_the_cache_with_equal_results(
    spec: Callable[..., TrainSpec], train: Train, method: dict[str, object]
) -> None:
    run = spec(method=method, optim={"epochs": 1})
    observer = [train(run)[0] for _ in range(2)]
    ends = [each.all("finished")[0].summary for each in observer]
    assert [end["features_found"] for end in ends] == [False, True]
    losses = [[event.loss for event in each.all("step")] for each in observer]
    assert losses[0] == losses[1]
    assert ends[0]["test"] == ends[1]["test"]
