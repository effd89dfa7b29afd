"""What is measured, in which order, for how long, and how clients behave."""

from dataclasses import dataclass

SEED = 0
CONNECTIONS = 64  # of the closed loop: each sends the next request after a response
RATES = (0.5, 1, 2, 5)  # of the open loop, as shares of what the closed loop reached
CALM = 0.5  # the rate at which alias moves are tried and recovery is watched

PATIENCE_SECONDS = 5.0  # client timeout: a later response is useless
HANG_UPS = 0.1  # share of clients that disconnect early, at most after this many seconds:
HANG_UP_SECONDS = 1.0
KEYS = 10
GREEDY = 0.8  # share of requests of the first key, in addition to its tenth of the rest

ADAPTERS = 32
MOVES = 20  # of an alias, from one version to the other and back

COMPETITORS = ("pipeline", "litserve", "infinity", "vllm")
FLOAT32_CELLS = tuple(f"float32-{name}" for name in ("ours", *COMPETITORS))  # where bf16 is slow
CELLS = (
    "offline",
    "engines",
    "closed-ours",
    *(f"closed-{name}" for name in COMPETITORS),
    *(f"plain-{name}" for name in COMPETITORS),
    *FLOAT32_CELLS,
    "single",
    *(f"open-{rate}" for rate in RATES),
    "swaps",
    "adapters",
)


def takes_share(cell: str) -> bool:
    """Whether its load is a share of what the closed loop reached."""
    return cell == "swaps" or cell.startswith("open-")


@dataclass(frozen=True)
class Size:
    """How long it is measured."""

    warm_seconds: float  # before every window
    closed_seconds: float
    plain_seconds: float  # the competitors with default settings
    tunings: int  # settings of each competitor; if more than one, each is tried first
    try_seconds: float
    offline_seconds: float
    single_texts: int
    compared_texts: int  # by every engine
    open_seconds: float
    recovery_seconds: float  # after the highest rate
    move_seconds: float  # between two moves of an alias


FULL = Size(8.0, 50.0, 25.0, 2, 12.0, 50.0, 200, 2000, 50.0, 20.0, 2.0)
QUICK = Size(3.0, 12.0, 8.0, 1, 0.0, 10.0, 40, 200, 10.0, 5.0, 0.8)
