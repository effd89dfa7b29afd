"""Convert panics of Rust libraries, such as tokenizers and safetensors, to ordinary errors.

pyo3 raises a panic as a `BaseException`, in each library of a class of its own that cannot be
imported, so no `except Exception` catches it.
"""

from asyncio import CancelledError
from collections.abc import Iterator
from contextlib import contextmanager

# Raised to end a program or a task on purpose.
_INTENTIONAL = (KeyboardInterrupt, SystemExit, GeneratorExit, CancelledError, BaseExceptionGroup)


class RustPanic(RuntimeError):
    """A Rust library panicked instead of raising an error."""


@contextmanager
def convert_panics() -> Iterator[None]:
    """Raise `RustPanic` in place of a panic; let everything else propagate."""
    try:
        yield
    except (Exception, *_INTENTIONAL):
        raise
    except BaseException as error:
        raise RustPanic(f"{type(error).__name__}: {str(error)[:500]}") from error
