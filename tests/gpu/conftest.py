"""Tests for a machine with a GPU: `make gpu-check` runs them, and nothing else does."""

import pytest
import torch

from tests.lora_core.training.conftest import base, cache, reviews, spec, train

__all__ = ["base", "cache", "reviews", "spec", "train"]


@pytest.fixture(scope="session", autouse=True)
def gpu() -> None:
    if not torch.cuda.is_available():
        pytest.fail("These tests need a GPU, and torch finds none.", pytrace=False)
