"""Which texts of a part were answered rightly, without what reads or compares them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Graded:
    """Of a part, in the order of its texts."""

    texts_sha256: str  # the same texts in the same order have the same
    correct: bytes  # numpy.packbits of the booleans
    count: int  # texts
