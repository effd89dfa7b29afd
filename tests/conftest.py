import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from lora_core.process_settings import limit_openmp_spinning
from tests.s3_server import s3
from tests.servers import postgres, valkey

__all__ = ["postgres", "s3", "valkey"]

limit_openmp_spinning()  # before any test loads torch
gc.disable()  # during imports, whose objects it would scan repeatedly

# A shell starts background jobs with SIGINT ignored, and so are all processes of the
# tests, which must stop on it. A child gets the default of a signal that is handled here.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Machines that run tests are often busy, so Hypothesis has no deadline.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


def pytest_collection_finish() -> None:
    """Exclude imported objects from garbage collection."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest tests first, so that no core is idle at the end."""
    items.sort(key=lambda item: item.get_closest_marker("e2e") is None)


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    """A service sets the umask of its process, which all tests share."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture(scope="session", autouse=True)
def session_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One cache for all tests, separate from the user's."""
    directory = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORAWORKS_CACHE", str(directory))
        yield directory
