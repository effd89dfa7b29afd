import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from lora_core.process import limit_openmp_spinning
from tests.s3_server import s3
from tests.servers import postgres, valkey

__all__ = ["postgres", "s3", "valkey"]

limit_openmp_spinning()  # before any test loads torch
gc.disable()  # until all is imported, of which it would look through every object again and again

# A shell starts what it runs in the background deaf to SIGINT, and so are all processes of the
# tests, which are to stop at one. A process begins with the default of what is handled here.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Machines that run tests are often busy: time is no property of the code.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


def pytest_collection_finish() -> None:
    """What is imported by now stays, and is not looked at any more."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes minutes comes first, so that in the end no core waits for the last of it."""
    items.sort(key=lambda item: item.get_closest_marker("e2e") is None)


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    """A service sets one for its process, which in tests is that of all."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture(scope="session", autouse=True)
def session_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One cache for all tests, apart from that of the user."""
    directory = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORAWORKS_CACHE", str(directory))
        yield directory
