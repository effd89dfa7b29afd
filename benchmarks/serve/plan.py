"""What is measured, in which order, for how long, and what the visitors are like."""

from dataclasses import dataclass

SEED = 0
CONNECTIONS = 64  # of the closed loop: each asks again as soon as it is answered
RATES = (0.5, 1, 2, 5)  # of the open loop, as shares of what the closed loop reached
CALM = 0.5  # the rate at which alias moves are tried and recovery is watched

PATIENCE_SECONDS = 5.0  # after which a visitor leaves: such an answer would come too late
HANG_UPS = 0.1  # share of the visitors who leave before, after so many seconds at most:
HANG_UP_SECONDS = 1.0
KEYS = 10
GREEDY = 0.8  # share of the questions that the first key asks beside its tenth of the rest

ADAPTERS = 32
MOVES = 20  # of an alias, from one version to the other and back

RIVALS = ("pipeline", "litserve", "infinity")
CELLS = (
    "offline",
    "closed-ours",
    *(f"closed-{name}" for name in RIVALS),
    *(f"plain-{name}" for name in RIVALS),
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
    plain_seconds: float  # the rivals as they start by themselves
    tunings: int  # of each rival; if more than one, each is tried first
    try_seconds: float
    offline_seconds: float
    single_texts: int
    open_seconds: float
    recovery_seconds: float  # after the highest rate
    move_seconds: float  # between two moves of an alias


FULL = Size(8.0, 50.0, 25.0, 2, 12.0, 50.0, 200, 50.0, 20.0, 2.0)
QUICK = Size(3.0, 12.0, 8.0, 1, 0.0, 10.0, 40, 10.0, 5.0, 0.8)
