"""A host without the samples, as after `pip install` of the wheel."""

from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest

from lora_core.samples import minilm, packages, reviews


def hide_samples(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """Use an empty cache, and hide the installed packages."""
    sample_names = {minilm.PACKAGE.name, reviews.PACKAGE.name}

    def find_other(name: str) -> Distribution:
        if name in sample_names:
            raise PackageNotFoundError(name)
        return distribution(name)

    monkeypatch.setenv("LORAWORKS_CACHE", str(cache))
    monkeypatch.setattr(packages, "distribution", find_other)
