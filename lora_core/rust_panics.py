"""Panics of Rust libraries, such as tokenizers and safetensors, as errors that handlers know.

pyo3 raises them as a `BaseException`, each library one of a class of its own that cannot be
imported, so they go past every `except Exception`.
"""

from asyncio import CancelledError
from collections.abc import Iterator
from contextlib import contextmanager

# What ends a program or a task on purpose.
_MEANT = (KeyboardInterrupt, SystemExit, GeneratorExit, CancelledError, BaseExceptionGroup)


class Panicked(RuntimeError):
    """A library gave up where it should have raised an error."""


@contextmanager
def contained() -> Iterator[None]:
    """Raises `Panicked` in place of what no handler expects; everything else as it is."""
    try:
        yield
    except (Exception, *_MEANT):
        raise
    except BaseException as error:
        raise Panicked(f"{type(error).__name__}: {str(error)[:500]}") from error
